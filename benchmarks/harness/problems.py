"""The problems to measure: layers of three kinds, their ops, and what an op computes and moves.

Operands have letters as names: x, w, dy, all channels last.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np

from jax_convgrad.geometry import Axis, ConvGeometry
from jax_convgrad.instruments.layer_text import Layer, parse_layer, sizes

Shape = tuple[int, ...]


def tied_pairs(axis: Axis) -> int:
    """Counts an axis' (tap, output) pairs that meet an input, not padding or a gap between dilated inputs."""
    o, r = np.arange(axis.output)[:, None], np.arange(axis.taps)
    at = o * axis.stride + r * axis.filter_dilation - axis.pad_lo
    return int(np.sum((at >= 0) & (at % axis.input_dilation == 0) & (at // axis.input_dilation < axis.input)))


@dataclass(frozen=True)
class _Windowed:
    """A layer with a window that moves over its input."""

    name: str
    layer: Layer
    source: str = ""

    @property
    def geometry(self) -> ConvGeometry:
        return self.layer.geometry

    @property
    def pairs(self) -> int:
        """The number of an image's (tap, output) pairs that meet an input."""
        return math.prod(tied_pairs(axis) for axis in self.geometry.axes)

    def with_batch_at_most(self, limit: int) -> Self:
        return replace(self, layer=replace(self.layer, batch=min(self.layer.batch, limit)))


@dataclass(frozen=True)
class Conv(_Windowed):
    """A convolution: fprop, dgrad, wgrad."""

    kind: ClassVar[str] = "conv"
    ops: ClassVar[tuple[str, ...]] = ("fprop", "dgrad", "wgrad")

    @classmethod
    def parse(cls, name: str, text: str, source: str = "") -> Conv:
        """Reads a layer's line of text."""
        return cls(name, parse_layer(text), source)

    @property
    def text(self) -> str:
        return str(self.layer)

    def shapes(self) -> dict[str, Shape]:
        """The operands' shapes; an op reads two of them, and its result has the third."""
        return {"x": self.layer.x_shape, "w": self.layer.w_shape, "dy": self.layer.y_shape}

    def flops(self, op: str) -> int:
        """Counts two operations for each product in the formula."""
        layer = self.layer
        return 2 * layer.batch * self.pairs * (layer.in_channels // layer.groups) * layer.out_channels

    def elements(self, op: str) -> int:
        """The number of elements of both operands and the result."""
        return sum(math.prod(shape) for shape in self.shapes().values())


@dataclass(frozen=True)
class Pool(_Windowed):
    """Max or average pooling; it uses only the geometry of its layer, a depthwise one.

    Max pooling's backward pass needs the positions of the maxima, so the two passes are measured together:
    then a library that keeps the positions and one that recomputes them do the same work.
    """

    reduction: str = "max"
    kind: ClassVar[str] = "pool"

    @classmethod
    def parse(cls, name: str, text: str, source: str = "") -> Pool:
        """Reads "max 8x112x112x64, 3x3, stride 2, pad 1".

        Raises:
          ValueError: the text has another form; the message names the part.
        """
        reduction, _, rest = text.strip().partition(" ")
        if reduction not in ("max", "avg"):
            raise ValueError(f"pooling {text!r} should begin with max or avg")
        parts = [part.strip() for part in rest.split(",")]
        channels = sizes(parts[0], "the input", at_least=3)[-1]
        if any(part.startswith(("groups", "transposed", "dilation")) for part in parts):
            raise ValueError(f"pooling {text!r} has only stride and pad")
        line = ", ".join([*parts[:2], str(channels), *parts[2:], f"groups {channels}"])
        return cls(name, parse_layer(line), source, reduction)

    @property
    def ops(self) -> tuple[str, ...]:
        return ("fprop", "fprop+dgrad") if self.reduction == "max" else ("fprop", "dgrad")

    @property
    def text(self) -> str:
        input_text, window, _, *options = str(self.layer).split(", ")
        options = [option for option in options if not option.startswith("groups")]
        return ", ".join([f"{self.reduction} {input_text}", window, *options])

    def shapes(self) -> dict[str, Shape]:
        return {"x": self.layer.x_shape, "dy": self.layer.y_shape}

    def flops(self, op: str) -> int:
        """Counts one comparison or addition per tap, in each pass."""
        return len(op.split("+")) * self.layer.batch * self.pairs * self.layer.in_channels

    def elements(self, op: str) -> int:
        """The number of elements of x and y, of dy and dx, or of all four."""
        return len(op.split("+")) * sum(math.prod(shape) for shape in self.shapes().values())


@dataclass(frozen=True)
class Bias:
    """A bias's gradient: dy summed over all but its channels."""

    name: str
    dy_shape: Shape
    source: str = ""
    kind: ClassVar[str] = "bias"
    ops: ClassVar[tuple[str, ...]] = ("bgrad",)

    @classmethod
    def parse(cls, name: str, text: str, source: str = "") -> Bias:
        """Reads dy's shape, "8x56x56x64"."""
        return cls(name, sizes(text, "dy", at_least=3), source)

    @property
    def text(self) -> str:
        return "x".join(map(str, self.dy_shape))

    def with_batch_at_most(self, limit: int) -> Bias:
        return replace(self, dy_shape=(min(self.dy_shape[0], limit), *self.dy_shape[1:]))

    def shapes(self) -> dict[str, Shape]:
        return {"dy": self.dy_shape}

    def flops(self, op: str) -> int:
        return math.prod(self.dy_shape)

    def elements(self, op: str) -> int:
        return math.prod(self.dy_shape) + self.dy_shape[-1]


Problem = Conv | Pool | Bias
KINDS: dict[str, type[Conv] | type[Pool] | type[Bias]] = {kind.kind: kind for kind in (Conv, Pool, Bias)}
