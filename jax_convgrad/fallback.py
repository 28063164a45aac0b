"""The same ops in terms of ``jax.lax``, for platforms that have no kernels here (TPU, ROCm, Metal)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jax_convgrad.arguments import Precision
from jax_convgrad.ffi import Dims
from jax_convgrad.geometry import Axis, ConvGeometry, dilated


def _high_pad(axis: Axis, span: int) -> int:
    """The high pad of an input's span that gives the axis its number of outputs."""
    window = dilated(axis.taps, axis.filter_dilation)
    # One position less than a window has no output; pads must not crop more than there is.
    needed = (axis.output - 1) * axis.stride + window if axis.output else max(window - 1, 0)
    return needed - span - axis.pad_lo


def fprop(
    x: jax.Array,
    w: jax.Array,
    *,
    geometry: ConvGeometry,
    dimensions: Dims,
    precision: Precision,
    shape: tuple[int, ...] | None = None,
    result_dtype: np.dtype | None = None,
) -> jax.Array:
    """y by lax's convolution; ``shape`` is what it comes to."""
    padding = [
        (axis.pad_lo, _high_pad(axis, dilated(axis.input, axis.input_dilation))) for axis in geometry.axes
    ]
    return lax.conv_general_dilated(
        x,
        w,
        window_strides=[axis.stride for axis in geometry.axes],
        padding=padding,
        lhs_dilation=[axis.input_dilation for axis in geometry.axes],
        rhs_dilation=[axis.filter_dilation for axis in geometry.axes],
        dimension_numbers=lax.ConvDimensionNumbers(dimensions.x, dimensions.w, dimensions.y),
        feature_group_count=geometry.groups,
        precision=precision,
        preferred_element_type=result_dtype,
    )


def dgrad(
    dy: jax.Array,
    w: jax.Array,
    *,
    shape: tuple[int, ...],
    geometry: ConvGeometry,
    dimensions: Dims,
    precision: Precision,
    result_dtype: np.dtype | None = None,
) -> jax.Array:
    """dx as the transpose of ``fprop`` in x."""
    dy, w = (array if result_dtype is None else array.astype(result_dtype) for array in (dy, w))
    forward = partial(fprop, geometry=geometry, dimensions=dimensions, precision=precision)
    x = jax.ShapeDtypeStruct(shape, dy.dtype)
    return jax.linear_transpose(lambda x: forward(x, w), x)(dy)[0]


def wgrad(
    x: jax.Array,
    dy: jax.Array,
    *,
    shape: tuple[int, ...],
    geometry: ConvGeometry,
    dimensions: Dims,
    precision: Precision,
    result_dtype: np.dtype | None = None,
) -> jax.Array:
    """dw as the transpose of ``fprop`` in w."""
    x, dy = (array if result_dtype is None else array.astype(result_dtype) for array in (x, dy))
    forward = partial(fprop, geometry=geometry, dimensions=dimensions, precision=precision)
    w = jax.ShapeDtypeStruct(shape, x.dtype)
    return jax.linear_transpose(lambda w: forward(x, w), w)(dy)[0]


def bgrad(dy: jax.Array, *, channel_axis: int) -> jax.Array:
    """db by a sum over all axes but the channels'."""
    return jnp.sum(dy, axis=[axis for axis in range(dy.ndim) if axis != channel_axis])


def _window(axes: Sequence[Axis], shape: Sequence[int]) -> dict[str, Sequence]:
    """The arguments of ``lax.reduce_window`` over [N, spatial..., C] of the given shape."""
    high = [_high_pad(axis, axis.input) for axis in axes]
    return {
        "window_dimensions": (1, *(axis.taps for axis in axes), 1),
        "window_strides": (1, *(axis.stride for axis in axes), 1),
        "padding": ((0, 0), *((axis.pad_lo, hi) for axis, hi in zip(axes, high, strict=True)), (0, 0)),
        "base_dilation": (1,) * len(shape),
        "window_dilation": (1, *(axis.filter_dilation for axis in axes), 1),
    }


