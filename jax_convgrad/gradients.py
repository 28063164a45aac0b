"""The layers' derivatives: which kernel computes which.

Each layer below is a function of arrays, with a forward pass that says what it keeps, and a backward pass
that is made of kernels:

    y  = fprop(x, w) + b            ∂E/∂x = dgrad(∂E/∂y, w)
                                    ∂E/∂w = wgrad(x, ∂E/∂y)
                                    ∂E/∂b = bgrad(∂E/∂y)

    y  = dgrad(x, w), transposed    ∂E/∂x = fprop(∂E/∂y, w)
                                    ∂E/∂w = wgrad(∂E/∂y, x)

    y  = max_pool(x)                ∂E/∂x = max_pool_grad(∂E/∂y, position of each first maximum)
    y  = avg_pool(x)                ∂E/∂x = avg_pool_grad(∂E/∂y)

    y  = normalize(x, moments(x))   ∂E/∂x = norm_gradient(x, ∂E/∂y), ∂E/∂γ and ∂E/∂β of norm_sums(x, ∂E/∂y)

``spec`` is the layer without its arrays: where inputs, taps and outputs meet (geometry.py), and the order of
the arrays' dimensions. ``bind`` (primitives/binding.py) ties the two passes together with
``jax.custom_vjp``. The backward pass is made of primitives whose derivatives are these kernels again
(primitives/contractions.py), so reverse mode may be applied any number of times.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jax_convgrad.geometry import are_known
from jax_convgrad.primitives import norm_primitives, pool_primitives
from jax_convgrad.primitives.axis_types import Splits
from jax_convgrad.primitives.binding import bind
from jax_convgrad.primitives.contractions import cotangent, dgrad, fprop, wgrad
from jax_convgrad.primitives.conv_spec import ConvSpec
from jax_convgrad.primitives.epilogue import fprop_epilogue
from jax_convgrad.primitives.filter_and_bias import wgrad_bgrad
from jax_convgrad.primitives.pool_spec import PoolSpec

# A backward pass takes the layer's static arguments, what its forward pass kept, and dy = ∂E/∂y.
# ``arrays`` is how many of a layer's arguments are arrays; they come first, the static ones follow.
# ``result_split`` says how y is split over the explicit axes of a device mesh, from how the arrays are.

# --------------------------------------------------------------------------- y = activation(fprop(x, w) + b)


def _convolution(x: jax.Array, w: jax.Array, b: jax.Array | None, relu: bool, spec: ConvSpec) -> jax.Array:
    """y[n,o,k] = Σ_{r,c} x[n,i,c] · w[r,c,k], plus b[k] if b is given, then max(y, 0) if ``relu``.

    A spec with a ``result_dtype`` takes neither b nor relu.
    """
    return _convolution_fwd(x, w, b, relu, spec)[0]


def _convolution_fwd(x: Any, w: Any, b: Any, relu: bool, spec: ConvSpec) -> Any:
    if spec.result_dtype is not None:
        return fprop(x, w, spec), (x, w, b, None)
    y = fprop_epilogue(x, w, b, relu, spec)
    return y, (x, w, b, y if relu else None)


def _convolution_bwd(relu: bool, spec: ConvSpec, kept: Any, dy: Any) -> Any:
    x, w, b, y = kept
    if relu:
        dy = jnp.where(y > 0, dy, 0)  # the gradient of relu at 0 is 0, as in jax.nn.relu
    dx = cotangent(dgrad, dy, w, x.dtype, spec)
    if b is None:
        return dx, cotangent(wgrad, x, dy, w.dtype, spec), None
    return dx, *wgrad_bgrad(x, dy, spec)  # dw and db are sums over the same dy, in one call


convolution = bind(
    _convolution,
    _convolution_fwd,
    _convolution_bwd,
    arrays=3,
    result_split=lambda splits, relu, spec: spec.y_sharding(splits[0], splits[1]),
)

# ------------------------------------------------------------------------------- y = dgrad(x, w), transposed


def _transposed_convolution(x: jax.Array, w: jax.Array, spec: ConvSpec) -> jax.Array:
    """y[n,i,c] = Σ_{r,k} x[n,o,k] · w[r,c,k], over the ``spec`` of the convolution undone."""
    return dgrad(x, w, spec)


def _transposed_fwd(x: Any, w: Any, spec: ConvSpec) -> Any:
    return dgrad(x, w, spec), (x, w)


def _transposed_bwd(spec: ConvSpec, kept: Any, dy: Any) -> Any:
    x, w = kept
    dx = cotangent(fprop, dy, w, x.dtype, spec)
    dw = cotangent(wgrad, dy, x, w.dtype, spec)
    return dx, dw


transposed_convolution = bind(
    _transposed_convolution,
    _transposed_fwd,
    _transposed_bwd,
    arrays=2,
    result_split=lambda splits, spec: spec.x_sharding(*splits),
)

# --------------------------------------------------------------------------------------------------- pooling


def _max_pool(x: jax.Array, spec: PoolSpec) -> jax.Array:
    """y[n,o,c] = max_r x[n,i,c]."""
    return pool_primitives.max_pool(x, spec)


def _max_pool_fwd(x: Any, spec: PoolSpec) -> Any:
    return pool_primitives.max_pool_argmax(x, spec)


def _max_pool_bwd(spec: PoolSpec, position: Any, dy: Any) -> Any:
    return (pool_primitives.max_pool_grad(dy, position, spec),)


max_pool = bind(
    _max_pool,
    _max_pool_fwd,
    _max_pool_bwd,
    arrays=1,
    result_split=lambda splits, spec: spec.pooled_sharding(splits[0]),
)


def _avg_pool(x: jax.Array, spec: PoolSpec, count_include_pad: bool) -> jax.Array:
    """y[n,o,c] = Σ_r x[n,i,c] / count(o)."""
    return pool_primitives.avg_pool(x, spec, count_include_pad)


def _avg_pool_fwd(x: Any, spec: PoolSpec, count_include_pad: bool) -> Any:
    return pool_primitives.avg_pool(x, spec, count_include_pad), None


def _avg_pool_bwd(spec: PoolSpec, count_include_pad: bool, _: None, dy: Any) -> Any:
    return (pool_primitives.avg_pool_grad(dy, spec, count_include_pad),)


avg_pool = bind(
    _avg_pool,
    _avg_pool_fwd,
    _avg_pool_bwd,
    arrays=1,
    result_split=lambda splits, spec, _: spec.pooled_sharding(splits[0]),
)

# ------------------------------------------------------------ y = activation(γ · (x - mean) / √(var + ε) + β)


@dataclass(frozen=True)
class NormSpec:
    """A batch norm without its arrays. ``axis_groups`` are groups of indices along ``axis_name``."""

    channel_axis: int
    epsilon: float
    activation: str
    axis_name: Any = None
    axis_groups: tuple[tuple[int, ...], ...] | None = None

    def over_devices(self, reduce: Any, value: Any) -> Any:
        """``lax.psum`` or ``lax.pmean`` over the named axis."""
        groups = None if self.axis_groups is None else [list(group) for group in self.axis_groups]
        return reduce(value, self.axis_name, axis_index_groups=groups)


# The primitives' operands have one more dimension in front.


def _normalized(x: Any, mean: Any, var: Any, scale: Any, bias: Any, spec: NormSpec) -> jax.Array:
    """y[n,o,k] = activation((x[n,o,k] - mean[k]) · γ[k] / √(var[k] + ε) + β[k]), with given statistics."""
    return _normalized_fwd(x, mean, var, scale, bias, spec)[0]


def _normalized_fwd(x: Any, mean: Any, var: Any, scale: Any, bias: Any, spec: NormSpec) -> Any:
    inv = lax.rsqrt(var + spec.epsilon)
    mul = inv * scale
    y = norm_primitives.normalize(
        x[None], mean[None], mul[None], bias[None], spec.channel_axis + 1, spec.activation
    )
    return y[0], (x, mean, inv, mul, bias)


def _sums(x: Any, dy: Any, mean: Any, mul: Any, bias: Any, spec: NormSpec) -> tuple[jax.Array, jax.Array]:
    """Σ g and Σ g · (x - mean[k]) over the positions of each channel, where g = dy · activation'."""
    g, g_centered = norm_primitives.norm_sums(
        x[None], dy[None], mean[None], mul[None], bias[None], spec.channel_axis + 1, spec.activation
    )
    return g[0], g_centered[0]


