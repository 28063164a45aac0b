"""What a run's JSON says, in numbers: ratios, geometric means, shares of the machine's peaks."""

from __future__ import annotations

import math
from collections.abc import Iterable

OURS = "ours"


def peers(results: dict) -> list[str]:
    """Whoever was measured beside us, in the order in which they were asked for."""
    return [
        peer for peer in results["settings"]["peers"] if any(peer in e["seconds"] for e in results["layers"])
    ]


def ratio(entry: dict, peer: str) -> float | None:
    """A peer's time divided by ours: above 1 we are faster."""
    if peer not in entry["seconds"]:
        return None
    return entry["seconds"][peer]["median"] / entry["seconds"][OURS]["median"]


def geometric_mean(values: Iterable[float]) -> float:
    """Of positive numbers; a ratio and its inverse balance each other."""
    logs = [math.log(value) for value in values]
    return math.exp(sum(logs) / len(logs))


def ratios(entries: Iterable[dict], peer: str) -> list[float]:
    """Of all entries that the peer has."""
    return [value for entry in entries if (value := ratio(entry, peer)) is not None]


def flops_rate(entry: dict, who: str = OURS) -> float:
    """Floating-point operations a second."""
    return entry["flops"] / entry["seconds"][who]["median"]


def bytes_rate(entry: dict, who: str = OURS) -> float:
    """Bytes of the operands and the result a second: each counts once, however often it is read."""
    return entry["bytes"] / entry["seconds"][who]["median"]


def peak(results: dict, kind: str) -> float:
    """Of the machine, "flops" or "copy", with as many threads as the run had."""
    return results["peaks"][kind][str(results["settings"]["threads"])]


def disturbed(results: dict) -> str | None:
    """What speaks against the machine having been quiet, if anything."""
    flops, threads = results["peaks"]["flops"], results["settings"]["threads"]
    reached, others = peak(results, "flops") / (threads * flops["1"]), results["others"]
    found = []
    if others is not None and others > 0.05:
        found.append(f"other programs took {100 * others:.0f} % of the machine's processors during the run")
    if reached < 0.85:
        found.append(
            f"{threads} threads reached {100 * reached:.0f} % of {threads} times one thread's FMA peak, so "
            "others were running or threads share a core"
        )
    return f"Times are not to be relied on: {'; '.join(found)}." if found else None


def worst(entries: Iterable[dict], peer: str, count: int = 5) -> list[tuple[float, dict]]:
    """The smallest ratios, smallest first."""
    known = [(value, entry) for entry in entries if (value := ratio(entry, peer)) is not None]
    return sorted(known, key=lambda pair: pair[0])[:count]


def means(results: dict) -> list[tuple[str, dict[str, float]]]:
    """Geometric means of each peer's ratios over each op, over each kind of layer, and over all."""
    entries = results["layers"]
    rows = []
    for kind in dict.fromkeys(entry["kind"] for entry in entries):
        of_kind = [entry for entry in entries if entry["kind"] == kind]
        for op in dict.fromkeys(entry["op"] for entry in of_kind):
            rows.append((f"{kind} {op}", [entry for entry in of_kind if entry["op"] == op]))
        rows.append((f"all of {kind}", of_kind))
    rows.append(("all", entries))
    return [
        (
            name,
            {peer: geometric_mean(values) for peer in peers(results) if (values := ratios(chosen, peer))},
        )
        for name, chosen in rows
    ]


def flatness(results: dict) -> list[tuple[str, str, float]]:
    """(series, op, the largest time per FLOP of ours divided by the smallest)."""
    rows = []
    for series in dict.fromkeys(entry["series"] for entry in results["scaling"]):
        for op in dict.fromkeys(entry["op"] for entry in results["scaling"]):
            costs = [
                1 / flops_rate(entry)
                for entry in results["scaling"]
                if entry["series"] == series and entry["op"] == op
            ]
            if costs:
                rows.append((series, op, max(costs) / min(costs)))
    return rows
