"""Max and average pooling with the signatures of ``flax.linen``: arguments in, a checked geometry out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jax_convgrad import gradients
from jax_convgrad.arguments import NUMBERS, REAL, arrays
from jax_convgrad.axis_types import Spec, rows_spec, with_axis_types
from jax_convgrad.geometry import Axis, are_known, axis_of, dilated, pads, steps


def max_pool(
    inputs: ArrayLike,
    window_shape: Sequence[int],
    strides: Sequence[int] | None = None,
    padding: str | Sequence[tuple[int, int]] = "VALID",
    window_dilation: Sequence[int] | None = None,
) -> jax.Array:
    """The maximum of each window: y[n,o,c] = max_r x[n,i,c].

    The gradient goes to the **first** maximum of each window in row-major order, which is ``jax.lax``'s rule
    too; where windows overlap an input collects from each that chose it. Padding never is the maximum. NaN is
    the largest of all. A window that lies on padding only gives -inf and no gradient.

    The values are ``jax.lax.reduce_window``'s, always; its gradient differs in two cases. In a window with a
    NaN the gradient here goes to the first NaN, there to some later element. In a window whose maximum is
    -inf it goes to the first -inf of the input here, there to padding where that comes first, and is lost.

    Args:
      inputs: [..., spatial..., C] of f32, f64, bf16 or f16; any number of leading batch dimensions.
      window_shape: window sizes, one a spatial dimension; over more than 3 ``jax.lax`` computes.
      strides: steps between windows; ones where None, as in flax.
      padding: "SAME", "SAME_LOWER", "VALID" or one (low, high) pair a spatial dimension.
      window_dilation: steps between a window's neighbours; ones where None.

    Returns:
      [..., output spatial..., C] of the inputs' dtype.

    Raises:
      TypeError: the dtype is not one of the four, or an argument is of the wrong kind.
      ValueError: an argument's length or value does not fit.
    """
    x, axes = _prepare(REAL, inputs, window_shape, strides, padding, window_dilation)
    return _over_leading(lambda x: gradients.max_pool(x, axes), x, axes)


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

    Args:
      inputs: [..., spatial..., C] of f32, f64, bf16, f16 or complex; any number of leading batch dimensions.
      window_shape: window sizes, one a spatial dimension; over more than 3 ``jax.lax`` computes.
      strides: steps between windows; ones where None, as in flax.
      padding: "SAME", "SAME_LOWER", "VALID" or one (low, high) pair a spatial dimension.
      count_include_pad: whether count(o) is the whole window or only its part on the input. A window that
        lies on padding only then gives NaN, as 0/0 does in flax.
      window_dilation: steps between a window's neighbours; ones where None.

    Returns:
      [..., output spatial..., C] of the inputs' dtype.

    Raises:
      TypeError: the dtype is not one of these, or an argument is of the wrong kind.
      ValueError: an argument's length or value does not fit.
    """
    x, axes = _prepare(NUMBERS, inputs, window_shape, strides, padding, window_dilation)
    return _over_leading(lambda x: gradients.avg_pool(x, axes, bool(count_include_pad)), x, axes)


def _prepare(
    dtypes: Sequence[str],
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


def _over_leading(pool: Callable[[jax.Array], jax.Array], x: jax.Array, axes: Sequence[Axis]) -> jax.Array:
    """``pool`` of x as [N, spatial..., C], where N stands for all of its leading dimensions."""
    rank = len(axes)
    leading = x.shape[: -rank - 1]

    def run(x: jax.Array) -> jax.Array:
        y = pool(jnp.reshape(x, (math.prod(leading), *x.shape[-rank - 1 :])))
        return jnp.reshape(y, (*leading, *y.shape[1:]))

    def result_spec(specs: Sequence[Spec]) -> Spec:
        (spec,) = specs
        spatial = range(len(leading), len(leading) + rank)
        rows = rows_spec(spec, spatial, [axis.output for axis in axes])
        return (*spec[: len(leading)], *rows, spec[-1])

    return with_axis_types(run, (x,), result_spec)
