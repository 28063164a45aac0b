"""Prints a run's tables on the terminal, or writes them as a page.

python benchmarks/report.py docs/performance/results.json -o docs/performance.md

The page links the pictures in the JSON file's folder. If that folder has a notes.md, which explains the
numbers, the page ends with it; nothing else on the page is written by hand.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from harness import goals, summary, xla_choices
from harness.devices import DEVICES

PICTURES = {
    "ratios.png": "How many times faster than each peer, for every layer and op",
    "roofline.png": "FLOP/s of every layer and op over its FLOPs per byte, under the machine's peaks",
    "scaling.png": "Time per FLOP of a 3x3 layer as its batch or its channels grow",
}
_CUDNN = {"fprop": "Forward", "dgrad": "BackwardInput", "wgrad": "BackwardFilter"}


def table(header: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """A Markdown table with aligned columns; the first ``left`` columns are text."""
    rows = [list(header), *map(list, rows)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rows = [
        [cell.ljust(width) if at < left else cell.rjust(width) for at, (cell, width) in enumerate(cells)]
        for cells in (list(zip(row, widths, strict=True)) for row in rows)
    ]
    rule = ["-" * (width + 2) if at < left else "-" * (width + 1) + ":" for at, width in enumerate(widths)]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], f"|{'|'.join(rule)}|", *lines[1:]])


def bullets(lines: Iterable[str]) -> str:
    """A Markdown list."""
    return "\n".join(f"* {line}" for line in lines)


def times(value: float | None) -> str:
    """A ratio, to two or three digits; an empty text for None."""
    if value is None:
        return ""
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 0.1 else f"{value:.2g}"


def mean(values: Sequence[float]) -> str:
    """The geometric mean of ratios; an empty text if there is no ratio."""
    return times(summary.geometric_mean(values) if values else None)


def duration(seconds: float) -> str:
    """A time in milliseconds, to three digits."""
    return f"{seconds * 1e3:.3g}"


def percent(share: float | None) -> str:
    """A share of a peak; an empty text for None."""
    return "" if share is None else f"{100 * share:.0f} %"


def machine_table(results: dict) -> str:
    """The machine, its peaks and the versions."""
    rows = [[name, str(value)] for name, value in results["machine"].items()]
    for name, value in results["peaks"].get("flops", {}).items():
        what = f"FMA peak, {name} threads" if name.isdigit() else f"matrix product, {name}"
        rate = f"{value / 1e9:.0f} GFLOP/s" if value < 1e12 else f"{value / 1e12:.4g} TFLOP/s"
        rows.append([what, rate])
    for name, value in results["peaks"].get("copy", {}).items():
        where = f", {name} threads" if name.isdigit() else " on the device"
        rows.append([f"copy{where}", f"{value / 1e9:.1f} GB/s read and written"])
    rows += [[name, version] for name, version in results["versions"].items()]
    return table(["", ""], rows, left=2)


def goals_table(results: dict) -> str:
    """A table of the goals and how far each is met."""
    rows = []
    for goal, values, met in goals.goals(results):
        wanted = f"mean {times(goal.least_mean)}" + (f", each {times(goal.least)}" if goal.least else "")
        verdict = {None: "not measured", True: "yes", False: "no"}[met]
        smallest = times(min(values, default=None))
        rows.append([goal.name, goal.peer, wanted, str(len(values)), mean(values), smallest, verdict])
    for name, shares in goals.share_goals(results):
        known = [value for _, value in shares]
        reached = f"{sum(value >= 0.7 for value in known)} of {len(known)}" if known else "not measured"
        smallest = percent(min(known, default=None))
        rows.append([name, "", "each 70 %", str(len(known)), "", smallest, reached])
    header = ["goal", "compared with", "bound", "ops", "geometric mean", "smallest", "met"]
    return table(header, rows, left=3)


def means_table(results: dict) -> str:
    """A table of the geometric means of the ratios."""
    peers, groups = summary.peers(results), summary.groups(results)
    rows = [
        [name, str(len(groups[name])), *(times(means.get(peer)) for peer in peers)]
        for name, means in summary.means(results)
    ]
    return table(["geometric mean of", "ops", *peers], rows)


def names(results: dict) -> tuple[list[str], Callable[[dict], list[str]]]:
    """The first columns of a table of ops, with the arithmetic if there are several, and an entry's cells."""
    columns = ["name", "op", "arithmetic"][: 2 + (len(results["settings"]["arithmetics"]) > 1)]
    return ["layer", *columns[1:]], lambda entry: [entry[column] for column in columns]


