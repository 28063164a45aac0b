"""Batch norm's kernels as JAX primitives: two sum over the positions of each channel, two write them.

x, y and their gradients are [groups, ...] with the channels at ``channel_axis``; what belongs to a channel is
[groups, channels], in float32 for 16-bit numbers. Groups share nothing: they are what ``vmap`` maps over.

The derivatives of the primitives are those of the same formulas in ``jax.numpy``, so that every order and
mode works. The layer's own first derivative is made of the primitives (gradients.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.interpreters import ad

from jax_convgrad.primitives import ffi
from jax_convgrad.primitives.axis_types import varying_alike
from jax_convgrad.primitives.batching import norm_rule
from jax_convgrad.primitives.define import define, shaped
from jax_convgrad.primitives.number_types import converted
from jax_convgrad.primitives.sharding import Factors

ACTIVATIONS = ("none", "relu", "relu6")
"""The activations that the kernels compute together with batch norm."""


def sum_dtype(dtype: Any) -> np.dtype:
    """The dtype of what belongs to the channels of an array of this dtype."""
    return np.dtype(np.float64 if dtype == np.float64 else np.float32)


def moments(x: jax.Array, channel_axis: int) -> tuple[jax.Array, jax.Array]:
    """mean[k] = Σ x / m and var[k] = Σ (x - mean[k])² / m over the m positions of channel k."""
    mean, var = moments_p.bind(x, channel_axis=channel_axis)
    return mean, var


def normalize(
    x: jax.Array, mean: jax.Array, mul: jax.Array, bias: jax.Array, channel_axis: int, activation: str
) -> jax.Array:
    """Y = activation(z), z = (x - mean[k]) · mul[k] + bias[k]."""
    operands = varying_alike(x, mean, mul, bias)
    return normalize_p.bind(*operands, channel_axis=channel_axis, activation=activation)[0]


def norm_sums(
    x: jax.Array,
    dy: jax.Array,
    mean: jax.Array,
    mul: jax.Array,
    bias: jax.Array,
    channel_axis: int,
    activation: str,
) -> tuple[jax.Array, jax.Array]:
    """Σ g and Σ g · (x - mean[k]) over the positions of channel k, with g = dy · activation'(z)."""
    operands = varying_alike(x, dy, mean, mul, bias)
    g, g_centered = norm_sums_p.bind(*operands, channel_axis=channel_axis, activation=activation)
    return g, g_centered


def norm_gradient(
    x: jax.Array,
    dy: jax.Array,
    mean: jax.Array,
    mul: jax.Array,
    bias: jax.Array,
    slope: jax.Array,
    offset: jax.Array,
    channel_axis: int,
    activation: str,
) -> jax.Array:
    """dx = mul[k] · g + slope[k] · (x - mean[k]) + offset[k], with g = dy · activation'(z)."""
    operands = varying_alike(x, dy, mean, mul, bias, slope, offset)
    return norm_gradient_p.bind(*operands, channel_axis=channel_axis, activation=activation)[0]


# ------------------------------------------------------------------------------------ the same with jax.numpy


def _spread(vector: jax.Array, x: Any, channel_axis: int) -> jax.Array:
    """A vector of channels at every position of x."""
    shape = [1] * x.ndim
    shape[0], shape[channel_axis] = vector.shape
    return jnp.reshape(vector, shape)


def _positions(x: Any, channel_axis: int) -> tuple[int, ...]:
    return tuple(d for d in range(1, x.ndim) if d != channel_axis)


def _moments(x: jax.Array, *, channel_axis: int) -> list[jax.Array]:
    x = converted(x, sum_dtype(x.dtype))
    over = _positions(x, channel_axis)
    mean = jnp.mean(x, axis=over)
    centered = x - _spread(mean, x, channel_axis)
    return [mean, jnp.mean(centered * centered, axis=over)]


def _z(x: jax.Array, mean: jax.Array, mul: jax.Array, bias: jax.Array, channel_axis: int) -> jax.Array:
    centered = converted(x, mean.dtype) - _spread(mean, x, channel_axis)
    return centered * _spread(mul, x, channel_axis) + _spread(bias, x, channel_axis)


def _normalize(
    x: jax.Array, mean: jax.Array, mul: jax.Array, bias: jax.Array, *, channel_axis: int, activation: str
) -> list[jax.Array]:
    z = _z(x, mean, mul, bias, channel_axis)
    if activation != "none":
        z = jnp.where(z <= 0, jnp.zeros_like(z), z)
    if activation == "relu6":
        z = jnp.where(z >= 6, jnp.full_like(z, 6), z)
    return [converted(z, x.dtype)]


def _g(
    x: jax.Array,
    dy: jax.Array,
    mean: jax.Array,
    mul: jax.Array,
    bias: jax.Array,
    channel_axis: int,
    activation: str,
) -> jax.Array:
    dy = converted(dy, mean.dtype)
    if activation == "none":
        return dy
    z = _z(x, mean, mul, bias, channel_axis)
    passes = z > 0 if activation == "relu" else (z > 0) & (z < 6)
    return jnp.where(passes, dy, jnp.zeros_like(dy))


