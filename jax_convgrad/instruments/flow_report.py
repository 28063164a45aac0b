"""The report of ``gradient_flow``: a row for each layer, verdicts, a table."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from jax_convgrad.instruments.flow_numbers import Flow, LayerFlow, ParameterFlow
from jax_convgrad.table import Printed, Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

THOUSANDFOLD = 1e3
"""A gradient has vanished or exploded if its norm differs from the reference's by this factor."""

DEAD_SHARE = 0.99
"""The share of zeros in a gradient from which on the layer is called dead."""


@dataclass(frozen=True, repr=False)
class FlowReport(Printed):
    """The flow of the gradient through the layers: it prints as a table, and ``plot`` draws it.

    Layers are in the order of the forward pass. A layer's verdict is

    * "not finite" if its gradient has a NaN or an infinity;
    * "dead" if at least 99 % of its gradient's elements are zero;
    * "vanishing" if its gradient's norm is below a thousandth of the reference's, and "exploding" if it is
      above a thousand times that.

    The reference is the one of the last two layers with the larger norm. The last layer alone would not do:
    its gradient is also small if its input is, in a network whose signal vanishes on the way forward.
    """

    loss: float
    """The value that was differentiated."""
    parameters: tuple[ParameterFlow, ...]
    """A row for each array, those of a layer next to each other."""
    update: str
    """The update that the ratios are about, in words."""

    @cached_property
    def layers(self) -> tuple[LayerFlow, ...]:
        """A row for each layer, its verdict included."""
        parts: dict[str, list[Flow]] = {}
        for parameter in self.parameters:
            parts.setdefault(parameter.layer, []).append(parameter)
        layers = [LayerFlow.of(name, flows) for name, flows in parts.items()]
        reference = layers[at].gradient_norm if (at := _reference(layers)) is not None else math.nan
        return tuple(replace(layer, verdict=_verdict(layer, reference)) for layer in layers)

    @property
    def reference(self) -> LayerFlow | None:
        """The layer that the others are compared with; None if both norms are zero or not finite."""
        return None if (at := _reference(self.layers)) is None else self.layers[at]

    @property
    def fall(self) -> float:
        """The factor by which the gradient's norm changes from a layer to the one before it, on average.

        The geometric mean from the reference, layer m counted from 0, to the first: (‖g_0‖ / ‖g_m‖) ** (1/m).
        It is NaN if there are not two layers, or if one of the two norms is zero or not finite.
        """
        at, first = _reference(self.layers), self.layers[0].gradient_norm
        if not at or not 0 < first < math.inf:
            return math.nan
        return math.exp((math.log(first) - math.log(self.layers[at].gradient_norm)) / at)

    def by_parameter(self) -> FlowReport:
        """The same report with a row, a verdict and a point in the picture for every array of ``params``."""
        return replace(self, parameters=tuple(replace(row, layer=row.name) for row in self.parameters))

    def table(self) -> Table:
        """A row for each layer; "-" for a ratio to weights that are all zero."""
        head = ("layer", "size", "‖g‖", "mean |g|", "max |g|", "zeros", "‖w‖", "‖Δw‖/‖w‖", "verdict")
        rows = [
            (
                layer.name,
                str(layer.size),
                *map(_number, (layer.gradient_norm, layer.gradient_mean, layer.gradient_max)),
                _percent(layer.zeros, layer.size),
                _number(layer.weight_norm),
                "-" if layer.weight_norm == 0 else _number(layer.update_ratio),
                layer.verdict,
            )
            for layer in self.layers
        ]
        return Table(head, rows, right=frozenset(head[1:-1]))

    def summary(self) -> str:
        """Lines of text: the loss, the gradient's way from the last layer to the first, and the verdicts."""
        first, reference = self.layers[0], self.reference
        lines = [f"loss {self.loss:.6g}; Δw is the step of {self.update}"]
        if reference is not None and not math.isnan(self.fall):
            lines.append(
                f"‖g‖ goes from {reference.gradient_norm:.2e} in {reference.name} back to "
                f"{first.gradient_norm:.2e} in {first.name}, by a factor of {self.fall:.3g} a layer"
            )
        for verdict, meaning in _MEANINGS.items():
            names = [layer.name for layer in self.layers if layer.verdict == verdict]
            if names:
                meaning = meaning.format(reference=reference.name if reference else "")
                lines.append(f"{verdict} ({meaning}): {_listed(names)}")
        return "\n".join(lines)

    def _blocks(self) -> Iterator[str | Table]:
        yield self.table()
        yield self.summary()

    __repr__ = Printed.__str__  # at a prompt too

    def plot(self, path: str | Path | None = None, ax: Axes | None = None) -> Figure:
        """Draws gradient norm, mean magnitude and update ratio over the layers, on a log scale.

        A log scale has no place for zero, NaN and infinity; markers on its lower and upper edge show them.

        Args:
          path: file to write the picture to, of any kind that matplotlib writes; its folder has to be there.
          ax: axes to draw into, in place of a figure of its own.

        Returns:
          The figure, which a notebook shows.

        Raises:
          ImportError: matplotlib is not installed.
        """
        from jax_convgrad.instruments.flow_plot import draw

        return draw(self.layers, self.loss, path, ax)


_MEANINGS = {
    "not finite": "NaN or infinite elements in the gradient",
    "dead": "at least 99 % of the gradient is zero",
    "vanishing": "‖g‖ below a thousandth of {reference}'s",
    "exploding": "‖g‖ above a thousand times {reference}'s",
}


def _reference(layers: Sequence[LayerFlow]) -> int | None:
    """The number of the layer that the others are compared with, or None."""
    last_two = range(len(layers))[-2:]
    usable = [at for at in last_two if 0 < layers[at].gradient_norm < math.inf]
    return max(usable, key=lambda at: layers[at].gradient_norm, default=None)


def _verdict(layer: LayerFlow, reference: float) -> str:
    if layer.nonfinite:
        return "not finite"
    if layer.size == 0:
        return ""
    if layer.zero_share >= DEAD_SHARE:
        return "dead"
    if layer.gradient_norm < reference / THOUSANDFOLD:
        return "vanishing"
    if layer.gradient_norm > reference * THOUSANDFOLD:
        return "exploding"
    return ""  # which holds where the reference is NaN too


def _number(value: float) -> str:
    return "0" if value == 0 else f"{value:.2e}"


def _percent(count: int, size: int) -> str:
    """Writes a share in percent; 0 % and 100 % stand for exactly none and all."""
    if count in (0, size):
        return "0 %" if count == 0 else "100 %"
    return f"{min(max(100 * count / size, 0.1), 99.9):.1f} %"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 6 else f"{', '.join(names[:5])} and {len(names) - 5} more"
