"""``max_unpool``: puts numbers back to the positions from which max pooling took its maxima."""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jax.export import is_symbolic_dim
from jax.typing import ArrayLike

from jax_convgrad.geometry import Axis, are_known, dilated, output_size, padded, pads, size_of, steps
from jax_convgrad.layers.arguments import arrays
from jax_convgrad.primitives import pool_fallback, pool_primitives
from jax_convgrad.primitives.axis_types import with_axis_types
from jax_convgrad.primitives.number_types import REAL
from jax_convgrad.primitives.pool_spec import PoolSpec


def max_unpool(
    inputs: ArrayLike,
    positions: ArrayLike,
    output_shape: Sequence[int],
    window_shape: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
    padding: str | Sequence[tuple[int, int]] = "VALID",
    window_dilation: Sequence[int] | None = None,
) -> jax.Array:
    """Numbers at the positions that ``max_pool`` gave, zeros elsewhere: x[n,i,c] = Σ_o y[n,o,c] at i.

    It is the gradient of ``max_pool`` as a function by itself, and the partial inverse that decoders such as
    SegNet's are made of. **If positions repeat**, as they may if windows overlap, **the numbers add up**;
    PyTorch's ``max_unpool2d`` keeps one of them. A position off the output (below 0, or beyond its last) adds
    nothing.

    With ``window_shape`` (and ``strides``, ``padding``, ``window_dilation``: those of the ``max_pool`` that
    gave the positions) it runs on pooling's kernels, and a position outside of its own window adds nothing
    either. Without it each position may be anywhere, and ``jax.lax`` scatters.

    It is linear in ``inputs``, and differentiable in them any number of times, also in forward mode.

    Args:
      inputs: [..., spatial..., C] of f32, f64, bf16, f16, complex or integers.
      positions: int32 of the inputs' shape: flat row-major indices over ``output_shape``.
      output_shape: the spatial sizes of the result, those of what was pooled.
      window_shape: None, or the sizes of the windows that were pooled, over at most 3 dimensions.
      strides: the windows' strides, with ``window_shape`` only; None stands for ones.
      padding: the windows' padding, in any form that ``max_pool`` takes, with ``window_shape`` only.
      window_dilation: the windows' dilation, with ``window_shape`` only; None stands for ones.

    Returns:
      [..., output_shape..., C] of the inputs' dtype.

    Raises:
      TypeError: inputs are bool, positions are not int32, or an argument is of the wrong kind.
      ValueError: the shapes of inputs, positions, windows and output do not fit, or windows are described
        without their ``window_shape``.
    """
    (y,) = arrays(None, inputs=inputs)
    (position,) = arrays(None, positions=positions)
    if position.dtype != jnp.int32:
        raise TypeError(f"positions must be of dtype int32, not {position.dtype}")
    if y.dtype == jnp.bool_:
        raise TypeError("inputs must be numbers, because others do not add up, not bool")
    try:
        rank = len(output_shape)
    except TypeError:
        raise TypeError(f"output_shape must be a sequence of integers, not {output_shape!r}") from None
    if any(map(is_symbolic_dim, output_shape)):
        shape = tuple(map(size_of, output_shape))
    else:
        shape = steps(output_shape, rank, "output_shape", least=0)
    if rank < 1 or y.ndim < rank + 1:
        raise ValueError(
            f"inputs must have a spatial dimension for each entry of output_shape {shape} and one of "
            f"channels, but is of shape {y.shape}"
        )
    if position.shape != y.shape:
        raise ValueError(f"positions must be of inputs' shape {y.shape}, but is of {position.shape}")
    if are_known(shape) and math.prod(shape) >= 2**31:
        raise ValueError(f"output_shape must have fewer than 2**31 positions, but is {shape}")
    axes = None
    if window_shape is None:
        for name, given, default in (
            ("strides", strides, None),
            ("padding", padding, "VALID"),
            ("window_dilation", window_dilation, None),
        ):
            if given is not default and given != default:
                raise ValueError(f"{name} is of windows, whose window_shape must be given too, but is None")
    else:
        axes = _axes(y.shape[-rank - 1 : -1], shape, window_shape, strides, padding, window_dilation)
    leading = y.shape[: -rank - 1]

    def run(y: jax.Array, position: jax.Array) -> jax.Array:
        images = math.prod(leading)
        y = jnp.reshape(y, (images, *y.shape[-rank - 1 :]))
        position = jnp.reshape(position, y.shape)
        if axes is not None:
            position = _in_own_window(position, axes)
        if axes is not None and y.dtype.name in REAL:
            x = pool_primitives.max_pool_grad(y, position, PoolSpec.channels_last(axes))
        else:
            x = pool_fallback.max_unpool(y, position, shape=(images, *shape, y.shape[-1]))
        return jnp.reshape(x, (*leading, *x.shape[1:]))

    return with_axis_types(
        run, (y, position), lambda splits: (*splits[0][: len(leading)], *(None,) * rank, splits[0][-1])
    )


def _in_own_window(position: jax.Array, axes: Sequence[Axis]) -> jax.Array:
    """Flat positions, with -1 for each that is outside of its own window.

    Without this the gradient would read at any position.
    """
    rest, inside = position, (position >= 0) & (position < jnp.int32(math.prod(axis.input for axis in axes)))
    for d in range(len(axes), 0, -1):
        axis = axes[d - 1]
        output = lax.broadcasted_iota(jnp.int32, position.shape, d)
        rest, i = lax.div(rest, jnp.int32(axis.input)), lax.rem(rest, jnp.int32(axis.input))
        ahead = i - output * axis.stride + jnp.int32(axis.pad_lo)  # of the window's first tap
        reach = min((axis.taps - 1) * axis.filter_dilation, 2**31 - 1)
        inside &= (ahead >= 0) & (ahead <= reach) & (ahead % axis.filter_dilation == 0)
    return jnp.where(inside, position, -1)


def _axes(
    pooled: Sequence[int],
    shape: tuple[int, ...],
    window_shape: Sequence[int],
    strides: Sequence[int] | None,
    padding: str | Sequence[tuple[int, int]],
    window_dilation: Sequence[int] | None,
) -> tuple[Axis, ...]:
    """The relation between what was pooled, of the given shape, and its windows' results."""
    rank = len(shape)
    window = steps(window_shape, rank, "window_shape")
    stride = (1,) * rank if strides is None else steps(strides, rank, "strides")
    apart = (1,) * rank if window_dilation is None else steps(window_dilation, rank, "window_dilation")
    if math.prod(window) >= 2**31:
        raise ValueError(f"window_shape must have fewer than 2**31 taps, but is {window}")
    spans = [dilated(taps, step) for taps, step in zip(window, apart, strict=True)]
    axes = tuple(
        Axis(size, taps, output_size(padded(size, lo, hi), span, step), step, lo, 1, between)
        for size, taps, span, step, between, (lo, hi) in zip(
            shape, window, spans, stride, apart, pads(padding, shape, spans, stride), strict=True
        )
    )
    expected = tuple(axis.output for axis in axes)
    if expected != tuple(pooled):
        raise ValueError(
            f"inputs must have the spatial sizes {expected} of windows {window} over output_shape {shape}, "
            f"but has {tuple(pooled)}"
        )
    return axes
