"""A convolution whose rows are split over devices: what is exchanged before one device's kernel call.

Along every axis that is split, each device gets the window of rows that its results are tied to
(halo.py), from as many neighbours as necessary, by collective permutes. Rows outside the array are zero, or
another number that the caller names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jax_convgrad.primitives.conv_spec import ConvSpec
from jax_convgrad.primitives.halo import Split, Window, part_size, split


@dataclass(frozen=True)
class Place:
    """The mesh axes that a dimension is split over, the outermost first, and the number of its parts."""

    names: tuple[str, ...]
    parts: int

    def of(self, table: Sequence[int]) -> Any:
        """This device's entry of a table with one for each part."""
        if len(set(table)) == 1:
            return table[0]
        limits = np.iinfo(np.int32)
        entries = np.clip(table, limits.min, limits.max).astype(np.int32)
        return lax.dynamic_index_in_dim(jnp.asarray(entries), lax.axis_index(self.names), keepdims=False)


@dataclass(frozen=True)
class Local:
    """One device's call: its parameters, and what is done to operands before it and to results after it."""

    params: dict[str, Any]
    before: Callable[..., Sequence[jax.Array]] = lambda *operands: operands
    after: Callable[..., Sequence[jax.Array]] = lambda *results: results


Rows = Callable[[dict[str, Any], Mapping[str, Place]], Local]
"""One device's call, made from a primitive's parameters and the places of the letters that are split."""


def letter(axis: int) -> str:
    """The letter of a spatial axis, which input and output positions share although their numbers differ."""
    return f"r{axis}"


# ------------------------------------------------------------------------------------------------- one axis


def rows_between(array: jax.Array, dim: int, begin: Any, end: Any, fill: Any = 0) -> jax.Array:
    """The array with ``fill`` instead of the rows before ``begin`` and from ``end`` on."""
    size = array.shape[dim]
    if isinstance(begin, int) and isinstance(end, int) and begin <= 0 and end >= size:
        return array
    row = lax.broadcasted_iota(jnp.int32, (*(1,) * dim, size, *(1,) * (array.ndim - dim - 1)), dim)
    return jnp.where((row >= begin) & (row < end), array, jnp.asarray(fill, array.dtype))


def without_filling(array: jax.Array, dim: int, size: int, place: Place, fill: Any = 0) -> jax.Array:
    """A part of an axis of ``size`` rows, with ``fill`` where a smaller part was filled up to the others."""
    part = part_size(size, place.parts)
    return rows_between(
        array, dim, 0, place.of([min(max(size - j * part, 0), part) for j in range(place.parts)]), fill
    )


def exchanged(array: jax.Array, dim: int, window: Window, place: Place, fill: Any = 0) -> jax.Array:
    """This device's window of an axis of which it has a part, with ``fill`` for rows that do not exist."""
    array = without_filling(array, dim, window.size, place)
    pieces = []
    for piece in window.pieces():
        rows = lax.slice_in_dim(array, piece.begin, piece.end, axis=dim)
        if piece.distance and piece.pairs:
            # Devices that are not a target get zeros.
            rows = lax.ppermute(rows, place.names, piece.pairs)
        elif piece.distance:
            rows = jnp.zeros_like(rows)
        pieces.append(rows)
    result = pieces[0] if len(pieces) == 1 else lax.concatenate(pieces, dim)
    if result.shape[dim] != window.length:
        result = lax.dynamic_slice_in_dim(result, place.of(window.offsets), window.length, axis=dim)
    if fill == 0 and not window.has_idle:
        return result
    # A device without results may have any rows.
    valid = [
        ends if used else (0, window.length) for ends, used in zip(window.valid, window.used, strict=True)
    ]
    begins, ends = zip(*valid, strict=True)
    return rows_between(result, dim, place.of(begins), place.of(ends), fill)


def own_results(array: jax.Array, dim: int, parts: Split, place: Place) -> jax.Array:
    """A device's own outputs, out of those that its kernel computed."""
    if array.shape[dim] == parts.part:
        return array
    return lax.dynamic_slice_in_dim(array, place.of(parts.shifts), parts.part, axis=dim)


def as_results(array: jax.Array, dim: int, parts: Split, place: Place) -> jax.Array:
    """The reverse: a device's part of the outputs in its place, and zeros elsewhere."""
    array = without_filling(array, dim, parts.axis.output, place)
    more = parts.local.output - parts.part
    if not more:
        return array
    pads = [(0, 0, 0)] * array.ndim
    pads[dim] = (more, more, 0)
    array = lax.pad(array, jnp.zeros((), array.dtype), pads)
    return lax.dynamic_slice_in_dim(
        array, place.of([more - shift for shift in parts.shifts]), parts.local.output, axis=dim
    )


# ------------------------------------------------------------------------------------- the three contractions


def contraction(operands: str, result: str) -> Rows:
    """One device's call of the contraction that takes two of x, w and y, as named, and gives the third."""

    def local(params: dict[str, Any], places: Mapping[str, Place]) -> Local:
        spec: ConvSpec = params["spec"]
        at = {"x": spec.dimensions.x, "y": spec.dimensions.y}
        # dgrad is fprop of the relation with its sides traded.
        traded = result == "x"
        axes = list(spec.axes)
        steps = []
        for a, axis in enumerate(spec.axes):
            place = places.get(letter(a))
            if place is not None:
                parts = split(axis.transpose() if traded else axis, place.parts)
                axes[a] = parts.local.transpose() if traded else parts.local
                steps.append((a + 2, parts, place))

        def before(*arrays: jax.Array) -> Sequence[jax.Array]:
            given = list(arrays)
            for d, parts, place in steps:
                for j, name in enumerate(operands):
                    if name == ("y" if traded else "x"):
                        given[j] = exchanged(given[j], at[name][d], parts.window, place)
                    elif name == "y":
                        given[j] = as_results(given[j], at[name][d], parts, place)
            return given

        def after(*results: jax.Array) -> Sequence[jax.Array]:
            if result == "w":
                return results
            (array,) = results
            for d, parts, place in steps:
                array = own_results(array, at[result][d], parts, place)
            return (array,)

        return Local({**params, "spec": spec.with_axes(axes)}, before, after)

    return local


def sum_of_rows(
    labels: Sequence[str], sizes: Mapping[str, int], params: dict[str, Any], places: Mapping[str, Place]
) -> Local:
    """One device's call of a sum over every dimension that has a size, however it is split."""

    def before(array: jax.Array) -> Sequence[jax.Array]:
        for d, label in enumerate(labels):
            if label in places:
                array = without_filling(array, d, sizes[label], places[label])
        return (array,)

    return Local(params, before)
