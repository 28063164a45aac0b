"""Pooling's ops with ``jax.lax``, over arrays [N, spatial..., C], for where there are no kernels."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jax_convgrad.geometry import Axis, are_known
from jax_convgrad.primitives.fallback import high_pad


def _pads(axes: Sequence[Axis]) -> tuple[tuple[int, int], ...]:
    """The pads of [N, spatial..., C]."""
    return ((0, 0), *((axis.pad_lo, high_pad(axis, axis.input)) for axis in axes), (0, 0))


def _window(axes: Sequence[Axis]) -> dict[str, Sequence]:
    """The arguments of ``lax.reduce_window`` over [N, spatial..., C]."""
    pads = _pads(axes)
    return {
        "window_dimensions": (1, *(axis.taps for axis in axes), 1),
        "window_strides": (1, *(axis.stride for axis in axes), 1),
        "padding": pads if _in_window(pads) else ((0, 0),) * len(pads),
        "base_dilation": (1,) * len(pads),
        "window_dilation": (1, *(axis.filter_dilation for axis in axes), 1),
    }


def _in_window(pads: Sequence[tuple[int, int]]) -> bool:
    """Reports whether ``lax.reduce_window`` takes the pads, which must not be symbols."""
    return all(map(are_known, pads))


def _padded(x: jax.Array, value: Any, axes: Sequence[Axis]) -> jax.Array:
    """x with the pads that ``_window`` leaves out."""
    pads = _pads(axes)
    if _in_window(pads):
        return x
    return lax.pad(x, jnp.array(value, x.dtype), [(lo, hi, 0) for lo, hi in pads])


def max_pool(x: jax.Array, *, axes: Sequence[Axis]) -> jax.Array:
    """y by ``lax.reduce_window``."""
    x = _padded(x, _least(x.dtype), axes)
    return lax.reduce_window(x, -np.inf, lax.max, **_window(axes))


def max_pool_argmax(x: jax.Array, *, axes: Sequence[Axis]) -> tuple[jax.Array, jax.Array]:
    """y and the flat position of each first maximum, by one reduction over (value, position) pairs."""
    positions = jnp.zeros(x.shape, jnp.int32)
    for d in range(1, x.ndim - 1):
        positions = positions * x.shape[d] + lax.broadcasted_iota(jnp.int32, x.shape, d)

    def larger(a: tuple[jax.Array, jax.Array], b: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        (a_value, a_at), (b_value, b_at) = a, b
        above = (a_value > b_value) | ((a_value != a_value) & (b_value == b_value))
        below = (b_value > a_value) | ((b_value != b_value) & (a_value == a_value))
        # Among equals the earlier wins; -1 is no position, and loses to any.
        a_first = (b_at < 0) | ((a_at >= 0) & (a_at < b_at))
        take_a = (a_at >= 0) & (above | (~below & a_first) | (b_at < 0))
        return lax.select(take_a, a_value, b_value), lax.select(take_a, a_at, b_at)

    least = _least(x.dtype)
    start = (least, jnp.array(-1, jnp.int32))
    x, positions = _padded(x, least, axes), _padded(positions, -1, axes)
    y, position = lax.reduce_window((x, positions), start, larger, **_window(axes))
    return y, position


def ruled_position(x: jax.Array, *, axes: Sequence[Axis], rule: str) -> jax.Array:
    """The flat position that ``lax``'s derivatives of a maximum take in each window, -1 if there is none.

    Both go on from the best so far to the next tap unless best >= next, which is false if either is NaN.
    ``select_and_scatter`` starts with the window's first tap, and reads padding as -inf at no position;
    ``select_and_gather`` starts with -inf at no position, and leaves padding out.
    """
    positions = jnp.arange(_volume(x), dtype=jnp.int32).reshape((1, *x.shape[1:-1], 1))
    positions = jnp.broadcast_to(positions, x.shape)
    window = _window(axes)
    scatters = rule == "select_and_scatter"
    least, nowhere = jnp.array(-jnp.inf, x.dtype), jnp.int32(-1)
    unset = np.int32(-2)  # an array would be a tracer, which the reduction does not take
    if scatters:
        pads = [(lo, hi, 0) for lo, hi in window["padding"]]
        x, positions = lax.pad(x, least, pads), lax.pad(positions, nowhere, pads)
        window["padding"] = ((0, 0),) * x.ndim

    def next_best(
        a: tuple[jax.Array, jax.Array], b: tuple[jax.Array, jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
        (a_value, a_at), (b_value, b_at) = a, b
        stays = (a_value >= b_value) & (a_at != unset)
        return lax.select(stays, a_value, b_value), lax.select(stays, a_at, b_at)

    start = (least, unset if scatters else nowhere)
    return lax.reduce_window((x, positions), start, next_best, **window)[1]


def _volume(x: jax.Array) -> int:
    volume = 1
    for size in x.shape[1:-1]:
        volume *= size
    return volume


def _more_images(a: jax.Array, b: jax.Array) -> int:
    """The larger number of images, which may be a symbol if both have as many."""
    return a.shape[0] if a.shape[0] == b.shape[0] else max(a.shape[0], b.shape[0])


def _repeated(array: jax.Array, images: int) -> jax.Array:
    """As many images as the other operand has; see pool_primitives.py."""
    if array.shape[0] == images:
        return array
    return jnp.tile(array, (images // array.shape[0], *(1,) * (array.ndim - 1)))


def max_pool_select(t: jax.Array, position: jax.Array) -> jax.Array:
    """t at the chosen positions, 0 where there is none."""
    images = _more_images(t, position)
    t, position = _repeated(t, images), _repeated(position, images)
    if not are_known(t.shape):
        return _selected_by_axis(t, position)
    flat_t = t.reshape((t.shape[0], _volume(t), t.shape[-1]))
    flat_at = position.reshape((position.shape[0], _volume(position), position.shape[-1]))
    inside = (flat_at >= 0) & (flat_at < flat_t.shape[1])
    chosen = jnp.take_along_axis(flat_t, jnp.maximum(flat_at, 0), axis=1, mode="clip")
    return jnp.where(inside, chosen, 0).reshape(position.shape)


def _selected_by_axis(t: jax.Array, position: jax.Array) -> jax.Array:
    """The same without a reshape, since JAX does not accept every product of symbols as a size."""
    within, at = [], jnp.maximum(position, 0)
    for d in range(t.ndim - 2, 0, -1):
        at, index = jnp.divmod(at, jnp.int32(t.shape[d]))
        within.append(index)
    image, channel = (lax.broadcasted_iota(jnp.int32, position.shape, d) for d in (0, t.ndim - 1))
    chosen = t.at[(image, *within[::-1], channel)].get(mode="clip")
    return jnp.where(position >= 0, chosen, 0)


def max_pool_grad(dy: jax.Array, position: jax.Array, *, axes: Sequence[Axis]) -> jax.Array:
    """dx: each dy added at its chosen position."""
    wide = _summed_in(dy.dtype)
    images = _more_images(dy, position)
    t = jax.ShapeDtypeStruct(_input_shape(images, axes, dy), wide)
    select = jax.linear_transpose(lambda t: max_pool_select(t, position), t)
    return select(_repeated(dy, images).astype(wide))[0].astype(dy.dtype)


def _input_shape(images: int, axes: Sequence[Axis], dy: jax.Array) -> tuple[int, ...]:
    """Shape of what was pooled."""
    return (images, *(axis.input for axis in axes), dy.shape[-1])


def _summed_in(dtype: jnp.dtype) -> jnp.dtype:
    """The dtype in which such numbers are added up, the same as in the kernels: 16 bits are too few."""
    narrow = jnp.issubdtype(dtype, jnp.floating) and dtype.itemsize < 4
    return jnp.dtype(jnp.float32) if narrow else dtype


def avg_pool(x: jax.Array, *, axes: Sequence[Axis], count_include_pad: bool) -> jax.Array:
    """y as a window's sum over its count."""
    dtype, window = x.dtype, _window(axes)
    x = x.astype(_summed_in(dtype))
    total = lax.reduce_window(_padded(x, 0, axes), x.dtype.type(0), lax.add, **window)
    ones = jnp.ones((1, *x.shape[1:-1], 1), x.dtype)
    if count_include_pad:
        count = jnp.array(1, x.dtype)
        for axis in axes:
            count = count * axis.taps
    else:
        count = lax.reduce_window(_padded(ones, 0, axes), x.dtype.type(0), lax.add, **window)
    return (total / count).astype(dtype)


