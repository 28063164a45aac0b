"""A run's tables, for the terminal and as a page.

python benchmarks/report.py results.json -o docs/performance.md

The pictures next to the JSON file are linked from the page. Where a notes.md lies there as well, which
explains the numbers, the page ends with it; nothing else on the page is written by hand.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import summary

PICTURES = {
    "ratios.png": "How many times faster than each peer, for every layer and op",
    "roofline.png": "FLOP/s of every layer and op over its FLOPs per byte, under the machine's peaks",
    "scaling.png": "Time per FLOP of a 3x3 layer as its batch and its channels grow",
}


def table(header: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """A Markdown table with its columns in line; the first ``left`` columns are text."""
    rows = [list(row) for row in rows]
    widths = [max(len(row[column]) for row in [list(header), *rows]) for column in range(len(header))]

    def line(cells):
        return (
            "| "
            + " | ".join(
                cell.ljust(width) if column < left else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
            )
            + " |"
        )

    rule = (
        "|"
        + "|".join(
            "-" * (width + 2) if column < left else "-" * (width + 1) + ":"
            for column, width in enumerate(widths)
        )
        + "|"
    )
    return "\n".join([line(header), rule, *map(line, rows)])


def times(value: float | None) -> str:
    """A ratio, to two or three digits; nothing where there is none."""
    if value is None:
        return ""
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 0.1 else f"{value:.2g}"


def duration(seconds: float) -> str:
    """In milliseconds, to three digits."""
    return f"{seconds * 1e3:.3g}"


def percent(share: float) -> str:
    """A share of a peak."""
    return f"{100 * share:.0f} %"


def layer_table(results: dict) -> str:
    """Every layer and op: our time and its spread, the peers' ratios, the rates and their shares."""
    peers = summary.peers(results)
    flops_peak, copy_peak = summary.peak(results, "flops"), summary.peak(results, "copy")
    rows = []
    for entry in results["layers"]:
        ours = entry["seconds"][summary.OURS]
        rows.append(
            [
                entry["name"],
                entry["op"],
                duration(ours["median"]),
                percent((ours["q3"] - ours["q1"]) / ours["median"]),
                *(times(summary.ratio(entry, peer)) for peer in peers),
                f"{summary.flops_rate(entry) / 1e9:.1f}",
                percent(summary.flops_rate(entry) / flops_peak),
                f"{summary.bytes_rate(entry) / 1e9:.1f}",
                percent(summary.bytes_rate(entry) / copy_peak),
            ]
        )
    header = ["layer", "op", "ms", "spread", *peers, "GFLOP/s", "of FMA peak", "GB/s", "of copy"]
    return table(header, rows, left=2)


def means_table(results: dict) -> str:
    """Geometric means of the ratios."""
    peers = summary.peers(results)
    rows = [[name, *(times(means.get(peer)) for peer in peers)] for name, means in summary.means(results)]
    return table(["geometric mean of", *peers], rows)


def worst_table(results: dict, peer: str) -> str:
    """The five smallest ratios to a peer."""
    rows = [
        [entry["name"], entry["op"], entry["layer"], times(ratio)]
        for ratio, entry in summary.worst(results["layers"], peer)
    ]
    return table(["layer", "op", "shape", f"{peer} / ours"], rows, left=3)


def training_table(results: dict) -> str:
    """The example's training step."""
    ours = results["training"][summary.OURS]["seconds"]["median"]
    rows = [
        [who, duration(entry["seconds"]["median"]), times(entry["seconds"]["median"] / ours)]
        for who, entry in results["training"].items()
    ]
    return table(["training step", "ms", "of ours"], rows)


def scaling_table(results: dict) -> str:
    """How evenly the cost grows."""
    rows = [[series, op, times(value)] for series, op, value in summary.flatness(results)]
    return table(["grows in", "op", "largest / smallest time per FLOP"], rows, left=2)


def machine_table(results: dict) -> str:
    """The machine, its peaks and the versions."""
    rows = [[name, str(value)] for name, value in results["machine"].items()]
    for count, value in results["peaks"]["flops"].items():
        rows.append([f"FMA peak, {count} threads", f"{value / 1e9:.0f} GFLOP/s"])
    for count, value in results["peaks"]["copy"].items():
        rows.append([f"copy, {count} threads", f"{value / 1e9:.1f} GB/s read and written"])
    rows += [[name, version] for name, version in results["versions"].items()]
    return table(["", ""], rows, left=2)


def sections(results: dict) -> list[tuple[str, str]]:
    """Title and text of each part that the run has."""
    found = []
    warning = summary.disturbed(results)
    if warning:
        found.append(("A warning", warning))
    if results["layers"]:
        found.append(("Every layer", layer_table(results)))
        if summary.peers(results):
            found.append(("Means", means_table(results)))
        found += [
            (f"The five smallest ratios to {peer}", worst_table(results, peer))
            for peer in summary.peers(results)
        ]
    if results["training"]:
        found.append(("The example's training step", training_table(results)))
    if results["scaling"]:
        found.append(("As layers grow", scaling_table(results)))
    missing = [
        f"{e['name']} {e['op']}: {e['unsupported']}" for e in results["layers"] if e.get("unsupported")
    ]
    if missing:
        found.append(("Not measured with PyTorch", "\n".join(f"* {line}" for line in missing)))
    return found


def terminal(results: dict) -> str:
    """All tables."""
    return "\n\n".join([machine_table(results), *(f"{title}\n\n{text}" for title, text in sections(results))])


def page(results: dict, pictures: Sequence[str] = (), notes: str = "") -> str:
    """The Markdown page; ``pictures`` are links, named as PICTURES are; ``notes`` are Markdown too."""
    settings = results["settings"]
    parts = [
        "# Performance",
        "Times of single calls, f32 unless the command says otherwise, each result verified before it was "
        "timed; [benchmarks/README.md](../benchmarks/README.md) says how. A ratio is a peer's time divided "
        "by ours: above 1 this package is faster. Shares are of the peaks that the same run measured; a "
        "layer whose arrays stay in the cache can be above what copying past it allows.",
        f"Measured on {results['date']} with {settings['threads']} threads and batches of at most "
        f"{settings['batch']}, by\n\n```sh\n{shlex.join(results['command'])}\n```",
        machine_table(results),
    ]
    parts += [f"![{PICTURES[Path(link).name]}]({link})" for link in pictures]
    parts += [f"## {title}\n\n{text}" for title, text in sections(results)]
    if notes:
        parts.append(notes.strip())
    return "\n\n".join(parts) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition(".")[0])
    parser.add_argument("results", type=Path, help="a JSON file of run.py")
    parser.add_argument("-o", "--output", type=Path, help="the page to write (default: to the terminal)")
    args = parser.parse_args()
    results = json.loads(args.results.read_text())
    beside = [args.results.parent / name for name in PICTURES if (args.results.parent / name).exists()]
    origin = args.output.parent if args.output else Path()
    links = [Path(os.path.relpath(picture, origin)).as_posix() for picture in beside]
    notes = args.results.parent / "notes.md"
    text = page(results, links, notes.read_text() if notes.exists() else "")
    if args.output:
        args.output.write_text(text)
    else:
        sys.stdout.write(text)


if __name__ == "__main__":
    main()
