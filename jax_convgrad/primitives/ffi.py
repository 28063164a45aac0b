"""The border to native code: attributes, layouts, workspace; targets.py registers what is called.

Kernels know one physical layout (channels last). To keep a user's order of dimensions, each call states the
layout of its operands and results. XLA then stores an array that way from the start if it can, and nothing is
transposed here.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.typing import DTypeLike

from jax_convgrad.geometry import Axis, are_known
from jax_convgrad.primitives.conv_spec import ConvSpec
from jax_convgrad.primitives.custom_call import custom_call
from jax_convgrad.primitives.number_types import below_highest
from jax_convgrad.primitives.pool_spec import PoolSpec
from jax_convgrad.primitives.targets import Backend, backends


def _int64(values: Sequence[int]) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def _activation_layout(dimensions: tuple[int, ...]) -> tuple[int, ...]:
    """[N, spatial..., C], major to minor, from the dimensions (batch, channel, spatial...)."""
    return (dimensions[0], *dimensions[2:], dimensions[1])


def _filter_layout(dimensions: tuple[int, ...]) -> tuple[int, ...]:
    """[spatial..., C/groups, K], major to minor, from the dimensions (out, in, spatial...)."""
    return (*dimensions[2:], dimensions[1], dimensions[0])


def _steps(axes: Sequence[Axis]) -> dict[str, np.ndarray]:
    return {
        "stride": _int64([axis.stride for axis in axes]),
        "pad_lo": _int64([axis.pad_lo for axis in axes]),
        "filter_dilation": _int64([axis.filter_dilation for axis in axes]),
    }


# A large net has many layers of few kinds.
@functools.lru_cache(4096)
def _conv_attributes(backend: Backend, spec: ConvSpec) -> dict[str, Any]:
    return {
        **_steps(spec.axes),
        "input_dilation": _int64([axis.input_dilation for axis in spec.axes]),
        "groups": np.int64(spec.groups),
        "x_spec": _int64(spec.dimensions.x),
        "w_spec": _int64(spec.dimensions.w),
        "y_spec": _int64(spec.dimensions.y),
        "kernel": backend.kernel,
        "below_highest": below_highest(spec.precision),
    }


def _result(shape: Sequence[int], dtype: DTypeLike) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(tuple(shape), dtype)


@functools.lru_cache(4096)
def _workspace(
    backend: Backend, op: str, x: tuple[int, ...], y: tuple[int, ...], dtype: np.dtype, spec: ConvSpec
) -> jax.ShapeDtypeStruct:
    """A further result for the kernel to work in, so that XLA owns and counts it. x and y are shapes."""
    axes = [
        (a.input, a.taps, a.output, a.stride, a.pad_lo, a.input_dilation, a.filter_dilation)
        for a in spec.axes
    ]
    size = backend.module.conv_workspace_bytes(
        op=op,
        kernel=backend.kernel,
        dtype=dtype.name,
        batch=x[spec.dimensions.x[0]],
        in_channels=x[spec.x_channel],
        out_channels=y[spec.y_channel],
        groups=spec.groups,
        axes=axes,
        below_highest=below_highest(spec.precision),
    )
    return _result((size,), np.uint8)


def _one_image(x: tuple[int, ...], spec: ConvSpec) -> tuple[int, ...]:
    """x's shape with a batch of 1.

    fprop and dgrad need workspace for the filter alone, so the batch may be a symbol in an exported program.
    """
    return tuple(1 if d == spec.dimensions.x[0] else size for d, size in enumerate(x))


def fprop(
    platform: str, x: jax.Array, w: jax.Array, spec: ConvSpec, *bias: jax.Array, relu: bool = False
) -> jax.Array:
    """y, plus a bias if one is given, and cut off at 0 if ``relu``."""
    backend, dims = backends[platform], spec.dimensions
    shape = spec.y_shape(x.shape, w.shape)
    call = custom_call(
        backend.prefix + "fprop",
        (
            _result(shape, spec.result_dtype or x.dtype),
            _workspace(backend, "fprop", _one_image(x.shape, spec), shape, x.dtype, spec),
        ),
        input_layouts=[_activation_layout(dims.x), _filter_layout(dims.w), *((0,) for _ in bias)],
        output_layouts=[_activation_layout(dims.y), (0,)],
    )
    return call(x, w, *bias, **_conv_attributes(backend, spec), relu=relu)[0]


def dgrad(platform: str, dy: jax.Array, w: jax.Array, spec: ConvSpec) -> jax.Array:
    """dx."""
    backend, dims = backends[platform], spec.dimensions
    shape = spec.x_shape(dy.shape, w.shape)
    call = custom_call(
        backend.prefix + "dgrad",
        (
            _result(shape, spec.result_dtype or dy.dtype),
            _workspace(backend, "dgrad", _one_image(shape, spec), dy.shape, dy.dtype, spec),
        ),
        input_layouts=[_activation_layout(dims.y), _filter_layout(dims.w)],
        output_layouts=[_activation_layout(dims.x), (0,)],
    )
    return call(dy, w, **_conv_attributes(backend, spec))[0]


def wgrad(platform: str, x: jax.Array, dy: jax.Array, spec: ConvSpec) -> jax.Array:
    """dw."""
    backend, dims = backends[platform], spec.dimensions
    call = custom_call(
        backend.prefix + "wgrad",
        (
            _result(spec.w_shape(x.shape, dy.shape), spec.result_dtype or x.dtype),
            _workspace(backend, "wgrad", x.shape, dy.shape, x.dtype, spec),
        ),
        input_layouts=[_activation_layout(dims.x), _activation_layout(dims.y)],
        output_layouts=[_filter_layout(dims.w), (0,)],
    )
    return call(x, dy, **_conv_attributes(backend, spec))[0]


def sums_filter_and_bias(platform: str) -> bool:
    """Reports whether the platform's kernels have ``wgrad_bgrad``."""
    return "wgrad_bgrad" in backends[platform].module.registrations()