def max_unpool(y: jax.Array, position: jax.Array, *, shape: tuple[int, ...]) -> jax.Array:
    """Each number added at its position, wherever that is in its image; one off the image gives nothing."""
    images, channels = y.shape[0], y.shape[-1]
    if 0 in shape[1:-1]:  # where jax.lax has no derivative of a scatter
        return jnp.zeros(shape, y.dtype)
    volume = 1
    for size in shape[1:-1]:
        volume *= size
    values = y.reshape((images, _volume(y), channels))
    at = position.reshape(values.shape)
    at = jnp.where((at >= 0) & (at < volume), at, volume)  # the last is dropped
    n = jnp.arange(images)[:, None, None]
    c = jnp.arange(channels)[None, None, :]
    narrow = jnp.issubdtype(y.dtype, jnp.floating) and y.dtype.itemsize < 4
    total = jnp.zeros((images, volume, channels), jnp.float32 if narrow else y.dtype)
    total = total.at[n, at, c].add(values.astype(total.dtype), mode="drop")
    return total.astype(y.dtype).reshape(shape)


def _least(dtype: np.dtype) -> jax.Array:
    """The least value of a dtype."""
    if dtype == np.bool_:
        return jnp.array(False)
    if jnp.issubdtype(dtype, jnp.integer):
        return jnp.array(jnp.iinfo(dtype).min, dtype)
    # As in lax: some 8-bit floats have no infinity, and write it as a NaN.
    lowest = np.array(-np.inf).astype(dtype)
    return jnp.array(jnp.finfo(dtype).min if np.isnan(lowest) else lowest, dtype)


def sum_pool(x: jax.Array, *, axes: Sequence[Axis]) -> jax.Array:
    """y as each window's sum."""
    return lax.reduce_window(_padded(x, 0, axes), x.dtype.type(0), lax.add, **_window(axes))


def sum_pool_grad(dy: jax.Array, *, axes: Sequence[Axis]) -> jax.Array:
    """dx as the transpose of ``sum_pool``."""
    x = jax.ShapeDtypeStruct(_input_shape(dy.shape[0], axes, dy), dy.dtype)
    return jax.linear_transpose(partial(sum_pool, axes=axes), x)(dy)[0]


def avg_pool_grad(dy: jax.Array, *, axes: Sequence[Axis], count_include_pad: bool) -> jax.Array:
    """dx as the transpose of ``avg_pool``."""
    x = jax.ShapeDtypeStruct(_input_shape(dy.shape[0], axes, dy), dy.dtype)
    forward = partial(avg_pool, axes=axes, count_include_pad=count_include_pad)
    return jax.linear_transpose(forward, x)(dy)[0]