def _of_x(
    x: Any, dy: Any, mean: Any, mul: Any, bias: Any, slope: Any, offset: Any, spec: NormSpec
) -> jax.Array:
    """mul[k] · g + slope[k] · (x - mean[k]) + offset[k]."""
    return norm_primitives.norm_gradient(
        x[None],
        dy[None],
        mean[None],
        mul[None],
        bias[None],
        slope[None],
        offset[None],
        spec.channel_axis + 1,
        spec.activation,
    )[0]


def _normalized_bwd(spec: NormSpec, kept: Any, dy: Any) -> Any:
    x, mean, inv, mul, bias = kept
    g, g_centered = _sums(x, dy, mean, mul, bias, spec)
    zero = jnp.zeros_like(mean)
    dx = _of_x(x, dy, mean, mul, bias, zero, zero, spec)
    return dx, -mul * g, -0.5 * inv**2 * mul * g_centered, inv * g_centered, g


normalized = bind(
    _normalized,
    _normalized_fwd,
    _normalized_bwd,
    arrays=5,
    result_split=lambda splits, spec: splits[0],
)


def _batch_norm(x: Any, scale: Any, bias: Any, spec: NormSpec) -> tuple[jax.Array, jax.Array, jax.Array]:
    """``normalized`` with the moments of x itself; y, and these moments, which have no gradient."""
    return _batch_norm_fwd(x, scale, bias, spec)[0]


