"""The convolution's ops with ``jax.lax``, for where there are no kernels: TPU, ROCm, Metal; symbols as sizes.

Those of pooling are in pool_fallback.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from jax_convgrad.geometry import Axis, are_known, dilated, is_positive
from jax_convgrad.primitives.conv_spec import ConvSpec, Dims


def high_pad(axis: Axis, span: int) -> int:
    """The high pad of an input's span that gives the axis its number of outputs."""
    if axis.pad_hi is not None:
        return axis.pad_hi
    window = dilated(axis.taps, axis.filter_dilation)
    # One position less than a window has no output; pads must not crop more than there is.
    needed = (axis.output - 1) * axis.stride + window if axis.output else max(window - 1, 0)
    return needed - span - axis.pad_lo


def fprop(x: jax.Array, w: jax.Array, *, spec: ConvSpec) -> jax.Array:
    """y by lax's convolution."""
    axes = spec.axes
    if all(map(_has_known_pads, axes)):
        padding = [(axis.pad_lo, high_pad(axis, dilated(axis.input, axis.input_dilation))) for axis in axes]
        lhs_dilation = [axis.input_dilation for axis in axes]
        wanted = None
    else:
        x, wanted = _padded_to_windows(x, axes, spec.dimensions)
        padding = [(0, 0)] * len(axes)
        lhs_dilation = [1] * len(axes)
    y = lax.conv_general_dilated(
        x,
        w,
        window_strides=[axis.stride for axis in axes],
        padding=padding,
        lhs_dilation=lhs_dilation,
        rhs_dilation=[axis.filter_dilation for axis in axes],
        dimension_numbers=lax.ConvDimensionNumbers(*spec.dimensions),
        feature_group_count=spec.groups,
        precision=spec.precision,
        preferred_element_type=spec.result_dtype,
    )
    return y if wanted is None else lax.slice(y, (0,) * y.ndim, wanted(y.shape))


def _has_known_pads(axis: Axis) -> bool:
    """Reports whether pads along the axis are numbers in lax's convolution and in lax's transposes of it."""
    if axis.is_known:
        return True
    span = dilated(axis.input, axis.input_dilation)
    high = high_pad(axis, span)
    windows = (axis.output - 1) * axis.stride + dilated(axis.taps, axis.filter_dilation)
    return are_known((axis.taps, axis.pad_lo, high, axis.pad_lo + span + high - windows))


def _padded_to_windows(
    x: jax.Array, axes: Sequence[Axis], dimensions: Dims
) -> tuple[jax.Array, Callable[[Sequence[int]], Sequence[int]]]:
    """x dilated, padded and cropped so that windows fill it, and the shape of y from that of their results.

    If symbols may be so small that there is no window, there is one window too many.
    """
    config = [(0, 0, 0)] * x.ndim
    outputs = {}
    for axis, of_x, of_y in zip(axes, dimensions.x[2:], dimensions.y[2:], strict=True):
        windows = axis.output if is_positive(axis.output) else axis.output + 1
        length = (windows - 1) * axis.stride + dilated(axis.taps, axis.filter_dilation)
        high = length - dilated(axis.input, axis.input_dilation) - axis.pad_lo
        config[of_x] = (axis.pad_lo, high, axis.input_dilation - 1)
        outputs[of_y] = axis.output
    x = lax.pad(x, jnp.array(0, x.dtype), config)
    return x, lambda shape: [outputs.get(d, size) for d, size in enumerate(shape)]


def dgrad(dy: jax.Array, w: jax.Array, *, spec: ConvSpec) -> jax.Array:
    """dx as the transpose of ``fprop`` in x."""
    if not are_known(axis.taps for axis in spec.axes):
        raise NotImplementedError(
            "jax_convgrad: a gradient with respect to x needs a filter of known sizes, but its spatial sizes "
            f"are {spec.geometry.filter_shape}: export with numbers in place of these symbols"
        )
    dy, w, forward = _widened(dy, w, spec)
    x = jax.ShapeDtypeStruct(spec.x_shape(dy.shape, w.shape), dy.dtype)
    return jax.linear_transpose(lambda x: forward(x, w), x)(dy)[0]


def wgrad(x: jax.Array, dy: jax.Array, *, spec: ConvSpec) -> jax.Array:
    """dw as the transpose of ``fprop`` in w."""
    x, dy, forward = _widened(x, dy, spec)
    w = jax.ShapeDtypeStruct(spec.w_shape(x.shape, dy.shape), x.dtype)
    return jax.linear_transpose(lambda w: forward(x, w), w)(dy)[0]


def _widened(
    a: jax.Array, b: jax.Array, spec: ConvSpec
) -> tuple[jax.Array, jax.Array, Callable[[jax.Array, jax.Array], jax.Array]]:
    """The operands in the dtype of the result, and ``fprop`` in that dtype."""
    if spec.result_dtype is not None:
        a, b = a.astype(spec.result_dtype), b.astype(spec.result_dtype)
    return a, b, partial(fprop, spec=spec.with_result_dtype(None))


def bgrad(dy: jax.Array, *, channel_axis: int) -> jax.Array:
    """db by a sum over all axes except the channels."""
    return jnp.sum(dy, axis=[axis for axis in range(dy.ndim) if axis != channel_axis])
