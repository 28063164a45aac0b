"""Arrays of a layer and their elements: shapes, the letters of the indices, and the check of an index."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass

from jax_convgrad.geometry import Axis, ConvGeometry
from jax_convgrad.instruments.layer_text import Layer, Pool

Index = tuple[int, ...]


@dataclass(frozen=True)
class Convolution:
    """A convolution of any geometry, for what ``Layer`` has no words: stride and input dilation at once."""

    geometry: ConvGeometry
    batch: int
    in_channels: int
    out_channels: int


AnyLayer = Layer | Pool | Convolution


def axes_of(layer: AnyLayer) -> tuple[Axis, ...]:
    """The relation along each axis of a layer."""
    return layer.axes if isinstance(layer, Pool) else layer.geometry.axes


def shapes_of(layer: AnyLayer) -> dict[str, Index]:
    """The shapes of x, w, y and their gradients by name, channels last; pooling has no w and no b."""
    axes = axes_of(layer)
    inputs, outputs = (tuple(getattr(a, side) for a in axes) for side in ("input", "output"))
    if isinstance(layer, Pool):
        channels = out_channels = layer.channels
    else:
        channels, out_channels = layer.in_channels, layer.out_channels
    shapes = {"x": (layer.batch, *inputs, channels), "y": (layer.batch, *outputs, out_channels)}
    if not isinstance(layer, Pool):
        group_in = channels // layer.geometry.groups
        shapes |= {"w": (*(a.taps for a in axes), group_in, out_channels), "b": (out_channels,)}
    return shapes | {f"d{name}": shape for name, shape in shapes.items()}


def checked_index(layer: AnyLayer, array: str, index: Sequence[int]) -> Index:
    """The index of an element as a tuple.

    Raises:
      TypeError: it is not a sequence of integers.
      ValueError: the array has no such element.
    """
    shape = shapes_of(layer)[array]
    axes = len(axes_of(layer))
    names = letters(array, axes)
    try:
        result = tuple(operator.index(entry) for entry in index)
    except TypeError:
        raise TypeError(f"index must be a sequence of integers, not {index!r}") from None
    if len(result) != len(shape):
        raise ValueError(
            f"an element of {array} has {len(shape)} indices, {array}[{','.join(names)}], "
            f"not the {len(result)} of {bracketed(result)}"
        )
    for name, entry, size in zip(names, result, shape, strict=True):
        if not 0 <= entry < size:
            raise ValueError(
                f"{array}{bracketed(result)} does not exist: {name} is {entry}, and {array} is of shape "
                f"{bracketed(shape)}"
            )
    return result


def letters(array: str, axes: int) -> tuple[str, ...]:
    """The letter of each of an array's dimensions: n, i0, i1, c; with a single axis n, i, c."""
    own = {"x": "i", "w": "r", "y": "o"}.get(array[-1], "")
    spatial = (own,) if axes == 1 else tuple(f"{own}{axis}" for axis in range(axes))
    return {"x": ("n", *spatial, "c"), "w": (*spatial, "c", "k"), "y": ("n", *spatial, "k"), "b": ("k",)}[
        array[-1]
    ]


def bracketed(index: Sequence[int]) -> str:
    """``[0,2,2,0]``."""
    return f"[{','.join(map(str, index))}]"
