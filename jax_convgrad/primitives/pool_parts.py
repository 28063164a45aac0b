"""Pooling whose rows are split over devices: what one device's kernel call is made of.

Rows come from neighbours as for a convolution (spatial_parts.py). Two things depend on the whole array and
are handled here: the positions of maxima, and how many inputs of a window are not padding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jax_convgrad.geometry import Axis
from jax_convgrad.primitives.halo import Split, split
from jax_convgrad.primitives.pool_spec import PoolSpec
from jax_convgrad.primitives.spatial_parts import (
    Local,
    Place,
    exchanged,
    letter,
    own_results,
    without_filling,
)

_Split = Mapping[int, tuple[Split, Place, int]]
"""The axes that are split; the last number is the dimension of each."""


def _splits(params: dict[str, Any], places: Mapping[str, Place], traded: bool) -> _Split:
    splits = {}
    spec: PoolSpec = params["spec"]
    for a, (axis, dim) in enumerate(zip(spec.axes, spec.spatial, strict=True)):
        place = places.get(letter(a))
        if place is not None:
            splits[a] = split(axis.transpose() if traded else axis, place.parts), place, dim
    return splits


def _with_axes(params: dict[str, Any], splits: _Split, traded: bool) -> dict[str, Any]:
    spec: PoolSpec = params["spec"]
    axes = list(spec.axes)
    for a, (parts, _, _) in splits.items():
        axes[a] = parts.local.transpose() if traded else parts.local
    return {**params, "spec": spec.with_axes(axes)}


def _fetched(array: jax.Array, splits: _Split, fill: Any = 0) -> jax.Array:
    for parts, place, dim in splits.values():
        array = exchanged(array, dim, parts.window, place, fill)
    return array


def _own(array: jax.Array, splits: _Split) -> jax.Array:
    for parts, place, dim in splits.values():
        array = own_results(array, dim, parts, place)
    return array


# ------------------------------------------------------------------------------------------------- positions


def _coordinates(position: jax.Array, sizes: Sequence[int]) -> list[jax.Array]:
    """The coordinates of flat positions, one for each axis."""
    result = []
    for size in reversed(sizes):
        result.append(lax.rem(position, jnp.int32(size)))
        position = lax.div(position, jnp.int32(size))
    return result[::-1]


def _flat(coordinates: Sequence[jax.Array], sizes: Sequence[int]) -> jax.Array:
    result = coordinates[0]
    for coordinate, size in zip(coordinates[1:], sizes[1:], strict=True):
        result = result * jnp.int32(size) + coordinate
    return result


def _translated(
    position: jax.Array, begins: Mapping[int, Any], sizes: Sequence[int], into: Sequence[int]
) -> jax.Array:
    """Flat positions in an array of the spatial ``sizes`` as those in a part of it, of the sizes ``into``.

    ``begins`` are the rows at which the part begins. A position outside of it becomes -1.
    """
    coordinates = _coordinates(position, sizes)
    inside = position >= 0
    for a, begin in begins.items():
        coordinates[a] = coordinates[a] - jnp.asarray(begin, jnp.int32)
        inside &= (coordinates[a] >= 0) & (coordinates[a] < into[a])
    return jnp.where(inside, _flat(coordinates, into), -1)


def _in_whole(
    position: jax.Array, splits: _Split, fetched: Sequence[int], sizes: Sequence[int]
) -> tuple[jax.Array, jax.Array]:
    """Flat positions in the ``fetched`` rows as those in the whole array, and whether each is outside."""
    coordinates = _coordinates(position, fetched)
    outside = jnp.zeros_like(position, bool)
    for a, (parts, place, _) in splits.items():
        coordinates[a] = coordinates[a] + jnp.int32(place.of(parts.window.starts))
        outside |= (coordinates[a] < 0) | (coordinates[a] >= sizes[a])
    inside = position >= 0
    return jnp.where(inside, _flat(coordinates, sizes), -1), inside & outside


def _outputs(array: jax.Array, dim: int, begin: Any) -> jax.Array:
    """The indices of the outputs along a dimension, from ``begin`` on, to be broadcast over the array."""
    shape = [1] * array.ndim
    shape[dim] = array.shape[dim]
    return lax.broadcasted_iota(jnp.int32, shape, dim) + jnp.asarray(begin, jnp.int32)


def _taps_inside(axis: Axis, output: Any) -> tuple[Any, Any]:
    """The first tap of a window that is not on padding, and the one after the last such tap."""
    before = axis.pad_lo - output * axis.stride
    first = jnp.clip(-(-before // axis.filter_dilation), 0, axis.taps)
    last = jnp.clip((axis.input - 1 + before) // axis.filter_dilation + 1, first, axis.taps)
    return first, last


def lowest(dtype: Any) -> Any:
    """The least value of the dtype."""
    if jnp.issubdtype(dtype, jnp.floating):
        return -np.inf
    return False if jnp.issubdtype(dtype, jnp.bool_) else int(jnp.iinfo(dtype).min)


def max_pool(params: dict[str, Any], places: Mapping[str, Place]) -> Local:
    """One device's call of ``max_pool``."""
    splits = _splits(params, places, traded=False)
    return Local(_with_axes(params, splits, traded=False), lambda x: (_fetched(x, splits, lowest(x.dtype)),))


