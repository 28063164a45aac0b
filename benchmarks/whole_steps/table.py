"""The tables of the training steps."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import report

OURS = "our calls"  # what trace.py calls the package's custom calls
LARGEST_DIFFERENCE = 0.02  # from jax.lax, as a share of an array's norm
Entry = dict[str, Any]
_SHOWN = 3  # of XLA's operations, for each net


def seconds(entry: Entry, peer: str) -> float | None:
    """A peer's least time of a step; PyTorch's in the faster memory format, and None where there is none."""
    ways = {
        "torch": [way for way in ("contiguous", "channels_last") if way in entry["seconds"]],
        "compile": [way for way in entry["seconds"] if way.startswith("compiled ")],
    }.get(peer, [peer] if peer in entry["seconds"] else [])
    return min((entry["seconds"][way]["least"] for way in ways), default=None)


def ratio(entry: Entry, peer: str, to: str) -> float | None:
    """A peer's time divided by another's, which should be larger than 1 if the other is ours."""
    one, other = seconds(entry, peer), seconds(entry, to)
    return one / other if one and other else None


def xla_part(entry: Entry, way: str) -> float | None:
    """The share of a step that is not our calls', as the profiler saw it."""
    profile = entry["profile"].get(way)
    if not profile:
        return None
    return 1 - profile["kinds"].get(OURS, {"seconds": 0})["seconds"] / profile["seconds"]


def troubles(entry: Entry) -> list[str]:
    """Peers that failed, and first steps that differ from lax's.

    They agree to rounding; with PyTorch in one memory format, which shows that the models are the same.
    In the other one and in compiled steps rounding may move a few maxima of a pool to another pixel, and so
    gradients by some thousandths.
    """
    found = [f"{entry['name']}, {peer}: {error}" for peer, error in entry["errors"].items()]
    for peer, prepared in entry["prepared"].items():
        compared = prepared.get("compared", {})
        same_models = peer == "compile" or any(of["disagreement"] <= 1 for of in compared.values())
        for way, of in compared.items():
            few_moved = same_models and of["difference"] <= LARGEST_DIFFERENCE
            if not (of["disagreement"] <= 1 or few_moved):
                found.append(
                    f"{entry['name']}, {way}: a step differs from lax's by {of['disagreement']:.3g} "
                    f"times what rounding may, a gradient by {of['difference']:.3g} of its norm"
                )
    return found


def line(entry: Entry) -> str:
    """One net, while others are still being measured."""
    shown = (f"{way} {report.duration(of['least'])}" for way, of in entry["seconds"].items())
    return "; ".join([f"{entry['name']}, ms: {', '.join(shown)}", *troubles(entry)])


def markdown(results: dict[str, Any]) -> str:
    """All tables."""
    entries = [entry for entry in results["nets"] if entry["seconds"]]
    parts = [
        _steps(entries),
        "Whose time a step under `install()` is, in ms, and the ratios that XLA's part would leave if our "
        "calls took no time:",
        _parts(entries, "install"),
    ]
    if any("own" in entry["profile"] for entry in entries):
        parts += ["The same with the model's own layers from this package:", _parts(entries, "own")]
    parts += ["The largest of XLA's operations under `install()`:", _largest(entries, "install")]
    parts += ["Time to compile a step, and memory of a step:", _costs(entries)]
    others = [entry["others"] for entry in results["nets"] if entry.get("others") is not None]
    if others:
        share = report.percent(sum(others) / len(others))
        parts.append(f"Other programs took {share} of the processors meanwhile.")
    wrong = [trouble for entry in results["nets"] for trouble in troubles(entry)]
    if wrong:
        parts.append("Went wrong:\n\n" + report.bullets(wrong))
    return "\n\n".join(parts)


def _ms(value: float | None) -> str:
    return "" if value is None else report.duration(value)


def _mean(values: Iterable[float | None]) -> str:
    known = [value for value in values if value is not None]
    return report.times(math.exp(sum(map(math.log, known)) / len(known))) if known else ""