def wgrad_bgrad(platform: str, x: jax.Array, dy: jax.Array, spec: ConvSpec) -> tuple[jax.Array, jax.Array]:
    """dw and db, from one pass over dy if the kernel can do that."""
    backend, dims = backends[platform], spec.dimensions
    call = custom_call(
        backend.prefix + "wgrad_bgrad",
        (
            _result(spec.w_shape(x.shape, dy.shape), x.dtype),
            _result((dy.shape[spec.y_channel],), dy.dtype),
            _workspace(backend, "wgrad_bgrad", x.shape, dy.shape, x.dtype, spec),
        ),
        input_layouts=[_activation_layout(dims.x), _activation_layout(dims.y)],
        output_layouts=[_filter_layout(dims.w), (0,), (0,)],
    )
    dw, db, _ = call(x, dy, **_conv_attributes(backend, spec))
    return dw, db


def bgrad(platform: str, dy: jax.Array, channel_axis: int) -> jax.Array:
    """db, one entry for each channel."""
    backend = backends[platform]
    channels = dy.shape[channel_axis]
    others = tuple(axis for axis in range(dy.ndim) if axis != channel_axis)
    rows = int(np.prod([dy.shape[axis] for axis in others], dtype=np.int64))
    workspace = backend.module.bgrad_workspace_bytes(dtype=dy.dtype.name, rows=rows, channels=channels)
    call = custom_call(
        backend.prefix + "bgrad",
        (_result((channels,), dy.dtype), _result((workspace,), np.uint8)),
        input_layouts=[(*others, channel_axis)],
        output_layouts=[(0,), (0,)],
    )
    return call(dy, channel_axis=np.int64(channel_axis), kernel=backend.kernel)[0]


def pool(
    platform: str,
    op: str,
    operands: Sequence[jax.Array],
    results: Sequence[tuple[tuple[int, ...], DTypeLike]],
    spec: PoolSpec,
    count_include_pad: bool = True,
    **attributes: bool | str,
) -> Sequence[jax.Array]:
    """One of the pooling targets; ``results`` are shapes and dtypes."""
    backend = backends[platform]
    layout = _activation_layout(spec.dimensions)
    call = custom_call(
        backend.prefix + op,
        [_result(shape, dtype) for shape, dtype in results],
        input_layouts=[layout for _ in operands],
        output_layouts=[layout for _ in results],
    )
    return call(
        *operands,
        spec=_int64(spec.dimensions),
        window=_int64([axis.taps for axis in spec.axes]),
        count_include_pad=count_include_pad,
        **_steps(spec.axes),
        kernel=backend.kernel,
        **attributes,
    )


def has_norms(platform: str) -> bool:
    """Reports whether the platform's kernels have batch norm."""
    return "normalize" in backends[platform].module.registrations()


def norm(
    platform: str,
    op: str,
    arrays: Sequence[jax.Array],
    vectors: Sequence[jax.Array],
    results: Sequence[tuple[tuple[int, ...], DTypeLike]],
    channel_axis: int,
    activation: str,
    *,
    sums: bool,
) -> Sequence[jax.Array]:
    """One of batch norm's targets; ``arrays`` are as large as x, ``vectors`` have a number for each channel.

    ``sums`` says that the results are vectors, for which the kernel needs workspace.
    """
    backend, shape = backends[platform], arrays[0].shape
    others = tuple(axis for axis in range(1, len(shape)) if axis != channel_axis)
    layout = (0, *others, channel_axis)
    shapes = [_result(shape, dtype) for shape, dtype in results]
    layouts: list[tuple[int, ...]] = [(0, 1) if sums else layout for _ in results]
    if sums:
        sizes = [shape[axis] for axis in others]
        rows = int(np.prod(sizes, dtype=np.int64)) if are_known(sizes) else 0
        workspace = backend.module.norm_workspace_bytes(
            groups=shape[0], rows=rows, channels=shape[channel_axis]
        )
        shapes.append(_result((workspace,), np.uint8))
        layouts.append((0,))
    call = custom_call(
        backend.prefix + op,
        shapes,
        input_layouts=[*(layout for _ in arrays), *((0, 1) for _ in vectors)],
        output_layouts=layouts,
    )
    attributes = {
        "channel_axis": np.int64(channel_axis),
        "activation": activation,
        "kernel": backend.kernel,
    }
    return call(*arrays, *vectors, **attributes)[: len(results)]
