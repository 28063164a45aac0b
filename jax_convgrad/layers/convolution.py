"""Convolutions in ``jax.lax``'s own terms: arguments in, a checked ``ConvSpec`` out, then the layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec
from jax.typing import ArrayLike, DTypeLike

from jax_convgrad import gradients
from jax_convgrad.geometry import conv_geometry, dilated, pads, steps
from jax_convgrad.layers.arguments import arrays, canonical_precision, on_kernels, result_dtype
from jax_convgrad.layers.problem import check_bias, check_channels, dimensions, per_axis, symmetric_pads
from jax_convgrad.primitives.axis_types import with_axis_types
from jax_convgrad.primitives.conv_spec import ConvSpec, Dims
from jax_convgrad.primitives.number_types import converted, for_result


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

    ``y[n,o,k] = Σ_{r,c} x[n,i,c] · w[r,c,k]`` over all
    ``o·stride + r·rhs_dilation − pad_lo = i·lhs_dilation`` (docs/derivation.md), and likewise its gradients
    of every order. Sums run in f32 for bf16 and f16, in the operands' dtype otherwise. ``jax.lax`` computes
    if there are more than 3 spatial dimensions, or if the dtype is not one of those below: integers and bool,
    which have no gradient, and f8 and the like.

    Args:
      lhs: x, of rank 2 and more; on the kernels f32, f64, bf16, f16, complex64 or complex128.
      rhs: w, of the same rank and dtype.
      window_strides: one stride for each spatial dimension.
      padding: "SAME", "SAME_LOWER", "VALID" or a (low, high) pair for each spatial dimension, in any
        sequence; negative pads crop.
      lhs_dilation: one input dilation for each spatial dimension; None stands for ones.
      rhs_dilation: one filter dilation for each spatial dimension; None stands for ones.
      dimension_numbers: None (NCHW, OIHW, NCHW), three strings, or a ``jax.lax.ConvDimensionNumbers``.
      feature_group_count: the number of groups that the channels are split into.
      batch_group_count: the number of groups that the batch is split into, each with its own output channels.
      precision: as in ``jax.lax``, in each of its forms. At HIGHEST, f32 products are added up as they
        stand. Every other precision allows CUDA to multiply f32 in TF32, and a CPU to use Winograd's
        transforms, which take fewer products and round more (docs/winograd.md).
      preferred_element_type: the dtype to return, of the operands' kind and not narrower. The f32 sums of
        bf16 and f16 are returned as they are if it is f32; for other dtypes the operands are converted first,
        which is a copy. Gradients have the operands' dtype.
      out_sharding: how y is split over explicit mesh axes; None splits its batch as x's, its channels as w's.

    Returns:
      y, of the operands' dtype or of ``preferred_element_type``. If the window is larger than the padded
      input, y has size 0, as in ``jax.lax``.

    Raises:
      TypeError: dtypes that differ or are not supported, or an argument of the wrong kind.
      ValueError: an argument whose length, size or value does not fit.
    """
    x, w = arrays(lhs=lhs, rhs=rhs)
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
    spec, padding = spec_and_pads(
        x.shape,
        w.shape,
        dims,
        stride,
        padding,
        input_dilation,
        filter_dilation,
        feature_group_count,
        precision,
    )
    if not on_kernels(x):
        return lax.conv_general_dilated(
            x,
            w,
            stride,
            padding,
            input_dilation,
            filter_dilation,
            lax.ConvDimensionNumbers(*dims),
            spec.groups,
            batch_groups,
            spec.precision,
            preferred_element_type,
            out_sharding,
        )
    dtype = result_dtype(preferred_element_type, x.dtype)
    if batch_groups > 1:
        spec = spec.with_groups(batch_groups)

    def convolution(x: jax.Array, w: jax.Array) -> jax.Array:
        x, w, unrounded = for_result(dtype, x, w)
        if batch_groups > 1:
            x = _batch_groups_to_features(x, dims, batch_groups)
        y = gradients.convolution(x, w, None, False, spec.with_result_dtype(unrounded))
        return converted(y, dtype)

    return with_axis_types(
        convolution, (x, w), lambda split: spec.y_sharding(split[0], split[1]), out_sharding
    )


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

    The kernels add b and take relu's maximum in the type that they sum in, and round once to x's dtype; so do
    several devices that add up a sum. If ``jax.lax`` computes, or ``vmap`` maps b but not w, the sum is
    rounded before b is added, as in a convolution of ``jax.lax`` followed by ``+ b``.

    Args:
      x: [N, spatial..., C] (or as ``dimension_numbers`` says). ``conv_general_dilated`` documents the dtypes
        and the number of spatial dimensions that the kernels take; ``jax.lax`` computes for others.
      w: [spatial..., C / groups, K], of the same dtype.
      b: [K], of the same dtype, or None. Its gradient is a kernel of its own, ``conv_bias_grad``.
      stride: one for all spatial dimensions, or one for each.
      padding: "SAME", "SAME_LOWER", "VALID", a number, or for each spatial dimension a number or a
        (low, high) pair.
      dilation: the filter's dilation; one for all spatial dimensions, or one for each.
      groups: the number of groups that the channels are split into.
      dimension_numbers: None (NHWC, HWIO, NHWC and the like), or as in ``jax.lax.conv_general_dilated``.
      activation: None, "relu" (its gradient at 0 is 0; not for complex x), or a function of y.
      precision: as in ``conv_general_dilated``.

    Returns:
      y, of x's dtype.

    Raises:
      TypeError: dtypes that differ or are not supported, or an argument of the wrong kind.
      ValueError: an argument whose length, size or value does not fit.
    """
    x, w = arrays(x=x, w=w)
    spec, pairs = layer_spec(
        x.shape, w.shape, ("x", "w"), stride, padding, 1, dilation, groups, dimension_numbers, precision
    )
    if b is not None:
        _, b = arrays(x=x, b=b)
        check_bias(b.shape, w.shape[spec.dimensions.w[0]])
    relu = isinstance(activation, str) and activation == "relu"
    if not (activation is None or relu or callable(activation)):
        raise ValueError(f'activation must be None, "relu" or a function, not {activation!r}')
    if relu and jnp.issubdtype(x.dtype, jnp.complexfloating):
        raise TypeError(f'activation must not be "relu" for complex x, but x is of {x.dtype}')
    if on_kernels(x):
        y = gradients.convolution(x, w, b, relu, spec)
    else:
        y = lax.conv_general_dilated(
            x,
            w,
            [axis.stride for axis in spec.axes],
            pairs,
            rhs_dilation=[axis.filter_dilation for axis in spec.axes],
            dimension_numbers=lax.ConvDimensionNumbers(*spec.dimensions),
            feature_group_count=spec.groups,
            precision=spec.precision,
        )
        y = y if b is None else y + lax.broadcast_in_dim(b, y.shape, (spec.y_channel,))
        y = jax.nn.relu(y) if relu else y
    return activation(y) if callable(activation) else y


def layer_spec(
    x_shape: tuple[int, ...],
    w_shape: tuple[int, ...],
    names: tuple[str, str],
    stride: int | Sequence[int],
    padding: Any,
    input_dilation: int | Sequence[int],
    dilation: int | Sequence[int],
    groups: int,
    dimension_numbers: Any,
    precision: Any = None,
) -> tuple[ConvSpec, tuple[tuple[int, int], ...]]:
    """The spec and the pads of a layer, whose arguments may be one number for all axes."""
    dims = dimensions(x_shape, w_shape, dimension_numbers, names, channels_last=True)
    axes = len(x_shape) - 2
    check_channels(x_shape, w_shape, dims, groups, (*names, "groups"))
    d = per_axis(input_dilation, axes, "input_dilation")
    if isinstance(padding, str) and any(step != 1 for step in d):
        raise ValueError(f"padding must be given as pairs where input_dilation is not 1, but is {padding!r}")
    return spec_and_pads(
        x_shape,
        w_shape,
        dims,
        per_axis(stride, axes, "stride"),
        symmetric_pads(padding, axes),
        d,
        per_axis(dilation, axes, "dilation"),
        groups,
        precision,
    )


def spec_and_pads(
    x_shape: tuple[int, ...],
    w_shape: tuple[int, ...],
    dims: Dims,
    stride: tuple[int, ...],
    padding: Any,
    input_dilation: tuple[int, ...],
    filter_dilation: tuple[int, ...],
    groups: int,
    precision: Any,
) -> tuple[ConvSpec, tuple[tuple[int, int], ...]]:
    """The spec of a convolution from its checked steps, and the padding in pairs."""
    inputs = [x_shape[d] for d in dims.x[2:]]
    taps = [w_shape[d] for d in dims.w[2:]]
    spans = [dilated(r, f) for r, f in zip(taps, filter_dilation, strict=True)]
    pairs = pads(padding, inputs, spans, stride)
    geometry = conv_geometry(
        inputs,
        taps,
        stride=stride,
        padding=pairs,
        input_dilation=input_dilation,
        filter_dilation=filter_dilation,
        groups=int(groups),
    )
    return ConvSpec(geometry, dims, canonical_precision(precision)), pairs


def _batch_groups_to_features(x: jax.Array, dims: Dims, count: int) -> jax.Array:
    """Moves the batch's groups in front of the channels, which makes them feature groups."""
    batch, channel = dims.x[0], dims.x[1]
    split = (*x.shape[:batch], count, x.shape[batch] // count, *x.shape[batch + 1 :])
    x = jnp.moveaxis(jnp.reshape(x, split), batch, channel)
    return jnp.reshape(x, (*x.shape[:channel], count * x.shape[channel + 1], *x.shape[channel + 2 :]))