def max_pool_argmax(params: dict[str, Any], places: Mapping[str, Place]) -> Local:
    """One device's call of ``max_pool_argmax``."""
    axes: tuple[Axis, ...] = params["spec"].axes
    splits = _splits(params, places, traded=False)
    call = max_pool(params, places)
    sizes = [axis.input for axis in axes]
    fetched = [axis.input for axis in call.params["spec"].axes]

    def after(y: jax.Array, position: jax.Array) -> Sequence[jax.Array]:
        result, outside = _in_whole(position, splits, fetched, sizes)
        if not any(_reaches_out(axes[a]) for a in splits):
            return y, result
        # If the window's first maximum lies on padding, everything in the window is as low as that. So the
        # first maximum is the window's first number that is not padding.
        first, _ = _ends_inside(params, splits, position)
        return y, jnp.where(outside, first, result).astype(jnp.int32)

    return Local(call.params, call.before, after)


def ruled_position(params: dict[str, Any], places: Mapping[str, Place]) -> Local:
    """One device's call of ``ruled_position``, with -inf for rows that do not exist.

    The rule "select_and_scatter" reads padding as -inf too. The rule "select_and_gather" leaves padding out,
    and goes on to -inf from a NaN alone. So if this call ends on padding, all numbers behind the last NaN are
    -inf, and the rule's position is the first of them, or that NaN if nothing comes behind it. A second call,
    with zeros for all numbers that are not NaN, finds the first number behind the last NaN.
    """
    axes: tuple[Axis, ...] = params["spec"].axes
    splits = _splits(params, places, traded=False)
    local = _with_axes(params, splits, traded=False)
    sizes = [axis.input for axis in axes]
    fetched = [axis.input for axis in local["spec"].axes]
    batch = params["spec"].batch
    twice = params["rule"] == "select_and_gather" and any(_reaches_out(axes[a]) for a in splits)

    def before(x: jax.Array) -> Sequence[jax.Array]:
        if twice:
            x = lax.concatenate([x, jnp.where(jnp.isnan(x), x, jnp.zeros_like(x))], batch)
        return (_fetched(x, splits, lowest(x.dtype)),)

    def after(position: jax.Array) -> Sequence[jax.Array]:
        result, outside = _in_whole(position, splits, fetched, sizes)
        if not twice:
            return (jnp.where(outside, -1, result),)
        (result, behind), (outside, is_none) = jnp.split(result, 2, batch), jnp.split(outside, 2, batch)
        _, last = _ends_inside(params, splits, result)
        return (jnp.where(outside, jnp.where(is_none, last, behind), result).astype(jnp.int32),)

    return Local(local, before, after)