def max_pool(x: jax.Array, *, axes: Sequence[Axis]) -> jax.Array:
    """y by ``lax.reduce_window``."""
    return lax.reduce_window(x, x.dtype.type(-np.inf), lax.max, **_window(axes, x.shape))


def max_pool_argmax(x: jax.Array, *, axes: Sequence[Axis]) -> tuple[jax.Array, jax.Array]:
    """y and the flat position of each first maximum, by one reduction over (value, position) pairs."""
    positions = jnp.arange(_volume(x), dtype=jnp.int32).reshape((1, *x.shape[1:-1], 1))
    positions = jnp.broadcast_to(positions, x.shape)

    def larger(a: tuple[jax.Array, jax.Array], b: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        (a_value, a_at), (b_value, b_at) = a, b
        above = (a_value > b_value) | ((a_value != a_value) & (b_value == b_value))
        below = (b_value > a_value) | ((b_value != b_value) & (a_value == a_value))
        # Among equals the earlier wins; -1 is no position, and loses to any.
        a_first = (b_at < 0) | ((a_at >= 0) & (a_at < b_at))
        take_a = (a_at >= 0) & (above | (~below & a_first) | (b_at < 0))
        return lax.select(take_a, a_value, b_value), lax.select(take_a, a_at, b_at)

    start = (jnp.array(-jnp.inf, x.dtype), jnp.array(-1, jnp.int32))
    y, position = lax.reduce_window((x, positions), start, larger, **_window(axes, x.shape))
    return y, position


def _volume(x: jax.Array) -> int:
    volume = 1
    for size in x.shape[1:-1]:
        volume *= size
    return volume


def _repeated(array: jax.Array, images: int) -> jax.Array:
    """As many images as the other operand has; see pool_primitives.py."""
    if array.shape[0] == images:
        return array
    return jnp.tile(array, (images // array.shape[0], *(1,) * (array.ndim - 1)))


def max_pool_select(t: jax.Array, position: jax.Array) -> jax.Array:
    """t at the chosen positions, 0 where there is none."""
    images = t.shape[0] if t.shape[0] == position.shape[0] else max(t.shape[0], position.shape[0])
    t, position = _repeated(t, images), _repeated(position, images)
    flat_t = t.reshape((t.shape[0], _volume(t), t.shape[-1]))
    flat_at = position.reshape((position.shape[0], _volume(position), position.shape[-1]))
    chosen = jnp.take_along_axis(flat_t, jnp.maximum(flat_at, 0), axis=1, mode="clip")
    return jnp.where(flat_at >= 0, chosen, 0).reshape(position.shape)


def max_pool_grad(dy: jax.Array, position: jax.Array, *, shape: tuple[int, ...]) -> jax.Array:
    """dx: each dy added at its chosen position."""
    t = jax.ShapeDtypeStruct(shape, dy.dtype)
    return jax.linear_transpose(lambda t: max_pool_select(t, position), t)(_repeated(dy, shape[0]))[0]


def avg_pool(x: jax.Array, *, axes: Sequence[Axis], count_include_pad: bool) -> jax.Array:
    """y as a window's sum over its count."""
    window = _window(axes, x.shape)
    total = lax.reduce_window(x, x.dtype.type(0), lax.add, **window)
    ones = jnp.ones((1, *x.shape[1:-1], 1), x.dtype)
    if count_include_pad:
        count = jnp.array(1, x.dtype)
        for axis in axes:
            count = count * axis.taps
    else:
        count = lax.reduce_window(ones, x.dtype.type(0), lax.add, **window)
    return total / count


def avg_pool_grad(
    dy: jax.Array, *, shape: tuple[int, ...], axes: Sequence[Axis], count_include_pad: bool
) -> jax.Array:
    """dx as the transpose of ``avg_pool``."""
    x = jax.ShapeDtypeStruct(shape, dy.dtype)
    forward = partial(avg_pool, axes=axes, count_include_pad=count_include_pad)
    return jax.linear_transpose(forward, x)(dy)[0]
