"""Convolutions in ``jax.lax``'s own terms: arguments in, a checked geometry out, then the layer itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec
from jax.typing import ArrayLike, DTypeLike

from jax_convgrad import gradients
from jax_convgrad.arguments import accumulation_dtype, canonical_precision, float_arrays
from jax_convgrad.axis_types import with_axis_types
from jax_convgrad.ffi import Dims
from jax_convgrad.geometry import ConvGeometry, conv_geometry, dilated, pads, steps
from jax_convgrad.primitives import y_spec
from jax_convgrad.problem import check_bias, check_channels, dimensions, per_axis, symmetric_pads


def conv_general_dilated(
    lhs: ArrayLike,
    rhs: ArrayLike,
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    batch_group_count: int = 1,
    precision: Any = None,
    preferred_element_type: DTypeLike | None = None,
    out_sharding: NamedSharding | PartitionSpec | None = None,
) -> jax.Array:
    """``jax.lax.conv_general_dilated``, argument for argument, on this package's kernels.

        y[n,o,k] = Σ_{r,c} x[n,i,c] · w[r,c,k]   over all  o·stride + r·rhs_dilation − pad_lo = i·lhs_dilation

    and likewise its gradients of every order in reverse mode (docs/derivation.md). Sums run in f32 for bf16
    and f16, in the operands' dtype otherwise.

    Args:
      lhs: x, of rank 2 + 0 to 3 spatial dimensions; f32, f64, bf16 or f16.
      rhs: w, of the same rank and dtype.
      window_strides: one stride a spatial dimension.
      padding: "SAME", "SAME_LOWER", "VALID" or one (low, high) pair a spatial dimension; negative pads crop.
      lhs_dilation: one input dilation a spatial dimension; None is ones.
      rhs_dilation: one filter dilation a spatial dimension; None is ones.
      dimension_numbers: None (NCHW, OIHW, NCHW), three strings, or a ``jax.lax.ConvDimensionNumbers``.
      feature_group_count: groups that channels are split into.
      batch_group_count: groups that the batch is split into, each with its own output channels.
      precision: as in ``jax.lax``. The kernels compute f32 in full f32 whatever it says; it is passed on
        where a platform has no kernels and ``jax.lax`` computes.
      preferred_element_type: a wider dtype to compute in and return.
      out_sharding: how y is split over explicit mesh axes; None is the batch as x's and the channels as w's.

    Returns:
      y, of the operands' dtype or of ``preferred_element_type``. Where the window is larger than the padded
      input it has size 0, as in ``jax.lax``.

    Raises:
      TypeError: dtypes that differ or are not supported, or an argument of the wrong kind.
      ValueError: an argument whose length, size or value does not fit.
    """
    x, w = float_arrays(lhs=lhs, rhs=rhs)
    dims = dimensions(x.shape, w.shape, dimension_numbers, ("lhs", "rhs"))
    axes = x.ndim - 2
    stride = steps(window_strides, axes, "window_strides")
    input_dilation = (1,) * axes if lhs_dilation is None else steps(lhs_dilation, axes, "lhs_dilation")
    filter_dilation = (1,) * axes if rhs_dilation is None else steps(rhs_dilation, axes, "rhs_dilation")
    if isinstance(padding, str) and any(step != 1 for step in input_dilation):
        raise ValueError(
            f"padding must be given as pairs where lhs_dilation is not 1, but is {padding!r} with "
            f"lhs_dilation {input_dilation}; conv_transpose takes strings"
        )
    batch_groups = check_channels(
        x.shape,
        w.shape,
        dims,
        feature_group_count,
        ("lhs", "rhs", "feature_group_count"),
        batch_group_count,
    )
    geometry = _geometry(
        x.shape, w.shape, dims, stride, padding, input_dilation, filter_dilation, feature_group_count
    )
    dtype = accumulation_dtype(preferred_element_type, x.dtype)
    precision = canonical_precision(precision)

    def convolution(x: jax.Array, w: jax.Array) -> jax.Array:
        x, w = x.astype(dtype), w.astype(dtype)
        if batch_groups == 1:
            return gradients.convolution(x, w, None, False, geometry, dims, precision)
        x = _batch_groups_to_features(x, dims, batch_groups)
        grouped = ConvGeometry(geometry.axes, batch_groups)
        return gradients.convolution(x, w, None, False, grouped, dims, precision)

    return with_axis_types(convolution, (x, w), lambda specs: y_spec(specs[0], specs[1], dims), out_sharding)


def conv(
    x: ArrayLike,
    w: ArrayLike,
    b: ArrayLike | None = None,
    *,
    stride: int | Sequence[int] = 1,
    padding: str | int | Sequence[int] | Sequence[tuple[int, int]] = "VALID",
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    dimension_numbers: Any = None,
    activation: str | Callable[[jax.Array], jax.Array] | None = None,
    precision: Any = None,
) -> jax.Array:
    """A convolution layer: activation(Σ_{r,c} x[n,i,c] · w[r,c,k] + b[k]), channels last by default.

    The sum is rounded to x's dtype before b is added, as in a convolution of ``jax.lax`` followed by ``+ b``.

    Args:
      x: [N, spatial..., C] with 0 to 3 spatial dimensions (or as ``dimension_numbers`` says); f32, f64, bf16
        or f16.
      w: [spatial..., C / groups, K], of the same dtype.
      b: [K], of the same dtype, or None. Its gradient is a kernel of its own, ``conv_bias_grad``.
      stride: one for all spatial dimensions, or one for each.
      padding: "SAME", "SAME_LOWER", "VALID", a number, or for each spatial dimension a number or a
        (low, high) pair.
      dilation: of the filter; one for all spatial dimensions, or one for each.
      groups: groups that the channels are split into.
      dimension_numbers: None (NHWC, HWIO, NHWC and their likes), or as in ``jax.lax.conv_general_dilated``.
      activation: None, "relu" (its gradient at 0 is 0), or a function of y.
      precision: as in ``conv_general_dilated``.

    Returns:
      y, of x's dtype.

    Raises:
      TypeError: dtypes that differ or are not supported, or an argument of the wrong kind.
      ValueError: an argument whose length, size or value does not fit.
    """
    x, w = float_arrays(x=x, w=w)
    geometry, dims = layer_geometry(
        x.shape, w.shape, ("x", "w"), stride, padding, 1, dilation, groups, dimension_numbers
    )
    if b is not None:
        _, b = float_arrays(x=x, b=b)
        check_bias(b.shape, w.shape[dims.w[0]])
    relu = isinstance(activation, str) and activation == "relu"
    if not (activation is None or relu or callable(activation)):
        raise ValueError(f'activation must be None, "relu" or a function, not {activation!r}')
    y = gradients.convolution(x, w, b, relu, geometry, dims, canonical_precision(precision))
    return activation(y) if callable(activation) else y


def conv_transpose(
    lhs: ArrayLike,
    rhs: ArrayLike,
    strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    transpose_kernel: bool = False,
    precision: Any = None,
    preferred_element_type: DTypeLike | None = None,
    use_consistent_padding: bool = False,
) -> jax.Array:
    """``jax.lax.conv_transpose``, argument for argument, on this package's kernels.

    A convolution with its input dilated by ``strides``. With ``transpose_kernel`` it is the input gradient of
    the strided convolution by the same filter, and runs as that, with no copy of the filter.

    Args:
      lhs: x, channels last unless ``dimension_numbers`` says otherwise; f32, f64, bf16 or f16.
      rhs: w, [spatial..., in, out], of the same dtype ([spatial..., out, in] with ``transpose_kernel``).
      strides: one a spatial dimension; the output is about that many times as large.
      padding: "SAME" or "VALID" of the convolution that this undoes, or one (low, high) pair a spatial
        dimension: of the dilated input, or of the convolution undone with ``use_consistent_padding``.
      rhs_dilation: one filter dilation a spatial dimension; None is ones.
      dimension_numbers: None (NHWC, HWIO, NHWC and their likes), or as in ``conv_general_dilated``.
      transpose_kernel: flip the taps and swap the filter's channel axes, as Keras does.
      precision: as in ``conv_general_dilated``.
      preferred_element_type: a wider dtype to compute in and return.
      use_consistent_padding: read pairs as strings are read.

    Returns:
      y, of the operands' dtype or of ``preferred_element_type``.

    Raises:
      TypeError: dtypes that differ or are not supported, or an argument of the wrong kind.
      ValueError: an argument whose length, size or value does not fit.
    """
    x, w = float_arrays(lhs=lhs, rhs=rhs)
    dims = dimensions(x.shape, w.shape, dimension_numbers, ("lhs", "rhs"), channels_last=True)
    axes = x.ndim - 2
    upsampling = steps(strides, axes, "strides")
    filter_dilation = (1,) * axes if rhs_dilation is None else steps(rhs_dilation, axes, "rhs_dilation")
    spans = [dilated(w.shape[d], f) for d, f in zip(dims.w[2:], filter_dilation, strict=True)]
    padding = _transpose_pads(
        padding, [x.shape[d] for d in dims.x[2:]], spans, upsampling, use_consistent_padding
    )
    if transpose_kernel:
        # w's "out" axis is the one that meets x, as in the convolution undone, whose y is this x.
        w_in_out = Dims(dims.x, (dims.w[1], dims.w[0], *dims.w[2:]), dims.y)
    else:
        w_in_out = dims
    check_channels(x.shape, w.shape, w_in_out, 1, ("lhs", "rhs", "feature_group_count"))
    geometry = _geometry(x.shape, w.shape, dims, (1,) * axes, padding, upsampling, filter_dilation, 1)
    dtype = accumulation_dtype(preferred_element_type, x.dtype)
    x, w = x.astype(dtype), w.astype(dtype)
    precision = canonical_precision(precision)
    if transpose_kernel:
        undone = Dims(dims.y, dims.w, dims.x)
        return gradients.transposed_convolution(x, w, geometry.transpose(), undone, precision)
    return gradients.convolution(x, w, None, False, geometry, dims, precision)


def layer_geometry(
    x_shape: tuple[int, ...],
    w_shape: tuple[int, ...],
    names: tuple[str, str],
    stride: int | Sequence[int],
    padding: Any,
    input_dilation: int | Sequence[int],
    dilation: int | Sequence[int],
    groups: int,
    dimension_numbers: Any,
) -> tuple[ConvGeometry, Dims]:
    """Geometry and dimensions of a layer, whose arguments may be one number for all axes."""
    dims = dimensions(x_shape, w_shape, dimension_numbers, names, channels_last=True)
    axes = len(x_shape) - 2
    check_channels(x_shape, w_shape, dims, groups, (*names, "groups"))
    d = per_axis(input_dilation, axes, "input_dilation")
    if isinstance(padding, str) and any(step != 1 for step in d):
        raise ValueError(f"padding must be given as pairs where input_dilation is not 1, but is {padding!r}")
    geometry = _geometry(
        x_shape,
        w_shape,
        dims,
        per_axis(stride, axes, "stride"),
        symmetric_pads(padding, axes),
        d,
        per_axis(dilation, axes, "dilation"),
        groups,
    )
    return geometry, dims


def _geometry(
    x_shape: tuple[int, ...],
    w_shape: tuple[int, ...],
    dims: Dims,
    stride: tuple[int, ...],
    padding: Any,
    input_dilation: tuple[int, ...],
    filter_dilation: tuple[int, ...],
    groups: int,
) -> ConvGeometry:
    inputs = [x_shape[d] for d in dims.x[2:]]
    taps = [w_shape[d] for d in dims.w[2:]]
    spans = [dilated(r, f) for r, f in zip(taps, filter_dilation, strict=True)]
    return conv_geometry(
        inputs,
        taps,
        stride=stride,
        padding=pads(padding, inputs, spans, stride),
        input_dilation=input_dilation,
        filter_dilation=filter_dilation,
        groups=int(groups),
    )


def _batch_groups_to_features(x: jax.Array, dims: Dims, count: int) -> jax.Array:
    """Moves the batch's groups in front of the channels, where they are feature groups."""
    batch, channel = dims.x[0], dims.x[1]
    split = (*x.shape[:batch], count, x.shape[batch] // count, *x.shape[batch + 1 :])
    x = jnp.moveaxis(jnp.reshape(x, split), batch, channel)
    return jnp.reshape(x, (*x.shape[:channel], count * x.shape[channel + 1], *x.shape[channel + 2 :]))


def _transpose_pads(
    padding: str | Sequence[tuple[int, int]],
    inputs: Sequence[int],
    spans: Sequence[int],
    strides: tuple[int, ...],
    use_consistent_padding: bool,
) -> tuple[tuple[int, int], ...]:
    """Pads of the dilated input that undo a convolution with the given padding.

    A window of span k at stride s undoes "SAME" with k + s − 2 pads in all and "VALID" with
    k + s − 2 + max(k − s, 0), of which low are k − 1, or the half rounded up for "SAME" where s < k.
    """
    if not isinstance(padding, str):
        pairs = pads(padding, inputs, spans, strides)
        if not use_consistent_padding:
            return pairs
        return tuple((k - 1 - lo, k - 1 - hi) for k, (lo, hi) in zip(spans, pairs, strict=True))
    kind = padding.upper()
    if kind not in ("SAME", "VALID"):
        raise ValueError(f'padding must be "SAME", "VALID" or a sequence of pairs, but is {padding!r}')
    result = []
    for k, s in zip(spans, strides, strict=True):
        total = k + s - 2 + (max(k - s, 0) if kind == "VALID" else 0)
        low = k - 1 if kind == "VALID" or s > k - 1 else -(-total // 2)
        result.append((low, total - low))
    return tuple(result)
