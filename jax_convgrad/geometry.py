"""The geometry of a convolution: where inputs, taps and outputs meet, in plain integers.

Along each spatial axis an input position ``i``, a filter tap ``r`` and an output position ``o`` are tied if

    o * stride + r * filter_dilation - pad_lo  =  i * input_dilation          (the relation)

Every op of this package sums products over all tied triples (docs/derivation.md).
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

from jax.core import max_dim
from jax.export import is_symbolic_dim

MAX_AXES = 3
"""The most spatial axes that the kernels handle; with more, ``jax.lax`` computes."""

MAX_STEP = 2**30 - 1
"""The largest stride or dilation, which keeps every position of the relation inside 64 bits."""


@dataclass(frozen=True)
class Axis:
    """The relation along one spatial axis: three sizes and four steps, all in positions.

    In a program that is exported for any size, sizes and ``pad_lo`` may be expressions of symbols. Then
    ``pad_hi`` is the high pad, which ``jax.lax`` needs. If all are numbers it is None.
    """

    input: int
    taps: int
    output: int
    stride: int = 1
    pad_lo: int = 0
    input_dilation: int = 1
    filter_dilation: int = 1
    pad_hi: int | None = None

    def __repr__(self) -> str:
        """Leaves out the fields that have their default, because a jaxpr prints the axes of each equation."""
        values = [(field, getattr(self, field.name)) for field in fields(self)]
        shown = [f"{field.name}={value!r}" for field, value in values if value != field.default]
        return f"Axis({', '.join(shown)})"

    @property
    def is_known(self) -> bool:
        """Reports whether all sizes and pads are numbers, as kernels need them."""
        return are_known((self.input, self.taps, self.output, self.pad_lo))

    def transpose(self) -> Axis:
        """The relation with ``i`` and ``o`` swapped, and tap ``r`` counted from the end: ``taps - 1 - r``.

        From o·s + r·f − p = i·d follows i·d + (R−1−r)·f − ((R−1)·f − p) = o·s.
        """
        return Axis(
            input=self.output,
            taps=self.taps,
            output=self.input,
            stride=self.input_dilation,
            pad_lo=(self.taps - 1) * self.filter_dilation - self.pad_lo,
            input_dilation=self.stride,
            filter_dilation=self.filter_dilation,
        )


@dataclass(frozen=True)
class ConvGeometry:
    """The spatial axes of a convolution and its feature groups. Hashable, so it can be a static argument."""

    axes: tuple[Axis, ...]
    groups: int = 1

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Spatial sizes of x."""
        return tuple(axis.input for axis in self.axes)

    @property
    def filter_shape(self) -> tuple[int, ...]:
        """Spatial sizes of w."""
        return tuple(axis.taps for axis in self.axes)

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Spatial sizes of y."""
        return tuple(axis.output for axis in self.axes)

    def transpose(self) -> ConvGeometry:
        """The geometry whose ``dgrad`` is this one's ``fprop`` with flipped taps, and the other way round."""
        return ConvGeometry(tuple(axis.transpose() for axis in self.axes), self.groups)


