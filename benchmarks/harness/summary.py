"""Computes numbers from a run's JSON: ratios, geometric means, shares of the device's peaks, troubles."""

from __future__ import annotations

import math
from collections.abc import Iterable

from harness.tasks import ARITHMETICS, CLASSES

OURS = "ours"


def measured(results: dict) -> list[dict]:
    """The entries for which ours was timed."""
    return [entry for entry in results["layers"] if OURS in entry["seconds"]]


def peers(results: dict) -> list[str]:
    """The peers that were measured, in the order in which they were requested."""
    return [peer for peer in results["settings"]["peers"] if ratios(results["layers"], peer)]


def key(entry: dict) -> str:
    """The entry's layer, op and arithmetic."""
    return f"{entry['name']} {entry['op']} {entry['arithmetic']}"


def ratio(entry: dict, peer: str) -> float | None:
    """A peer's time divided by ours: above 1 we are faster.

    The deterministic run is a separate process, in which ours was timed again.
    """
    if peer == "deterministic":
        ours, theirs = (entry.get("deterministic", {}).get(who) for who in (OURS, "lax"))
    else:
        ours, theirs = (entry["seconds"].get(who) for who in (OURS, peer))
    return theirs["median"] / ours["median"] if ours and theirs else None


def geometric_mean(values: Iterable[float]) -> float:
    """The geometric mean of positive numbers: a ratio and its inverse balance each other."""
    logs = [math.log(value) for value in values]
    return math.exp(sum(logs) / len(logs))


def ratios(entries: Iterable[dict], peer: str) -> list[float]:
    """The ratios of all entries for which the peer was timed."""
    return [value for entry in entries if (value := ratio(entry, peer)) is not None]


def flops_rate(entry: dict, who: str = OURS) -> float:
    """Floating-point operations per second."""
    return entry["flops"] / entry["seconds"][who]["median"]


def bytes_rate(entry: dict, who: str = OURS) -> float:
    """Bytes of the operands and the result per second; each counts once, even if it is read several times."""
    return entry["bytes"] / entry["seconds"][who]["median"]


def peak(results: dict, kind: str, arithmetic: str | None = None) -> float | None:
    """The peak "flops" or "copy" per second, in an arithmetic or on the run's number of threads."""
    rates = results["peaks"].get(kind, {})
    names = (arithmetic, str(results["settings"]["threads"]), "device")
    return next((rates[name] for name in names if name in rates), None)


def bound(entry: dict, results: dict) -> tuple[str, float]:
    """The op's limit, "arithmetic" or "memory", and the least seconds that the limit allows."""
    by_memory = entry["bytes"] / peak(results, "copy")
    flops_peak = peak(results, "flops", entry["arithmetic"])
    by_arithmetic = entry["flops"] / flops_peak if entry["kind"] == "conv" and flops_peak else 0.0
    return ("arithmetic", by_arithmetic) if by_arithmetic > by_memory else ("memory", by_memory)


def share(entry: dict, results: dict) -> float | None:
    """The share of the peak that the op reaches: the least time divided by the measured time."""
    if not results["peaks"] or OURS not in entry["seconds"]:
        return None
    return bound(entry, results)[1] / entry["seconds"][OURS]["median"]


def launch_bound(entry: dict, results: dict) -> bool:
    """Whether a GPU's program is so short that its launch may dominate the time."""
    program = entry["seconds"][OURS]["median"] * entry["copies"]
    return results["settings"]["device"] != "cpu" and program < 1e-4


def disturbed(results: dict) -> str | None:
    """A warning if the machine was not quiet, else None."""
    flops, threads = results["peaks"].get("flops", {}), results["settings"]["threads"]
    found = []
    if (results["others"] or 0.0) > 0.05:
        found.append(
            f"other programs took {100 * results['others']:.0f} % of the machine's processors during the run"
        )
    if "1" in flops and (reached := peak(results, "flops") / (threads * flops["1"])) < 0.85:
        found.append(
            f"{threads} threads reached {100 * reached:.0f} % of {threads} times one thread's FMA peak, so "
            "others were running or threads share a core"
        )
    return f"The times are unreliable: {'; '.join(found)}." if found else None


def worst(results: dict, peer: str, count: int = 5) -> list[tuple[float, dict]]:
    """The smallest ratios, smallest first."""
    known = [(value, entry) for entry in measured(results) if (value := ratio(entry, peer)) is not None]
    return sorted(known, key=lambda pair: pair[0])[:count]


def groups(results: dict) -> dict[str, list[dict]]:
    """The entries in groups: each op of a kind of layer, each kind, each class and arithmetic, and all."""
    entries, found = measured(results), {}
    for kind in dict.fromkeys(entry["kind"] for entry in entries):
        of_kind = [entry for entry in entries if entry["kind"] == kind]
        for op in dict.fromkeys(entry["op"] for entry in of_kind):
            found[f"{kind} {op}"] = [entry for entry in of_kind if entry["op"] == op]
        found[f"all of {kind}"] = of_kind
    of_kinds = list(found.values())
    for name in CLASSES:
        for arithmetic in ARITHMETICS:
            chosen = [e for e in entries if name in e["classes"] and e["arithmetic"] == arithmetic]
            if chosen and chosen not in of_kinds:
                found[f"{name}, {arithmetic}"] = chosen
    return {**found, "all": entries} if entries else {}


def means(results: dict) -> list[tuple[str, dict[str, float]]]:
    """Geometric means of each peer's ratios over each group."""
    return [
        (name, {peer: geometric_mean(values) for peer in peers(results) if (values := ratios(chosen, peer))})
        for name, chosen in groups(results).items()
    ]


def flatness(results: dict) -> list[tuple[str, str, float]]:
    """(series, op, the largest time per FLOP of ours divided by the smallest)."""
    costs: dict[tuple[str, str], list[float]] = {}
    for entry in results["scaling"]:
        if OURS in entry["seconds"]:
            costs.setdefault((entry["series"], entry["op"]), []).append(1 / flops_rate(entry))
    return [(*place, max(of_place) / min(of_place)) for place, of_place in costs.items()]


def troubles(results: dict) -> list[str]:
    """The reasons why a run counts as failed: wrong results, processes that died, nothing measured."""
    entries = [*results["layers"], *results["scaling"]]
    found = [f"{key(entry)}: {text}" for entry in entries for text in entry["problems"]]
    found += results["failures"]
    # Ours supports every task, so a refusal is an error.
    found += [
        f"{key(entry)}: {who}: {reason}"
        for entry in entries
        for who, reason in entry["unsupported"].items()
        if who.startswith(OURS)
    ]
    nothing = not (measured(results) or results["training"] or results["scaling"])
    return [*found, "nothing of ours was measured"] if nothing else found
