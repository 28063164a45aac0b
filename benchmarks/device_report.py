"""A device's results as tables.

python benchmarks/device_report.py benchmarks/results/h100-2030-01-02/results.json
"""

from __future__ import annotations

import argparse
import json
import shlex
from pathlib import Path

import device_summary as summary
import xla_choices
from report import percent, table, times

_KERNELS = {"fprop": "__cudnn$convForward", "dgrad": "__cudnn$convBackwardInput",
              "wgrad": "__cudnn$convBackwardFilter"}  # fmt: skip


def microseconds(entry: dict, who: str) -> str:
    spread = entry["seconds"].get(who)
    return f"{spread['median'] * 1e6:.4g}" if spread else ""


def machine_table(results: dict) -> str:
    """The machine, its peaks, and the versions."""
    rows = [[name, str(value)] for name, value in results["machine"].items()]
    for name, value in results["peaks"].items():
        if name == "copy":
            rows.append(["copy on the device", f"{value / 1e9:.0f} GB/s read and written"])
        else:
            rows.append([f"matrix product, {name}", f"{value / 1e12:.4g} TFLOP/s"])
    rows += [[name, version] for name, version in results["versions"].items()]
    return table(["", ""], rows, left=2)


def goals_table(results: dict) -> str:
    """Each goal and what was reached."""
    rows = []
    for goal, values, met in summary.goals(results):
        wanted = f"mean {times(goal.least_mean)}" + (f", each {times(goal.least)}" if goal.least else "")
        verdict = {None: "not measured", True: "yes", False: "no"}[met]
        mean = times(summary.geometric_mean(values)) if values else ""
        rows.append([goal.name, goal.peer, wanted, str(len(values)), mean,
                     times(min(values)) if values else "", verdict])  # fmt: skip
    for name, shares in summary.share_goals(results):
        known = [value for _, value in shares]
        reached = sum(value >= 0.7 for value in known)
        rows.append([name, "", "each 70 %", str(len(known)), "", percent(min(known)) if known else "",
                     f"{reached} of {len(known)}" if known else "not measured"])  # fmt: skip
    header = ["goal", "beside", "wanted", "ops", "geometric mean", "smallest", "met"]
    return table(header, rows, left=3)


def means_table(results: dict) -> str:
    """Geometric means of the ratios, by class and arithmetic."""
    rows = [
        [name, arithmetic, str(count), *(times(means.get(peer)) for peer in summary.PEERS)]
        for name, arithmetic, count, means in summary.means(results)
    ]
    return table(["class", "arithmetic", "ops", *summary.PEERS], rows, left=2)


def kernels_table(results: dict) -> str:
    """Which of our kernels ran, and how they do by op and arithmetic."""
    groups: dict[tuple[str, str, str], list[dict]] = {}
    for entry in summary.measured(results):
        if "kernel" in entry:
            groups.setdefault((entry["kernel"], entry["op"], entry["arithmetic"]), []).append(entry)
    rows = []
    for group, entries in sorted(groups.items()):
        ratios = summary.ratios(entries, "lax")
        shares = [value for entry in entries if (value := summary.share(entry, results["peaks"]))]
        rows.append([*group, str(len(entries)), times(summary.geometric_mean(ratios)) if ratios else "",
                     percent(summary.geometric_mean(shares)) if shares else ""])  # fmt: skip
    return table(["kernel", "op", "arithmetic", "ops", "lax", "of the peak"], rows, left=3)


def worst_table(results: dict, peer: str) -> str:
    """The five smallest ratios."""
    rows = [
        [summary.key(entry), entry["text"], times(value)] for value, entry in summary.worst(results, peer)
    ]
    return table(["op", "layer", f"{peer} / ours"], rows, left=2)


def layer_table(results: dict) -> str:
    """Every op: our time, the peers' ratios, and how much of what the device can do."""
    peaks, rows = results["peaks"], []
    for entry in summary.measured(results):
        share = summary.share(entry, peaks)
        rows.append(
            [
                entry["name"],
                entry["op"],
                entry["arithmetic"],
                entry.get("kernel", ""),
                microseconds(entry, summary.OURS) + ("*" if summary.launch_bound(entry) else ""),
                *(times(summary.ratio(entry, peer)) for peer in summary.PEERS),
                "" if share is None else percent(share),
                summary.bound(entry, peaks)[0] if peaks else "",
            ]
        )
    header = ["layer", "op", "arithmetic", "kernel", "us", *summary.PEERS, "of the peak", "bound by"]
    return table(header, rows, left=4)


