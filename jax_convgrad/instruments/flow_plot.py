"""The picture of ``gradient_flow``'s report: its numbers over the layers, on a log scale."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from jax_convgrad.instruments.flow_numbers import LayerFlow

SERIES: dict[str, tuple[Callable[[LayerFlow], float], dict[str, Any]]] = {
    "‖g‖, gradient norm": (lambda layer: layer.gradient_norm, dict(color="#4477aa", marker="o")),
    "mean |g|": (lambda layer: layer.gradient_mean, dict(color="#66ccee", marker="s", linestyle="--")),
    "‖Δw‖/‖w‖, update to weight": (lambda layer: layer.update_ratio, dict(color="#cc6677", marker="D")),
}
ZERO, NONFINITE = "zero", "NaN or infinite"
_CHARACTER = 0.075  # inches, of a name
MOST_NAMES = 40
"""Most layers whose names are all drawn; of more, names are left out evenly."""


def draw(layers: Sequence[LayerFlow], loss: float, path: str | Path | None, ax: Axes | None) -> Figure:
    """See ``FlowReport.plot``."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            'drawing needs matplotlib, which is not installed: pip install "jax_convgrad[plot]"'
        ) from error

    figure: Any
    if ax is None:
        # Wide enough for each name, and no wider than a page can show.
        figure = Figure(figsize=(min(max(6.4, 1.5 + 0.28 * len(layers)), 14), 4.8), layout="constrained")
        FigureCanvasAgg(figure)
        ax = figure.add_subplot()
    else:
        figure = ax.get_figure()

    ax.set_yscale("log")
    for label, (value, style) in SERIES.items():
        heights = [value(layer) for layer in layers]
        shown = [height if 0 < height < math.inf else math.nan for height in heights]
        ax.plot(range(len(layers)), shown, label=label, markersize=3.5, linewidth=1.2, **style)
    gradients = [layer.gradient_norm for layer in layers]
    _mark(ax, [at for at, norm in enumerate(gradients) if norm == 0], 0.0, "v", "#222222", ZERO)
    lost = [at for at, layer in enumerate(layers) if layer.nonfinite]
    _mark(ax, lost, 1.0, "X", "#aa3377", NONFINITE)

    every = math.ceil(len(layers) / MOST_NAMES)
    names = [layer.name for layer in layers[::every]]
    room = ax.get_window_extent().width / figure.dpi / len(layers) if layers else 0
    upright = max(map(len, names), default=0) * _CHARACTER > room
    ax.set_xticks(range(0, len(layers), every), names)
    ax.tick_params(axis="x", labelrotation=90 if upright else 0, labelsize=8)
    ax.set_xlim(-0.5, len(layers) - 0.5)
    ax.set_xlabel("layer, from the first of the forward pass to the last")
    ax.set_title(f"Gradient flow at loss {loss:.4g}")
    ax.grid(alpha=0.3)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, fontsize=8)
    if path is not None:
        figure.savefig(path, dpi=150)
    return figure


def _mark(ax: Axes, at: Sequence[int], edge: float, marker: str, color: str, label: str) -> None:
    """Markers on an edge of the axes, 0 the lower and 1 the upper one: a log scale has no place for these."""
    if at:
        ax.plot(
            at, [edge] * len(at), transform=ax.get_xaxis_transform(), clip_on=False, zorder=3,
            linestyle="", marker=marker, markersize=8, color=color, label=label,
        )  # fmt: skip