def _batch_norm_fwd(x: Any, scale: Any, bias: Any, spec: NormSpec) -> Any:
    means, variances = norm_primitives.moments(x[None], spec.channel_axis + 1)
    mean, var = means[0], variances[0]
    if spec.axis_name is not None:
        mean, var = norm_primitives.merge_moments(mean, var, lambda part: spec.over_devices(lax.pmean, part))
    y, kept = _normalized_fwd(x, mean, var, scale, bias, spec)
    return (y, lax.stop_gradient(mean), lax.stop_gradient(var)), kept


def _batch_norm_bwd(spec: NormSpec, kept: Any, cotangents: Any) -> Any:
    """∂E/∂x = γ/σ · (g - mean(g) - x̂ · mean(g · x̂)), with x̂ = (x - mean)/σ and means over all devices' x."""
    x, mean, inv, mul, bias = kept
    dy = cotangents[0]
    g, g_centered = _sums(x, dy, mean, mul, bias, spec)
    count = jnp.asarray(_per_channel(x, spec.channel_axis)).astype(mean.dtype)
    all_g, all_g_centered = g, g_centered
    if spec.axis_name is not None:
        all_g, all_g_centered = spec.over_devices(lax.psum, (g, g_centered))
        count = count * spec.over_devices(lax.psum, 1)
    slope, offset = -mul * inv**2 * (all_g_centered / count), -mul * (all_g / count)
    dx = _of_x(x, dy, mean, mul, bias, slope, offset, spec)
    return dx, inv * g_centered, g


def _per_channel(x: Any, channel_axis: int) -> Any:
    """How many numbers each channel has, maybe a symbol."""
    count = 1
    for axis, size in enumerate(x.shape):
        if axis != channel_axis:
            count = count * size
    return float(count) if are_known([count]) else count


batch_norm = bind(
    _batch_norm,
    _batch_norm_fwd,
    _batch_norm_bwd,
    arrays=3,
    result_split=lambda splits, spec: Splits(
        (splits[0], (splits[0][spec.channel_axis],), (splits[0][spec.channel_axis],))
    ),
    both_modes=False,
)
