"""``jax.lax``'s transposed convolution: a convolution of the dilated input, or dgrad of the one undone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
from jax import lax
from jax.typing import ArrayLike, DTypeLike

from jax_convgrad import gradients
from jax_convgrad.geometry import dilated, pads, steps
from jax_convgrad.layers.arguments import arrays, on_kernels, result_dtype
from jax_convgrad.layers.convolution import spec_and_pads
from jax_convgrad.layers.problem import check_channels, dimensions
from jax_convgrad.primitives.conv_spec import Dims
from jax_convgrad.primitives.number_types import converted, for_result


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

    It is a convolution with its input dilated by ``strides``. With ``transpose_kernel`` it is the input
    gradient of the strided convolution by the same filter, and runs as that, without a copy of the filter.

    Args:
      lhs: x, channels last unless ``dimension_numbers`` says otherwise; of a dtype as in
        ``conv_general_dilated``.
      rhs: w, [spatial..., in, out], of the same dtype ([spatial..., out, in] with ``transpose_kernel``).
      strides: one for each spatial dimension; the output is about that many times as large.
      padding: "SAME" or "VALID" of the convolution that this undoes, or a (low, high) pair for each spatial
        dimension, which pads the dilated input, or with ``use_consistent_padding`` the input of the
        convolution undone. Another word that ``conv_general_dilated`` takes pads this convolution itself, and
        needs strides of 1.
      rhs_dilation: one filter dilation for each spatial dimension; None stands for ones.
      dimension_numbers: None (NHWC, HWIO, NHWC and the like), or as in ``conv_general_dilated``.
      transpose_kernel: flip the taps and swap the filter's channel axes, as Keras does.
      precision: as in ``conv_general_dilated``.
      preferred_element_type: as in ``conv_general_dilated``.
      use_consistent_padding: read pairs as strings are read.

    Returns:
      y, of the operands' dtype or of ``preferred_element_type``.

    Raises:
      TypeError: dtypes that differ or are not supported, or an argument of the wrong kind.
      ValueError: an argument whose length, size or value does not fit.
    """
    x, w = arrays(lhs=lhs, rhs=rhs)
    dims = dimensions(x.shape, w.shape, dimension_numbers, ("lhs", "rhs"), channels_last=True)
    axes = x.ndim - 2
    upsampling = steps(strides, axes, "strides")
    filter_dilation = (1,) * axes if rhs_dilation is None else steps(rhs_dilation, axes, "rhs_dilation")
    spans = [dilated(w.shape[d], f) for d, f in zip(dims.w[2:], filter_dilation, strict=True)]
    pairs = _transpose_pads(
        padding, [x.shape[d] for d in dims.x[2:]], spans, upsampling, use_consistent_padding
    )
    if transpose_kernel:
        # w's "out" axis meets x, as in the convolution undone, whose y is this x.
        w_in_out = Dims(dims.x, (dims.w[1], dims.w[0], *dims.w[2:]), dims.y)
    else:
        w_in_out = dims
    check_channels(x.shape, w.shape, w_in_out, 1, ("lhs", "rhs", "feature_group_count"))
    spec, pairs = spec_and_pads(
        x.shape, w.shape, dims, (1,) * axes, pairs, upsampling, filter_dilation, 1, precision
    )
    if not on_kernels(x):
        return lax.conv_transpose(
            x,
            w,
            upsampling,
            pairs,
            filter_dilation,
            lax.ConvDimensionNumbers(*dims),
            transpose_kernel,
            spec.precision,
            preferred_element_type,
        )
    dtype = result_dtype(preferred_element_type, x.dtype)
    x, w, unrounded = for_result(dtype, x, w)
    spec = spec.with_result_dtype(unrounded)
    if transpose_kernel:
        y = gradients.transposed_convolution(x, w, spec.transpose())
    else:
        y = gradients.convolution(x, w, None, False, spec)
    return converted(y, dtype)


def _transpose_pads(
    padding: str | Sequence[tuple[int, int]],
    inputs: Sequence[int],
    spans: Sequence[int],
    strides: tuple[int, ...],
    use_consistent_padding: bool,
) -> tuple[tuple[int, int], ...]:
    """Pads of the dilated input that undo a convolution with the given padding.

    A window of span k at stride s undoes "SAME" with k + s − 2 pads in all and "VALID" with
    k + s − 2 + max(k − s, 0). The low pad is k − 1, or for "SAME" with s < k half of all, rounded up.
    """
    if not isinstance(padding, str):
        pairs = pads(padding, inputs, spans, strides)
        if not use_consistent_padding:
            return pairs
        return tuple((k - 1 - lo, k - 1 - hi) for k, (lo, hi) in zip(spans, pairs, strict=True))
    if padding not in ("SAME", "VALID"):
        if use_consistent_padding or any(step != 1 for step in strides):
            raise ValueError(f'padding must be "SAME", "VALID" or a sequence of pairs, but is {padding!r}')
        return pads(padding, inputs, spans, strides)  # as jax.lax reads it: of the convolution itself
    result = []
    for k, s in zip(spans, strides, strict=True):
        total = k + s - 2 + (max(k - s, 0) if padding == "VALID" else 0)
        low = k - 1 if padding == "VALID" or s > k - 1 else -(-total // 2)
        result.append((low, total - low))
    return tuple(result)
