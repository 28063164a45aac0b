"""The table of the programs.

python benchmarks/table.py benchmarks/results/programs.json
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import report

_NOT_INSTALLED = "not installed"


def ratio(entry: dict[str, Any]) -> float:
    """lax's time divided by ours."""
    return entry["seconds"]["lax"] / entry["seconds"]["ours"]


def agrees(entry: dict[str, Any]) -> bool:
    """Whether both results agree to rounding."""
    return entry["disagreement"] <= 1


def is_wrong(entry: dict[str, Any]) -> bool:
    """Whether the program failed, or its results do not agree. One that is not installed is neither."""
    return entry["error"] != _NOT_INSTALLED if "error" in entry else not agrees(entry)


def line(entry: dict[str, Any]) -> str:
    """One program, while others are still being measured."""
    return "  ".join(_cells(entry))


def markdown(results: dict[str, Any]) -> str:
    """The table, the mean under it, and the reasons of what stays on lax."""
    entries = results["programs"]
    header = ["program", "what", "lax, ms", "ours, ms", "lax / ours", "on the kernels"]
    parts = [report.table(header, map(_cells, entries), left=2), summary(entries)]
    others = [entry["others"] for entry in entries if entry.get("others") is not None]
    if others:
        parts.append(
            f"Other programs took {report.percent(sum(others) / len(others))} of the processors meanwhile."
        )
    left = [f"* {entry['name']}: {why}" for entry in entries for why in entry.get("reasons", [])]
    if left:
        parts.append("\n".join(["On jax.lax:", "", *left]))
    return "\n\n".join(parts)


def summary(entries: list[dict[str, Any]]) -> str:
    """The geometric mean, the least ratio, and how much runs on the kernels."""
    right = [entry for entry in entries if "error" not in entry and agrees(entry)]
    if not right:
        return "Nothing was measured."
    ratios = {entry["name"]: ratio(entry) for entry in right}
    mean = math.exp(sum(map(math.log, ratios.values())) / len(ratios))
    slowest = min(ratios, key=ratios.__getitem__)
    kernels = sum(entry["kernels"] for entry in right)
    count = kernels + sum(entry["on_lax"] for entry in right)
    return (
        f"{len(right)} of {len(entries)} programs: geometric mean {report.times(mean)}, "
        f"least {report.times(ratios[slowest])} ({slowest}); "
        f"{kernels} of {count} convolutions and windows on the kernels."
    )


def _cells(entry: dict[str, Any]) -> list[str]:
    cells = [entry["name"], entry["what"]]
    if "error" in entry:
        return [*cells, "", "", entry["error"].splitlines()[-1].replace("|", "/"), ""]
    seconds, count = entry["seconds"], entry["kernels"] + entry["on_lax"]
    shown = report.times(ratio(entry)) if agrees(entry) else "results differ"
    milliseconds = [report.duration(seconds[way]) for way in ("lax", "ours")]
    return [*cells, *milliseconds, shown, f"{entry['kernels']} of {count}"]


if __name__ == "__main__":
    print(markdown(json.loads(Path(sys.argv[1]).read_text())))
