"""What a device's results say, in numbers: ratios and their means by class, goals, shares of the peaks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from device_plan import ARITHMETICS, WEAK
from summary import OURS, geometric_mean

PEERS = ("lax", "deterministic", "torch")
_IN_MEMORY = ("depthwise", "pooling", "bias")


def measured(results: dict) -> list[dict]:
    """The entries that have a time of ours."""
    return [entry for entry in results["entries"] if OURS in entry["seconds"]]


def ratio(entry: dict, peer: str) -> float | None:
    """A peer's time divided by ours: above 1 we are faster.

    The deterministic run is a process of its own, in which ours was timed once more.
    """
    if peer == "deterministic":
        ours, theirs = (entry.get("deterministic", {}).get(who) for who in (OURS, "lax"))
    else:
        ours, theirs = (entry["seconds"].get(who) for who in (OURS, peer))
    return theirs["median"] / ours["median"] if ours and theirs else None


def ratios(entries: list[dict], peer: str) -> list[float]:
    """Of all entries that the peer has."""
    return [value for entry in entries if (value := ratio(entry, peer)) is not None]


def bound(entry: dict, peaks: dict[str, float]) -> tuple[str, float]:
    """What limits the op, "arithmetic" or "memory", and the least seconds that it takes."""
    by_memory = entry["bytes"] / peaks["copy"]
    by_arithmetic = entry["flops"] / peaks[entry["arithmetic"]] if entry["kind"] == "conv" else 0.0
    return ("arithmetic", by_arithmetic) if by_arithmetic > by_memory else ("memory", by_memory)


def share(entry: dict, peaks: dict[str, float], who: str = OURS) -> float | None:
    """How much of what the device can do at most: the least time by the time that it took."""
    if not peaks or who not in entry["seconds"]:
        return None
    return bound(entry, peaks)[1] / entry["seconds"][who]["median"]


def launch_bound(entry: dict) -> bool:
    """Whether its program is so short that starting it may be what was timed."""
    return entry["seconds"][OURS]["median"] * entry["copies"] < 1e-4


@dataclass(frozen=True)
class Goal:
    """A bound on the geometric mean of ratios to a peer, and perhaps on the smallest."""

    name: str
    peer: str
    least_mean: float
    chosen: Callable[[dict], bool]
    least: float | None = None


def _is(arithmetic: str | None, *names: str) -> Callable[[dict], bool]:
    def chosen(entry: dict) -> bool:
        of_class = not names or bool({*entry["classes"]} & {*names})
        return of_class and (arithmetic is None or entry["arithmetic"] == arithmetic)

    return chosen


GOALS = (
    Goal("bf16, dense", "lax", 1.0, _is("bf16", "dense"), 0.8),
    Goal("f32 DEFAULT (TF32), dense", "lax", 1.0, _is("tf32", "dense")),
    Goal("f32 HIGHEST, dense", "lax", 1.0, _is("f32", "dense")),
    Goal("f64, dense", "lax", 1.0, _is("f64", "dense")),
    Goal("where cuDNN is weak", "lax", 3.0, _is(None, *WEAK)),
    Goal("everything", "deterministic", 1.3, _is(None)),
)


def goals(results: dict) -> list[tuple[Goal, list[float], bool | None]]:
    """Each goal, the ratios that it is about, and whether it is met; None where nothing was measured."""
    found = []
    for goal in GOALS:
        values = ratios([entry for entry in measured(results) if goal.chosen(entry)], goal.peer)
        met = None
        if values:
            met = geometric_mean(values) >= goal.least_mean and min(values) >= (goal.least or 0.0)
        found.append((goal, values, met))
    return found


def share_goals(results: dict) -> list[tuple[str, list[tuple[str, float]]]]:
    """What is to reach 70 % of a peak: the name, and each layer and op with its share."""
    peaks, entries = results["peaks"], measured(results)
    if not peaks:
        return []
    dense = [e for e in entries if e["arithmetic"] == "bf16" and "dense" in e["classes"]]
    rows = [
        ("bf16 dense, bound by arithmetic, of the matrix rate",
         [e for e in dense if bound(e, peaks)[0] == "arithmetic"]),
        *((f"{name}, of the copy rate", [e for e in entries if name in e["classes"]]) for name in _IN_MEMORY),
    ]  # fmt: skip
    return [(name, [(key(e), share(e, peaks)) for e in chosen]) for name, chosen in rows]


def key(entry: dict) -> str:
    """Layer, op and arithmetic."""
    return f"{entry['name']} {entry['op']} {entry['arithmetic']}"


def means(results: dict) -> list[tuple[str, str, int, dict[str, float]]]:
    """(class, arithmetic, how many ops, geometric means by peer), wherever there is an op."""
    entries = measured(results)
    names = ["dense", *WEAK, "one image", "pooling", "bias"]
    rows = []
    for name in names:
        for arithmetic in ARITHMETICS:
            chosen = [entry for entry in entries if _is(arithmetic, name)(entry)]
            if chosen:
                rows.append((name, arithmetic, len(chosen), _means(chosen)))
    if entries:
        rows.append(("all", "", len(entries), _means(entries)))
    return rows


def _means(entries: list[dict]) -> dict[str, float]:
    return {peer: geometric_mean(values) for peer in PEERS if (values := ratios(entries, peer))}


def worst(results: dict, peer: str, count: int = 5) -> list[tuple[float, dict]]:
    """The smallest ratios, smallest first."""
    known = [(value, entry) for entry in measured(results) if (value := ratio(entry, peer)) is not None]
    return sorted(known, key=lambda pair: pair[0])[:count]


def troubles(results: dict) -> list[str]:
    """Everything that makes a run a failure: wrong results, processes that ended, nothing measured."""
    found = [f"{key(entry)}: {text}" for entry in results["entries"] for text in entry["problems"]]
    found += results.get("failures", [])
    # What ours refuses, it refuses by mistake.
    found += [
        f"{key(entry)}: {who}: {reason}"
        for entry in results["entries"]
        for who, reason in entry["unsupported"].items()
        if who.startswith(OURS)
    ]
    return found if measured(results) else [*found, "nothing of ours was measured"]