def _sums(
    x: jax.Array,
    dy: jax.Array,
    mean: jax.Array,
    mul: jax.Array,
    bias: jax.Array,
    *,
    channel_axis: int,
    activation: str,
) -> list[jax.Array]:
    g = _g(x, dy, mean, mul, bias, channel_axis, activation)
    centered = converted(x, mean.dtype) - _spread(mean, x, channel_axis)
    over = _positions(x, channel_axis)
    return [jnp.sum(g, axis=over), jnp.sum(g * centered, axis=over)]


def _gradient(
    x: jax.Array,
    dy: jax.Array,
    mean: jax.Array,
    mul: jax.Array,
    bias: jax.Array,
    slope: jax.Array,
    offset: jax.Array,
    *,
    channel_axis: int,
    activation: str,
) -> list[jax.Array]:
    g = _g(x, dy, mean, mul, bias, channel_axis, activation)
    centered = converted(x, mean.dtype) - _spread(mean, x, channel_axis)
    of_x = _spread(slope, x, channel_axis) * centered + _spread(offset, x, channel_axis)
    return [converted(_spread(mul, x, channel_axis) * g + of_x, x.dtype)]


# --------------------------------------------------------------------------------------------- the primitives


def _jvp_of(on_lax: Callable[..., Any]) -> Callable[..., Any]:
    """The jvp rule of a primitive with the derivative of ``on_lax``, of the operands that have tangents."""

    def rule(primals: Sequence[Any], tangents: Sequence[Any], *, primitive: Any, **params: Any) -> Any:
        moving = [n for n, tangent in enumerate(tangents) if type(tangent) is not ad.Zero]

        def of_moving(*some: Any) -> Any:
            operands = list(primals)
            for n, operand in zip(moving, some, strict=True):
                operands[n] = operand
            return on_lax(*operands, **params)

        out = primitive.bind(*primals, **params)
        given = [primals[n] for n in moving], [tangents[n] for n in moving]
        return out, jax.jvp(of_moving, *given)[1]

    return rule


def _factors(
    arrays: int, vectors: int, results: int, sums: bool, merge: Any = None
) -> Callable[..., Factors]:
    """Returns how a pass may be split: by channels, groups and positions, over which some passes sum."""

    def factors(*operands: Any, channel_axis: int, **_: Any) -> Factors:
        x = operands[0]
        names: dict[int, str] = {
            0: "b",
            channel_axis: "k",
            **dict.fromkeys(_positions(x, channel_axis)[:1], "n"),
        }
        of_x = tuple(names.get(d, f"n{d}") for d in range(x.ndim))
        of_channels = ("b", "k")
        return Factors(
            (of_x,) * arrays + (of_channels,) * vectors,
            (of_channels if sums else of_x,) * results,
            dict(zip(of_x, x.shape, strict=True)),
            merge=merge,
        )

    return factors


def _merged_moments(results: tuple[jax.Array, ...], names: tuple[str, ...]) -> tuple[jax.Array, ...]:
    """The moments of all devices' numbers, from those of equal parts."""
    mean, var = results
    return merge_moments(mean, var, lambda part: lax.pmean(part, names))


def merge_moments(
    mean: jax.Array, var: jax.Array, average: Callable[[jax.Array], jax.Array]
) -> tuple[jax.Array, jax.Array]:
    """The moments of all parts from those of each, where ``average`` averages over parts of one size.

    A mean of squares minus the square of the mean would lose the digits that both share.
    """
    whole = average(mean)
    apart = mean - whole
    return whole, average(var + apart * apart)


def _define_norm(
    name: str,
    on_lax: Callable[..., Any],
    *,
    arrays: int,
    vectors: int,
    results: int,
    sums: bool,
    merge: Any = None,
) -> Any:
    def shapes(x: Any, channel_axis: int) -> list[tuple[tuple[int, ...], Any]]:
        if sums:
            return [((x.shape[0], x.shape[channel_axis]), sum_dtype(x.dtype))] * results
        return [(x.shape, x.dtype)] * results

    def result(*operands: Any, channel_axis: int, **_: Any) -> list[Any]:
        x = operands[0]
        return [shaped(x, shape, dtype) for shape, dtype in shapes(x, channel_axis)]

    def kernel(platform: str, *operands: Any, channel_axis: int, activation: str = "none") -> Any:
        return list(
            ffi.norm(
                platform,
                name,
                operands[:arrays],
                operands[arrays:],
                shapes(operands[0], channel_axis),
                channel_axis,
                activation,
                sums=sums,
            )
        )

    derivative = _jvp_of(on_lax)
    primitive = define(
        name,
        result,
        kernel,
        on_lax,
        vmap=norm_rule,
        jvp=lambda primals, tangents, **params: derivative(primals, tangents, primitive=primitive, **params),
        factors=_factors(arrays, vectors, results, sums, merge),
        # Over copies of some empty arrays XLA for the CPU divides by zero.
        serves=lambda platform, x, *_, **__: ffi.has_norms(platform) and 0 not in x.shape,
        any_size="n",
        multiple_results=True,
    )
    return primitive


moments_p = _define_norm(
    "norm_moments", _moments, arrays=1, vectors=0, results=2, sums=True, merge=_merged_moments
)
normalize_p = _define_norm("normalize", _normalize, arrays=1, vectors=3, results=1, sums=False)
norm_sums_p = _define_norm("norm_sums", _sums, arrays=2, vectors=3, results=2, sums=True)
norm_gradient_p = _define_norm("norm_gradient", _gradient, arrays=2, vectors=5, results=1, sums=False)
