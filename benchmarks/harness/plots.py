"""A run's three pictures: bars of ratios, the roofline, and time per FLOP as layers grow."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from harness import summary

_COLOURS = {"ours": "C0", "lax": "C1", "torch": "C3"}
_MARKERS = {"fprop": "o", "dgrad": "v", "wgrad": "s", "bgrad": "D", "fprop+dgrad": "P"}


def draw(results: dict, folder: Path) -> list[Path]:
    """Draws the pictures for which the run has data into ``folder``."""
    drawn = []
    for name, figure in (("ratios", ratios), ("roofline", roofline), ("scaling", scaling)):
        made = figure(results)
        if made is not None:
            drawn.append(folder / f"{name}.png")
            made.savefig(drawn[-1], dpi=120)
            plt.close(made)
    return drawn


def ratios(results: dict):
    """Bars for each layer and op, one for each peer, on a logarithmic axis that begins at equality."""
    peers, entries = summary.peers(results), summary.measured(results)
    if not peers:
        return None
    figure, axes = plt.subplots(figsize=(9, 1.5 + 0.22 * len(entries)), layout="constrained")
    places, height = np.arange(len(entries)), 0.8 / len(peers)
    for number, peer in enumerate(peers):
        values = [summary.ratio(entry, peer) for entry in entries]
        known = [(place, value) for place, value in zip(places, values, strict=True) if value is not None]
        at = np.array([place for place, _ in known]) + (number - (len(peers) - 1) / 2) * height
        lengths = np.array([value for _, value in known])
        mean = summary.geometric_mean(lengths)
        axes.barh(
            at, lengths - 1, height, left=1, color=_COLOURS[peer], label=f"{peer}, geometric mean {mean:.2f}"
        )
    axes.set_xscale("log")
    axes.axvline(1, color="black", linewidth=1)
    axes.set_yticks(places, [summary.key(entry) for entry in entries], fontsize=7)
    axes.set_ylim(len(entries) - 0.4, -0.6)
    axes.set_xlabel("peer's time / ours (to the right of 1: ours is faster)")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.grid(axis="x", alpha=0.3)
    figure.legend(loc="outside upper center", ncols=len(peers), fontsize=8)
    return figure


def roofline(results: dict):
    """FLOP/s over FLOPs per byte, under the FMA peak and the copy rate of tensors larger than the cache."""
    entries = summary.measured(results)
    if not entries:
        return None
    flops_peak, copy_peak = summary.peak(results, "flops"), summary.peak(results, "copy")
    figure, axes = plt.subplots(figsize=(9, 6), layout="constrained")
    intensities = [entry["flops"] / entry["bytes"] for entry in entries]
    span = np.geomspace(min(intensities) / 2, max(max(intensities), flops_peak / copy_peak) * 2, 200)
    axes.plot(span, np.minimum(flops_peak, copy_peak * span) / 1e9, color="black", label="peaks of this run")
    for who in ["ours", *summary.peers(results)]:
        for op, marker in _MARKERS.items():
            chosen = [entry for entry in entries if entry["op"] == op and who in entry["seconds"]]
            if not chosen:
                continue
            axes.scatter(
                [entry["flops"] / entry["bytes"] for entry in chosen],
                [summary.flops_rate(entry, who) / 1e9 for entry in chosen],
                marker=marker,
                s=30 if who == "ours" else 12,
                color=_COLOURS[who],
                alpha=0.9 if who == "ours" else 0.4,
                label=f"{who} {op}",
            )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("FLOPs per byte of operands and result")
    axes.set_ylabel("GFLOP/s")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7, ncols=2, loc="lower right")
    return figure


def scaling(results: dict):
    """Time per FLOP, each series relative to its own smallest."""
    if not results["scaling"]:
        return None
    series = list(dict.fromkeys(entry["series"] for entry in results["scaling"]))
    figure, panels = plt.subplots(
        1, len(series), figsize=(9, 4), layout="constrained", sharey=True, squeeze=False
    )
    for axes, name in zip(panels[0], series, strict=True):
        for op in ("fprop", "dgrad", "wgrad"):
            chosen = [e for e in results["scaling"] if e["series"] == name and e["op"] == op]
            if not chosen:
                continue
            costs = np.array([1 / summary.flops_rate(entry) for entry in chosen])
            axes.plot(
                [entry["value"] for entry in chosen], costs / costs.min(), marker=_MARKERS[op], label=op
            )
        axes.axhspan(1, 1.2, color="grey", alpha=0.2)
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.set_xlabel(name)
        axes.grid(alpha=0.3)
    largest = max(ratio for _, _, ratio in summary.flatness(results))
    panels[0, 0].set_ylim(0.9, max(1.3, 1.05 * largest))
    panels[0, 0].set_ylabel("time per FLOP / the smallest")
    panels[0, 0].legend()
    return figure