def _ends_inside(params: dict[str, Any], splits: _Split, like: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The flat positions of the first and the last number of each window, -1 if all of it is padding.

    ``like`` has the shape of a device's part of the results.
    """
    axes: tuple[Axis, ...] = params["spec"].axes
    first: list[Any] = []
    last: list[Any] = []
    empty: Any = False
    for a, axis in enumerate(axes):
        begin = splits[a][1].of(_begins(splits[a][0])) if a in splits else 0
        output = _outputs(like, params["spec"].spatial[a], begin)
        tap, end = _taps_inside(axis, output)
        for ends, at in ((first, tap), (last, end - 1)):
            ends.append(output * axis.stride + at * axis.filter_dilation - axis.pad_lo)
        empty |= tap >= end
    sizes = [axis.input for axis in axes]
    return jnp.where(empty, -1, _flat(first, sizes)), jnp.where(empty, -1, _flat(last, sizes))


def _begins(parts: Split) -> tuple[int, ...]:
    """The first output of each device's part."""
    return tuple(j * parts.part for j in range(len(parts.shifts)))


def _reaches_out(axis: Axis) -> bool:
    """Reports whether a window along the axis has taps on padding."""
    last = (axis.output - 1) * axis.stride + (axis.taps - 1) * axis.filter_dilation - axis.pad_lo
    return axis.pad_lo > 0 or last >= axis.input


def max_pool_grad(params: dict[str, Any], places: Mapping[str, Place]) -> Local:
    """One device's call of ``max_pool_grad``."""
    splits = _splits(params, places, traded=True)
    local = _with_axes(params, splits, traded=True)
    sizes = [axis.input for axis in params["spec"].axes]
    computed = [axis.input for axis in local["spec"].axes]

    def before(dy: jax.Array, position: jax.Array) -> Sequence[jax.Array]:
        begins = {
            a: place.of([j * parts.part - shift for j, shift in enumerate(parts.shifts)])
            for a, (parts, place, _) in splits.items()
        }
        position = _fetched(position, splits, -1)
        return _fetched(dy, splits), _translated(position, begins, sizes, computed)

    return Local(local, before, lambda dx: (_own(dx, splits),))


def max_pool_select(params: dict[str, Any], places: Mapping[str, Place]) -> Local:
    """One device's call of ``max_pool_select``."""
    splits = _splits(params, places, traded=False)
    local = _with_axes(params, splits, traded=False)
    sizes = [axis.input for axis in params["spec"].axes]
    fetched = [axis.input for axis in local["spec"].axes]

    def before(t: jax.Array, position: jax.Array) -> Sequence[jax.Array]:
        for parts, place, dim in splits.values():
            position = without_filling(position, dim, parts.axis.output, place, -1)
        begins = {a: place.of(parts.window.starts) for a, (parts, place, _) in splits.items()}
        return _fetched(t, splits), _translated(position, begins, sizes, fetched)

    return Local(local, before)


# -------------------------------------------------------------------------------------------------- averages


def _scaled(array: jax.Array, params: dict[str, Any], begins: Mapping[int, Any], least: int) -> jax.Array:
    """Averages over taps on numbers from those over all taps, along the axes of ``begins``.

    The array holds outputs, from ``begins`` on; a window without numbers counts as one of ``least``.
    """
    real = jnp.finfo(array.dtype).dtype
    for a, begin in begins.items():
        axis, dim = params["spec"].axes[a], params["spec"].spatial[a]
        first, last = _taps_inside(axis, _outputs(array, dim, begin))
        count = jnp.maximum(last - first, least)
        array = array * (axis.taps / count.astype(real))
    return array


def _is_narrow(dtype: Any) -> bool:
    return jnp.issubdtype(dtype, jnp.floating) and dtype.itemsize < 4


def avg_pool(params: dict[str, Any], places: Mapping[str, Place]) -> Local:
    """One device's call of ``avg_pool``; it has all rows of its windows."""
    axes: tuple[Axis, ...] = params["spec"].axes
    splits = _splits(params, places, traded=False)
    local = _with_axes(params, splits, traded=False)
    cut = [a for a in splits if not params["count_include_pad"] and _reaches_out(axes[a])]
    if not cut:
        return Local(local, lambda x: (_fetched(x, splits),))
    dtype = None

    def before(x: jax.Array) -> Sequence[jax.Array]:
        nonlocal dtype
        dtype = x.dtype
        x = _fetched(x, splits)
        return (x.astype(jnp.float32) if _is_narrow(dtype) else x,)

    def after(y: jax.Array) -> Sequence[jax.Array]:
        begins = {a: splits[a][1].of(_begins(splits[a][0])) for a in cut}
        return (_scaled(y, params, begins, 0).astype(dtype),)

    return Local(local, before, after)


def avg_pool_grad(params: dict[str, Any], places: Mapping[str, Place]) -> Local:
    """One device's call of ``avg_pool_grad``, which sees windows whose inputs it has in part."""
    axes: tuple[Axis, ...] = params["spec"].axes
    splits = _splits(params, places, traded=True)
    local = {**_with_axes(params, splits, traded=True), "count_include_pad": True}
    cut = [a for a, axis in enumerate(axes) if not params["count_include_pad"] and _reaches_out(axis)]
    dtype = None

    def before(dy: jax.Array) -> Sequence[jax.Array]:
        nonlocal dtype
        dtype = dy.dtype
        dy = _fetched(dy, splits)
        if cut and _is_narrow(dtype):
            dy = dy.astype(jnp.float32)
        begins = {a: splits[a][1].of(splits[a][0].window.starts) if a in splits else 0 for a in cut}
        return (_scaled(dy, params, begins, 1),)

    return Local(local, before, lambda dx: (_own(dx, splits).astype(dtype),))


def sum_pool(params: dict[str, Any], places: Mapping[str, Place]) -> Local:
    """One device's call of ``sum_pool``."""
    splits = _splits(params, places, traded=False)
    return Local(_with_axes(params, splits, traded=False), lambda x: (_fetched(x, splits),))


def sum_pool_grad(params: dict[str, Any], places: Mapping[str, Place]) -> Local:
    """One device's call of ``sum_pool_grad``."""
    splits = _splits(params, places, traded=True)
    return Local(
        _with_axes(params, splits, traded=True),
        lambda dy: (_fetched(dy, splits),),
        lambda dx: (_own(dx, splits),),
    )