def xla_table(results: dict) -> str:
    """What XLA made of jax.lax's ops, and whether it calls cuDNN's function for the op, or another one."""
    rows = []
    for entry in results["entries"]:
        for run, counts in entry["xla"].items():
            if run.endswith("lax") and counts:
                own = "yes" if _KERNELS.get(entry["op"]) in counts else "no"
                if any(name.startswith("__cudnn$fusion") for name in counts):
                    own = "fused"
                mode = run.removesuffix("lax").strip() or "autotuned"
                own = own if entry["kind"] == "conv" else ""
                made = xla_choices.text_of(counts)
                rows.append([entry["name"], entry["op"], entry["arithmetic"], mode, own, made])
    header = ["layer", "op", "arithmetic", "run", "cuDNN's own", "kernels of one call"]
    return table(header, rows, left=6)


def around_ours(results: dict) -> str:
    """What XLA put around our calls, where it put anything."""
    lines = []
    for entry in results["entries"]:
        others = {
            name: count
            for name, count in entry["xla"].get(summary.OURS, {}).items()
            if not name.startswith("jax_convgrad_")
        }
        if others:
            lines.append(f"* {summary.key(entry)}: {xla_choices.text_of(others)}")
    return "\n".join(lines)


def sections(results: dict) -> list[tuple[str, str]]:
    """Title and text of each part that the run has."""
    found = []
    troubles = summary.troubles(results)
    if troubles:
        found.append(("Went wrong", "\n".join(f"* {line}" for line in troubles)))
    found += [("Goals", goals_table(results)), ("Means", means_table(results))]
    found += [
        (f"The five smallest ratios: {peer}", worst_table(results, peer))
        for peer in summary.PEERS
        if summary.worst(results, peer)
    ]
    found.append(("Left out, as the time was over", left_out(results)))
    return found


def left_out(results: dict) -> str:
    """By peer and arithmetic, the layers of which one op or more was not reached."""
    lines = []
    for peer, keys in results["left_out"].items():
        names: dict[str, dict[str, None]] = {}
        for task in keys:
            name, _, arithmetic = task.rsplit(" ", 2)
            names.setdefault(arithmetic, {})[name] = None
        lines += [f"* {peer}, {arithmetic}: {'; '.join(of_it)}" for arithmetic, of_it in names.items()]
    return "\n".join(lines) or "Nothing."


def details(results: dict) -> list[tuple[str, str]]:
    """What is too long for a terminal."""
    found = [("Our kernels, in geometric means", kernels_table(results)), ("Every op", layer_table(results))]
    refused = [
        f"* {summary.key(entry)}, {who}: {reason}"
        for entry in results["entries"]
        for who, reason in entry["unsupported"].items()
    ]
    if refused:
        found.append(("Not supported", "\n".join(refused)))
    found.append(("What XLA makes of jax.lax's ops", xla_table(results)))
    around = around_ours(results)
    if around:
        found.append(("What XLA puts around our calls", around))
    return found


def terminal(results: dict) -> str:
    """The tables that say most."""
    parts = [machine_table(results), *(f"{title}\n\n{text}" for title, text in sections(results))]
    measured, troubles = len(summary.measured(results)), len(summary.troubles(results))
    left = sum(map(len, results["left_out"].values()))
    return "\n\n".join([*parts, f"{measured} ops measured, {troubles} troubles, {left} left out"])


def page(results: dict) -> str:
    """Everything, as Markdown."""
    settings = results["settings"]
    parts = [
        f"# {results['machine'].get('device', settings['platform'])}, {results['date']}",
        "A ratio is a peer's time divided by ours: above 1 this package is faster. `lax` is autotuned; "
        "`deterministic` is lax under --xla_gpu_deterministic_ops, beside ours in the same process; `torch` "
        "has cudnn.benchmark and channels last. Times are of one call among several in one program, each on "
        "operands of its own; of those with a star the whole program takes less than 100 us, so that "
        "starting it may be what was timed. Shares are of the peaks that the same run measured.",
        f"The run is {results['state']}; it had {settings['seconds']:g} seconds, by\n\n"
        f"```sh\n{shlex.join(results['command'])}\n```",
        machine_table(results),
    ]
    parts += [f"## {title}\n\n{text}" for title, text in [*sections(results), *details(results)]]
    return "\n\n".join(parts) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("results", type=Path, help="a JSON file of run.py --platform cuda")
    print(page(json.loads(parser.parse_args().results.read_text())))


if __name__ == "__main__":
    main()