_PEERS = {
    "lax": "lax",
    "install": "`install()`",
    "own": "own layers",
    "torch": "PyTorch",
    "compile": "compiled",
}
_RATIOS = [
    ("lax", "install"),
    ("torch", "install"),
    ("compile", "install"),
    ("torch", "own"),
    ("compile", "own"),
]


def _steps(entries: list[Entry]) -> str:
    ratios = [pair for pair in _RATIOS if any(ratio(entry, *pair) for entry in entries)]
    rows = [
        [
            entry["what"] or entry["name"],
            *(_ms(seconds(entry, peer)) for peer in _PEERS),
            *(report.times(ratio(entry, *pair)) for pair in ratios),
        ]
        for entry in entries
    ]
    means = [_mean(ratio(entry, *pair) for entry in entries) for pair in ratios]
    rows.append(["geometric mean", *[""] * len(_PEERS), *means])
    named = [f"{_PEERS[peer]} / {_PEERS[to]}" for peer, to in ratios]
    return report.table(["step", *(f"{name}, ms" for name in _PEERS.values()), *named], rows)


def _parts(entries: list[Entry], way: str) -> str:
    known = [entry for entry in entries if entry["profile"].get(way)]
    kinds = dict.fromkeys(kind for entry in known for kind in entry["profile"][way]["kinds"])
    rows = []
    for entry in known:
        profile, least = entry["profile"][way], entry["seconds"][way]["least"]
        of = {kind: found["seconds"] / profile["seconds"] * least for kind, found in profile["kinds"].items()}
        part = xla_part(entry, way)
        assert part is not None
        bounds = [least / (part * least) if part else None]
        for peer in ("lax", "torch"):
            time = seconds(entry, peer)
            bounds.append(time / (part * least) if time and part else None)
        rows.append(
            [
                entry["name"],
                *(_ms(of.get(kind)) for kind in kinds),
                _ms(part * least),
                *map(report.times, bounds),
            ]
        )
    header = ["step", *kinds, "XLA's part", "step / XLA's part", "lax / XLA's part", "PyTorch / XLA's part"]
    return report.table(header, rows)


def _largest(entries: list[Entry], way: str) -> str:
    rows = []
    for entry in entries:
        profile = entry["profile"].get(way)
        if not profile:
            continue
        others = [group for group in profile["largest"] if group["kind"] != OURS]
        for group in others[:_SHOWN]:
            share = report.percent(group["seconds"] / profile["seconds"])
            texts = [group[key].replace("|", "/") for key in ("kind", "origin", "example")]
            rows.append([entry["name"], *texts, str(group["count"]), share])
    header = ["step", "kind", "origin", "the longest", "operations", "of the step"]
    return report.table(header, rows, left=4)


def _costs(entries: list[Entry]) -> str:
    ways = [way for way in ("lax", "install", "own") if any(way in entry["seconds"] for entry in entries)]
    rows = []
    for entry in entries:
        prepared = entry["prepared"]
        known = {way: prepared.get(way, {}) for way in ways}
        grown = {**{way: entry["memory"].get(way) for way in ways}}
        by_torch = [entry["memory"].get(way) for way in ("contiguous", "channels_last")]
        grown["torch"] = min((of for of in by_torch if of is not None), default=None)
        rows.append(
            [
                entry["name"],
                *(f"{found['compiling']:.2f}" if "compiling" in found else "" for found in known.values()),
                *(_mebibytes(found.get("program_bytes")) for found in known.values()),
                *map(_mebibytes, grown.values()),
            ]
        )
    header = [
        "step",
        *(f"{_PEERS[way]}, s" for way in ways),
        *(f"{_PEERS[way]}: buffers, MiB" for way in ways),
    ]
    header += [f"{_PEERS[way]}: growth, MiB" for way in [*ways, "torch"]]
    return report.table(header, rows)


def _mebibytes(count: float | None) -> str:
    return "" if count is None else f"{count / 2**20:.1f}"
