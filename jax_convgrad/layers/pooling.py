"""Max and average pooling with the signatures of ``flax.linen``: arguments in, a checked ``PoolSpec`` out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jax_convgrad import gradients
from jax_convgrad.geometry import Axis, are_known, axis_of, dilated, pads, steps
from jax_convgrad.layers.arguments import arrays
from jax_convgrad.primitives import pool_fallback, pool_primitives
from jax_convgrad.primitives.axis_types import Split, rows_split, with_axis_types
from jax_convgrad.primitives.number_types import NUMBERS, REAL
from jax_convgrad.primitives.pool_spec import PoolSpec


def max_pool(
    inputs: ArrayLike,
    window_shape: Sequence[int],
    strides: Sequence[int] | None = None,
    padding: str | Sequence[tuple[int, int]] = "VALID",
    window_dilation: Sequence[int] | None = None,
    *,
    return_positions: bool = False,
) -> Any:
    """The maximum of each window: y[n,o,c] = max_r x[n,i,c].

    The gradient goes to the **first** maximum of each window in row-major order, which is ``jax.lax``'s rule
    too. If windows overlap, an input collects from each that chose it. Padding is never the maximum. NaN is
    larger than every number. A window that lies on padding only gives -inf and no gradient.

    The values are always ``jax.lax.reduce_window``'s (+0 and -0 are equal; this function returns the first
    one, lax +0). The gradient differs from lax's in two cases. In a window with a NaN the gradient here goes
    to the first NaN. In lax it goes to the first maximum behind the last NaN, padding included as -inf, where
    it is lost; if nothing comes behind the last NaN, it goes to that NaN. In a window whose maximum is -inf
    the gradient here goes to the first -inf of the input. In lax it goes to padding if that comes first, and
    is lost. (Under ``install()`` lax's own calls keep lax's rule.)

    Integers, bool and 8-bit floats are pooled by ``jax.lax``, and give flax's values.

    Args:
      inputs: [..., spatial..., C] of f32, f64, bf16, f16, f8, integers or bool; any number of leading batch
        dimensions.
      window_shape: window sizes, one for each spatial dimension; with more than 3 ``jax.lax`` computes.
      strides: steps between windows; None stands for ones, as in flax.
      padding: "SAME", "SAME_LOWER", "VALID" or a (low, high) pair for each spatial dimension.
      window_dilation: steps between neighbours in a window; None stands for ones.
      return_positions: return the position of each maximum too, for ``max_unpool``.

    Returns:
      [..., output spatial..., C] of the inputs' dtype. With ``return_positions`` a pair of that and the
      positions, int32 of the same shape: the flat index of each window's first maximum over the spatial
      dimensions of the input, in row-major order (i0·I1 + i1 in two dimensions), and -1 if a window lies on
      padding only.

    Raises:
      TypeError: the inputs are complex, or an argument is of the wrong kind.
      ValueError: an argument's length or value does not fit.
    """
    x, axes = _prepare(None, inputs, window_shape, strides, padding, window_dilation)
    if jnp.issubdtype(x.dtype, jnp.complexfloating):
        raise TypeError(f"inputs must be real numbers, because others have no maximum, not {x.dtype}")
    on_kernels = x.dtype.name in REAL
    spec = PoolSpec.channels_last(axes)
    if return_positions and on_kernels:
        return _over_leading(lambda x: pool_primitives.max_pool_argmax(x, spec), x, axes)
    if return_positions:
        return _over_leading(lambda x: pool_fallback.max_pool_argmax(x, axes=axes), x, axes)
    if not on_kernels:
        return _over_leading(lambda x: pool_fallback.max_pool(x, axes=axes), x, axes)
    return _over_leading(lambda x: gradients.max_pool(x, spec), x, axes)


def avg_pool(
    inputs: ArrayLike,
    window_shape: Sequence[int],
    strides: Sequence[int] | None = None,
    padding: str | Sequence[tuple[int, int]] = "VALID",
    count_include_pad: bool = True,
    window_dilation: Sequence[int] | None = None,
) -> jax.Array:
    """The mean of each window: y[n,o,c] = Σ_r x[n,i,c] / count(o).

    The sum runs in f32 for bf16 and f16. Its gradient is dx[n,i,c] = Σ_r dy[n,o,c] / count(o).

    Integers and 8-bit floats are pooled by ``jax.lax``, and give flax's values: the sum runs in the inputs'
    dtype, in which it may overflow, and the quotient is a float for integers.

    Args:
      inputs: [..., spatial..., C] of f32, f64, bf16, f16, complex, integers or f8; any number of leading
        batch dimensions.
      window_shape: window sizes, one for each spatial dimension; with more than 3 ``jax.lax`` computes.
      strides: steps between windows; None stands for ones, as in flax.
      padding: "SAME", "SAME_LOWER", "VALID" or a (low, high) pair for each spatial dimension.
      count_include_pad: True if count(o) is the whole window, False if it is only its part on the input. In
        the second case a window that lies on padding only gives NaN, as 0/0 does in flax.
      window_dilation: steps between neighbours in a window; None stands for ones.

    Returns:
      [..., output spatial..., C] of the inputs' dtype; for integers of float32, or of float64 under
      ``jax_enable_x64``, as in flax.

    Raises:
      TypeError: the inputs are bool or have 4 bits or less, or are 8-bit floats without
        ``count_include_pad`` (which flax refuses too); or an argument is of the wrong kind.
      ValueError: an argument's length or value does not fit.
    """
    x, axes = _prepare(None, inputs, window_shape, strides, padding, window_dilation)
    if x.dtype.name not in NUMBERS:
        _check_mean_on_lax(x, bool(count_include_pad))
        return _over_leading(lambda x: _avg_pool_on_lax(x, axes, bool(count_include_pad)), x, axes)
    spec = PoolSpec.channels_last(axes)
    return _over_leading(lambda x: gradients.avg_pool(x, spec, bool(count_include_pad)), x, axes)


def _check_mean_on_lax(x: jax.Array, count_include_pad: bool) -> None:
    if x.dtype == jnp.bool_:
        raise TypeError("inputs must be numbers, because others have no mean, not bool: convert them first")
    if jnp.issubdtype(x.dtype, jnp.integer) and x.dtype.name in ("int2", "int4", "uint2", "uint4"):
        raise TypeError(f"inputs must have 8 bits or more for a mean, not {x.dtype}: convert them first")
    if jnp.issubdtype(x.dtype, jnp.floating) and not count_include_pad:
        raise TypeError(
            f"inputs must not be {x.dtype} where count_include_pad is False, since 8-bit floats do not hold "
            "the counts: convert them first"
        )


def _avg_pool_on_lax(x: jax.Array, axes: tuple[Axis, ...], count_include_pad: bool) -> jax.Array:
    """Flax's formula, with flax's dtypes."""
    total = pool_fallback.sum_pool(x, axes=axes)
    if count_include_pad:
        return total / np.prod([axis.taps for axis in axes])
    return total / pool_fallback.sum_pool(jnp.ones((1, *x.shape[1:-1], 1)), axes=axes)


def _prepare(
    dtypes: Sequence[str] | None,
    inputs: ArrayLike,
    window_shape: Sequence[int],
    strides: Sequence[int] | None,
    padding: str | Sequence[tuple[int, int]],
    window_dilation: Sequence[int] | None,
) -> tuple[jax.Array, tuple[Axis, ...]]:
    """x, and the relation along each of its spatial axes."""
    (x,) = arrays(dtypes, inputs=inputs)
    try:
        rank = len(window_shape)
    except TypeError:
        raise TypeError(f"window_shape must be a sequence of integers, not {window_shape!r}") from None
    if rank < 1:
        raise ValueError(f"window_shape must have an entry, but is {window_shape}")
    if x.ndim < rank + 1:
        raise ValueError(
            f"inputs must have {rank} spatial dimensions for window_shape {tuple(window_shape)} and one of "
            f"channels, but is of shape {x.shape}"
        )
    spatial = x.shape[-rank - 1 : -1]
    if are_known(spatial) and math.prod(spatial) >= 2**31:
        raise ValueError(f"inputs must have fewer than 2**31 positions, but is of shape {x.shape}")
    window = steps(window_shape, rank, "window_shape")
    if math.prod(window) >= 2**31:
        raise ValueError(f"window_shape must have fewer than 2**31 taps, but is {window}")
    stride = (1,) * rank if strides is None else steps(strides, rank, "strides")
    dilation = (1,) * rank if window_dilation is None else steps(window_dilation, rank, "window_dilation")
    spans = [dilated(taps, step) for taps, step in zip(window, dilation, strict=True)]
    axes = tuple(
        axis_of(size, taps, stride=step, pads=pair, input_dilation=1, filter_dilation=apart)
        for size, taps, step, apart, pair in zip(
            spatial, window, stride, dilation, pads(padding, spatial, spans, stride), strict=True
        )
    )
    return x, axes


def _over_leading(pool: Callable[[jax.Array], Any], x: jax.Array, axes: Sequence[Axis]) -> Any:
    """``pool`` of x as [N, spatial..., C], in which N stands for all of x's leading dimensions."""
    rank = len(axes)
    leading = x.shape[: -rank - 1]

    def run(x: jax.Array) -> Any:
        results = pool(jnp.reshape(x, (math.prod(leading), *x.shape[-rank - 1 :])))
        return jax.tree.map(lambda y: jnp.reshape(y, (*leading, *y.shape[1:])), results)

    def result_split(splits: Sequence[Split]) -> Split:
        (split,) = splits
        spatial = range(len(leading), len(leading) + rank)
        rows = rows_split(split, spatial, [axis.output for axis in axes])
        return (*split[: len(leading)], *rows, split[-1])

    return with_axis_types(run, (x,), result_split)