def worst_table(results: dict, peer: str) -> str:
    """A table of the five smallest ratios to a peer."""
    head, cells = names(results)
    rows = [[*cells(entry), entry["layer"], times(ratio)] for ratio, entry in summary.worst(results, peer)]
    return table([*head, "shape", f"{peer} / ours"], rows, left=len(head) + 1)


def training_table(results: dict) -> str:
    """A table of the example's training step."""
    medians = {who: step["seconds"]["median"] for who, step in results["training"].items()}
    ours = medians[summary.OURS]
    rows = [[who, duration(median), times(median / ours)] for who, median in medians.items()]
    return table(["training step", "ms", "of ours"], rows)


def scaling_table(results: dict) -> str:
    """A table of how evenly the time per FLOP grows."""
    rows = [[series, op, times(value)] for series, op, value in summary.flatness(results)]
    return table(["grows in", "op", "largest / smallest time per FLOP"], rows, left=2)


def kernels_table(results: dict) -> str:
    """A table of the kernels that ran, with the means by op and arithmetic."""
    groups: dict[tuple[str, str, str], list[dict]] = {}
    for entry in summary.measured(results):
        if "kernel" in entry:
            groups.setdefault((entry["kernel"], entry["op"], entry["arithmetic"]), []).append(entry)
    rows = []
    for group, entries in sorted(groups.items()):
        shares = [value for entry in entries if (value := summary.share(entry, results))]
        of_the_peak = percent(summary.geometric_mean(shares) if shares else None)
        rows.append([*group, str(len(entries)), mean(summary.ratios(entries, "lax")), of_the_peak])
    return table(["kernel", "op", "arithmetic", "ops", "lax", "of the peak"], rows, left=3)


def layer_table(results: dict) -> str:
    """A table of every layer and op: our time and its spread, the peers' ratios, rates and shares."""
    peers, copy_peak, rows = summary.peers(results), summary.peak(results, "copy"), []
    head, cells = names(results)
    kernels = any("kernel" in entry for entry in results["layers"])
    for entry in summary.measured(results):
        ours = entry["seconds"][summary.OURS]
        flops, moved = summary.flops_rate(entry), summary.bytes_rate(entry)
        flops_peak = summary.peak(results, "flops", entry["arithmetic"])
        rows.append(
            [
                *cells(entry),
                *([entry.get("kernel", "")] if kernels else []),
                duration(ours["median"]) + ("*" if summary.launch_bound(entry, results) else ""),
                percent((ours["q3"] - ours["q1"]) / ours["median"]),
                *(times(summary.ratio(entry, peer)) for peer in peers),
                f"{flops / 1e9:.1f}",
                percent(flops / flops_peak if flops_peak else None),
                f"{moved / 1e9:.1f}",
                percent(moved / copy_peak if copy_peak else None),
            ]
        )
    head += ["kernel"] if kernels else []
    header = [*head, "ms", "spread", *peers, "GFLOP/s", "of peak", "GB/s", "of copy"]
    return table(header, rows, left=len(head))


def xla_table(results: dict) -> str:
    """A table of XLA's kernels for jax.lax's ops, and whether it calls cuDNN's function for each."""
    rows = []
    for entry in results["layers"]:
        for run, counts in entry.get("xla", {}).items():
            if not run.endswith("lax") or not counts:
                continue
            own = "yes" if f"__cudnn$conv{_CUDNN.get(entry['op'])}" in counts else "no"
            if any(name.startswith("__cudnn$fusion") for name in counts):
                own = "fused"
            mode = run.removesuffix("lax").strip() or "autotuned"
            rows.append([entry["name"], entry["op"], entry["arithmetic"], mode,
                         own if entry["kind"] == "conv" else "", xla_choices.text_of(counts)])  # fmt: skip
    header = ["layer", "op", "arithmetic", "run", "cuDNN's own", "kernels of one call"]
    return table(header, rows, left=6) if rows else ""


def around_ours(results: dict) -> str:
    """A list of the kernels that XLA adds around our calls."""
    lines = []
    for entry in results["layers"]:
        counts = entry.get("xla", {}).get(summary.OURS, {})
        others = {name: count for name, count in counts.items() if not name.startswith("jax_convgrad_")}
        if others:
            lines.append(f"{summary.key(entry)}: {xla_choices.text_of(others)}")
    return bullets(lines)


