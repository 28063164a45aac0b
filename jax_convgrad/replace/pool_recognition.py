"""Recognises the pooling in one of ``jax.lax``'s windowed reductions, from shapes and numbers alone.

``lax.reduce_window`` and its relatives have a window over every dimension of an array, and most of the
dimensions have a window of one position. The other dimensions are the spatial ones; along them the relation
ties a position i of the operand, r of the window and o of the result:

    o·stride + r·window_dilation − pad_lo = i·base_dilation

Without base dilation this is pooling. With base dilation and no stride it is pooling's gradient: o is a
position of pooling's operand and i one of its result, as in ``Axis.transpose``. lax writes the gradient of a
sum in this way: it pads dy, with stride − 1 zeros between its numbers, and adds up the window at each
position.

The remaining dimensions are images or channels, which pooling treats alike, so any choice is right. The
kernels need contiguous channels. Dimensions behind the window's become those channels; if there are none, as
in NCHW, the last dimension before the window does. The array is not transposed: a call states its layout,
which is the layout that this package's convolutions use.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Literal

from jax_convgrad.geometry import MAX_AXES, MAX_STEP, Axis
from jax_convgrad.replace.reasons import OnLax

_MAX_SIZE = 2**31 - 1
# For windows of at least about this size, XLA adds up a whole dimension in blocks.
_CUMULATIVE = 32

Kind = Literal["max", "min", "sum", "sum_grad", "scatter_max", "scatter_min", "gather_max", "gather_min"]


@dataclass(frozen=True)
class Order:
    """The dimensions of an array that are images, spatial positions and channels.

    Kernels have one dimension of images and one of channels. The array gets these dimensions when the
    dimensions of each of its ``parts`` are merged; ``dimensions`` says which part is (images, channels,
    spatial...).
    """

    images: tuple[int, ...]
    spatial: tuple[int, ...]
    channels: tuple[int, ...]

    @property
    def parts(self) -> tuple[tuple[int, ...], ...]:
        """The dimensions of the array to merge, in the array's own order."""
        return tuple(part for _, part, _ in self._placed)

    @property
    def dimensions(self) -> tuple[int, ...]:
        """The parts that are the images, the channels, and the spatial dimensions."""
        roles = [role for _, _, role in self._placed]
        return tuple(roles.index(role) for role in range(len(roles)))

    @property
    def _placed(self) -> list[tuple[int, tuple[int, ...], int]]:
        """Each part with its first dimension, which sorts the parts, and its place in ``dimensions``."""
        rank = len(self.images) + len(self.spatial) + len(self.channels)
        return sorted(
            [
                (self.images[0] if self.images else -1, self.images, 0),
                (self.channels[0] if self.channels else rank, self.channels, 1),
                *((d, (d,), role) for role, d in enumerate(self.spatial, 2)),
            ]
        )


@dataclass(frozen=True)
class Pooling:
    """One of ``lax``'s windowed reductions as a pooling of this package."""

    kind: Kind
    axes: tuple[Axis, ...]
    order: Order


def recognise(
    kind: Literal["max", "min", "sum", "scatter_max", "scatter_min", "gather_max", "gather_min"],
    shape: Sequence[int],
    out_shape: Sequence[int],
    *,
    window_dimensions: Sequence[int],
    window_strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    base_dilation: Sequence[int] | None = None,
    window_dilation: Sequence[int] | None = None,
) -> Pooling | OnLax:
    """The pooling that computes this reduction of an array's windows, or the reason why there is none.

    The parameters are those of ``lax.reduce_window_max_p`` and similar primitives; ``out_shape`` has a number
    for each window, even if the windows' results are scattered.
    """
    rank = len(shape)
    base = tuple(base_dilation or (1,) * rank)
    apart = tuple(window_dilation or (1,) * rank)
    numbers = (*shape, *window_dimensions, *window_strides, *base, *apart, *(e for p in padding for e in p))
    if not all(isinstance(number, int) for number in numbers):
        return OnLax("a symbolic size")
    spatial = tuple(
        d
        for d in range(rank)
        if (window_dimensions[d], window_strides[d], base[d], *padding[d]) != (1, 1, 1, 0, 0)
    )
    if not spatial:
        return OnLax("a window of one position")
    if len(spatial) > MAX_AXES:
        return OnLax(f"{len(spatial)} spatial dimensions")
    if any(step > MAX_STEP for d in spatial for step in (window_strides[d], base[d], apart[d])):
        return OnLax(f"a step above {MAX_STEP}")
    if any(abs(end) > MAX_STEP for d in spatial for end in padding[d]):
        return OnLax(f"padding above {MAX_STEP}")
    axes = [
        Axis(
            shape[d], window_dimensions[d], out_shape[d], window_strides[d], padding[d][0], base[d], apart[d]
        )
        for d in spatial
    ]
    if any(_is_cumulative(axis) for axis in axes):
        return OnLax("a cumulative reduction")
    named: Kind = kind
    if any(axis.input_dilation > 1 for axis in axes):
        if kind != "sum":
            return OnLax("base dilation")
        if any(axis.stride > 1 for axis in axes):
            return OnLax("base dilation and strides")
        named, axes = "sum_grad", [axis.transpose() for axis in axes]
    order = _order(rank, spatial)
    images, channels = (prod(shape[d] for d in part) for part in (order.images, order.channels))
    too_large = max(
        images, channels, *(prod(getattr(a, part) for a in axes) for part in ("input", "taps", "output"))
    )
    return Pooling(named, tuple(axes), order) if too_large <= _MAX_SIZE else OnLax("2**31 positions or more")


def _is_cumulative(axis: Axis) -> bool:
    """Reports whether each result is a reduction of all positions before it, or of all positions after it."""
    return (
        axis.taps == axis.input == axis.output
        and axis.taps >= _CUMULATIVE
        and (axis.stride, axis.input_dilation, axis.filter_dilation) == (1, 1, 1)
        and axis.pad_lo in (0, axis.taps - 1)
    )


def _order(rank: int, spatial: tuple[int, ...]) -> Order:
    others = tuple(d for d in range(rank) if d not in spatial)
    behind = tuple(d for d in others if d > spatial[-1])
    if not behind:
        behind = others[-1:] if len(others) > 1 else ()
    return Order(tuple(d for d in others if d not in behind), spatial, behind)