def tied(axis: Axis) -> int:
    """The number of pairs of a tap and an output that are tied to an input: the products along this axis.

    The outputs that belong to a tap are the o with o·s ≡ p − r·f (mod d) between two bounds: a class modulo
    d/gcd(s, d).
    """
    common = math.gcd(axis.stride, axis.input_dilation)
    modulus = axis.input_dilation // common
    inverse = pow(axis.stride // common, -1, modulus)
    count = 0
    for tap in range(axis.taps):
        offset = axis.pad_lo - tap * axis.filter_dilation  # o·s = i·d + offset
        if offset % common:
            continue
        first = max(0, -(-offset // axis.stride))
        last = min(axis.output - 1, ((axis.input - 1) * axis.input_dilation + offset) // axis.stride)
        first += (offset // common * inverse - first) % modulus
        count += max(0, (last - first) // modulus + 1)
    return count


def are_known(sizes: Iterable[Any]) -> bool:
    """Says whether all sizes are numbers, and not expressions of symbols (``jax.export.symbolic_shape``)."""
    return all(isinstance(size, int) for size in sizes)


def is_negative(size: int) -> bool:
    """Reports whether the size is below 0; False if that depends on symbols, whose comparison would raise."""
    return max_dim(size, 0) == 0 and size != 0


def is_positive(size: int) -> bool:
    """Reports whether the size is above 0; False if that depends on symbols."""
    return max_dim(size, 1) == size


def size_of(value: Any) -> Any:
    """A size or pad: an integer, or an expression of symbols.

    Raises:
      TypeError: the value is neither.
    """
    return value if is_symbolic_dim(value) else operator.index(value)


def dilated(size: int, dilation: int) -> int:
    """The span of ``size`` positions that are ``dilation`` steps apart."""
    return size if dilation == 1 else max_dim((size - 1) * dilation + 1, 0)


def padded(span: int, lo: int, hi: int) -> int:
    """The span of an input with its pads.

    Raises:
      ValueError: negative pads crop more than there is, or may do so if sizes are symbols.
    """
    total = span + lo + hi
    if is_negative(total):
        raise ValueError(f"padding must not crop more than the input's {span} positions, but is {(lo, hi)}")
    if max_dim(total, 0) != total:
        raise ValueError(
            f"padding must not crop more than the input's {span} positions, which {(lo, hi)} may do: give "
            f'jax.export.symbolic_shape the constraint "{span} >= {-lo - hi}"'
        )
    return total


def output_size(input_span: int, window_span: int, stride: int) -> int:
    """The number of places of a window in the padded input; 0 if the window is larger, as in ``jax.lax``."""
    return max_dim((input_span - window_span) // stride + 1, 0)


def conv_geometry(
    input_shape: Sequence[int],
    filter_shape: Sequence[int],
    *,
    stride: Sequence[int],
    padding: Sequence[tuple[int, int]],
    input_dilation: Sequence[int],
    filter_dilation: Sequence[int],
    groups: int,
) -> ConvGeometry:
    """The geometry of a convolution from its spatial sizes and checked steps, one of each for every axis.

    Raises:
      ValueError: negative padding crops more than there is.
    """
    axes = []
    for i, r, s, pair, d, f in zip(
        input_shape, filter_shape, stride, padding, input_dilation, filter_dilation, strict=True
    ):
        axes.append(axis_of(i, r, stride=s, pads=pair, input_dilation=d, filter_dilation=f))
    return ConvGeometry(tuple(axes), groups)


def axis_of(
    size: int, taps: int, *, stride: int, pads: tuple[int, int], input_dilation: int, filter_dilation: int
) -> Axis:
    """The relation along one axis of a convolution or a pooling.

    Raises:
      ValueError: negative padding crops more than there is.
    """
    lo, hi = pads
    span = padded(dilated(size, input_dilation), lo, hi)
    output = output_size(span, dilated(taps, filter_dilation), stride)
    known = are_known((size, taps, lo, hi))
    return Axis(size, taps, output, stride, lo, input_dilation, filter_dilation, pad_hi=None if known else hi)


def steps(value: Any, axes: int, name: str, least: int = 1) -> tuple[int, ...]:
    """Checks a stride, dilation or window: one positive integer for each axis. ``least`` is 0 for sizes.

    Raises:
      TypeError: ``value`` is not a sequence of integers.
      ValueError: it does not have ``axes`` entries, or one is below ``least`` (or is 2**30 or more).
    """
    try:
        result = tuple(operator.index(entry) for entry in value)
    except TypeError:
        raise TypeError(f"{name} must be a sequence of {axes} integers, not {value!r}") from None
    if len(result) != axes:
        raise ValueError(
            f"{name} must have one entry for each of the {axes} spatial dimensions, but is {result}"
        )
    if not all(least <= entry <= MAX_STEP for entry in result):
        kind = "positive" if least else "0 or more"
        raise ValueError(f"{name} must be {kind} (and below 2**30), but is {result}")
    return result


def pads(
    padding: Any,
    input_shape: Sequence[int],
    window_spans: Sequence[int],
    stride: Sequence[int],
    name: str = "padding",
) -> tuple[tuple[int, int], ...]:
    """Resolves a padding to one ``(low, high)`` pair for each axis; negative pads crop.

    ``"SAME"`` pads so that there are ceil(input / stride) outputs, with an odd pad high (``"SAME_LOWER"``:
    low); ``"VALID"`` does not pad. ``window_spans`` are the filter's sizes after dilation.

    Raises:
      TypeError: ``padding`` is neither a string nor a sequence of pairs of integers.
      ValueError: the string is unknown, or the number of pairs is not that of the axes.
    """
    axes = len(input_shape)
    if isinstance(padding, str):
        kind = padding.upper()
        if kind not in ("SAME", "SAME_LOWER", "VALID"):
            raise ValueError(
                f'{name} must be "SAME", "SAME_LOWER", "VALID" or a sequence of pairs, but is {padding!r}'
            )
        if kind == "VALID":
            return ((0, 0),) * axes
        result = []
        for size, span, step in zip(input_shape, window_spans, stride, strict=True):
            total = max_dim((-(-size // step) - 1) * step + span - size, 0)
            low = total // 2 if kind == "SAME" else total - total // 2
            result.append((low, total - low))
        return tuple(result)
    message = (
        f"{name} must be a string or a sequence of {axes} (low, high) pairs of integers, not {padding!r}"
    )
    try:
        entries = tuple(tuple(size_of(end) for end in pair) for pair in padding)
    except TypeError:
        raise TypeError(message) from None
    if len(entries) != axes or any(len(pair) != 2 for pair in entries):
        raise ValueError(message)
    if any(isinstance(end, int) and abs(end) > MAX_STEP for pair in entries for end in pair):
        raise ValueError(f"{name} must be below 2**30, but is {padding!r}")
    return tuple((low, high) for low, high in entries)