def left_out(results: dict) -> str:
    """A list of the layers that a peer did not finish, by peer and arithmetic."""
    names: dict[str, dict[str, None]] = {}
    for peer, keys in results["left_out"].items():
        for key in keys:
            name, _, arithmetic = key.rsplit(" ", 2)
            names.setdefault(f"{peer}, {arithmetic}", {})[name] = None
    return bullets(f"{where}: {'; '.join(of_it)}" for where, of_it in names.items())


def sections(results: dict) -> dict[str, str]:
    """The text of each section for which the run has data, by title."""
    on_gpu, some = results["settings"]["device"] != "cpu", bool(summary.measured(results))
    peers = summary.peers(results)
    found = {
        "A warning": summary.disturbed(results),
        "Went wrong": bullets(summary.troubles(results)),
        "Goals": on_gpu and goals_table(results),
        "Means": peers and means_table(results),
        **{f"The five smallest ratios to {peer}": worst_table(results, peer) for peer in peers},
        "The example's training step": results["training"] and training_table(results),
        "As layers grow": results["scaling"] and scaling_table(results),
        "Left out for lack of time": left_out(results),
        "Our kernels, in geometric means": on_gpu and some and kernels_table(results),
        "Every layer": some and layer_table(results),
        "Not supported": bullets(
            f"{summary.key(entry)}, {who}: {reason}"
            for entry in results["layers"]
            for who, reason in entry["unsupported"].items()
        ),
        "XLA's kernels for jax.lax's ops": xla_table(results),
        "XLA's kernels around our calls": around_ours(results),
    }
    return {title: text for title, text in found.items() if text}


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def terminal(results: dict) -> str:
    """All tables, and a line that sums up the run."""
    left = sum(map(len, results["left_out"].values()))
    return "\n\n".join(
        [
            machine_table(results),
            *(f"{title}\n\n{text}" for title, text in sections(results).items()),
            f"{_counted(len(summary.measured(results)), 'op')} measured, "
            f"{_counted(len(summary.troubles(results)), 'trouble')}, {left} left out",
        ]
    )


def page(results: dict, how: str, pictures: Sequence[str] = (), notes: str = "") -> str:
    """The Markdown page.

    Args:
      results: the run's JSON.
      how: a link to the page that says how the run measures.
      pictures: links to the pictures, whose file names PICTURES has.
      notes: Markdown for the page's end.
    """
    settings = results["settings"]
    device = results["machine"].get("device")
    conditions = [
        f"Measured on {results['date']} in {', '.join(settings['arithmetics'])}",
        f"with {settings['threads']} threads" if settings["device"] == "cpu" else "",
        f"and batches of at most {settings['batch']}" if settings["batch"] else "",
        f"for at most {settings['seconds']:g} seconds" if settings["seconds"] else "",
    ]
    state = "" if results["state"] == "complete" else f" The run is {results['state']}."
    parts = [
        f"# {device}, {results['date']}" if device else "# Performance",
        "Times of single calls, each result verified before it was timed; "
        f"[benchmarks/README.md]({how}) says how. A ratio is a peer's time divided by ours: above 1 this "
        "package is faster. Shares are of the peaks that the same run measured. "
        f"{DEVICES[settings['device']].about}{state}",
        f"{' '.join(filter(None, conditions))}, by\n\n```sh\n{shlex.join(results['command'])}\n```",
        machine_table(results),
    ]
    parts += [f"![{PICTURES[Path(link).name]}]({link})" for link in pictures]
    parts += [f"## {title}\n\n{text}" for title, text in sections(results).items()]
    return "\n\n".join([*parts, *filter(None, [notes.strip()])]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("results", type=Path, help="a JSON file of run.py")
    parser.add_argument("-o", "--output", type=Path, help="the page to write (default: to the terminal)")
    args = parser.parse_args()
    results = json.loads(args.results.read_text())
    folder, origin = args.results.parent, args.output.parent if args.output else Path()

    def link(path: Path) -> str:
        return Path(os.path.relpath(path, origin)).as_posix()

    pictures = [link(folder / name) for name in PICTURES if (folder / name).exists()]
    notes = (folder / "notes.md").read_text() if (folder / "notes.md").exists() else ""
    # Links in notes.md are relative to its folder.
    notes = re.sub(r"(?<=\]\()(?![a-z]+:|#)[^)#]+", lambda found: link(folder / found[0]), notes)
    text = page(results, link(Path(__file__).parent / "README.md"), pictures, notes)
    if args.output:
        args.output.write_text(text)
    else:
        sys.stdout.write(text)


if __name__ == "__main__":
    main()
