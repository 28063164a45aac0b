"""Batch norm: arguments in, a checked ``NormSpec`` out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jax_convgrad import gradients
from jax_convgrad.gradients import NormSpec
from jax_convgrad.layers.arguments import arrays
from jax_convgrad.primitives.norm_primitives import ACTIVATIONS, sum_dtype
from jax_convgrad.primitives.number_types import REAL, converted


class BatchStatistics(NamedTuple):
    """The statistics of a batch norm's channels: their means and their biased variances, each [C]."""

    mean: jax.Array
    var: jax.Array


def batch_norm(
    x: ArrayLike,
    scale: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    running: Any = None,
    *,
    use_running_average: bool = False,
    momentum: float = 0.99,
    epsilon: float = 1e-5,
    axis: int = -1,
    axis_name: Any = None,
    axis_index_groups: Sequence[Sequence[int]] | None = None,
    activation: str | None = None,
) -> tuple[jax.Array, BatchStatistics]:
    """Batch norm with its activation: y = activation(γ[k] · (x - mean[k]) / √(var[k] + ε) + β[k]).

    In training mean and var are those of x itself, over all of its dimensions but the channels:
    mean[k] = Σ x / m and var[k] = Σ (x - mean[k])² / m, where m is how many numbers a channel has. With
    x̂ = (x - mean)/√(var + ε), g = ∂E/∂y · activation' and means over the same m numbers, the gradients are
    ∂E/∂x = γ/√(var + ε) · (g - mean(g) - x̂ · mean(g · x̂)), ∂E/∂γ = Σ g · x̂ and ∂E/∂β = Σ g.

    Each direction is two passes over the activations: one that sums, one that writes. The sums do not depend
    on the number of threads, and var keeps its digits however far mean is from zero.

    ```python
    import jax.numpy as jnp
    from jax_convgrad import batch_norm

    x = jnp.arange(2.0 * 4 * 4 * 3).reshape(2, 4, 4, 3)
    scale, bias = jnp.ones(3), jnp.zeros(3)
    running = jnp.zeros(3), jnp.ones(3)
    y, running = batch_norm(x, scale, bias, running, activation="relu")
    y, _ = batch_norm(x, scale, bias, running, use_running_average=True)  # to evaluate the model
    ```

    Inside ``vmap``, ``pmap`` or ``shard_map`` the statistics are those of each example's or device's own
    part, unless ``axis_name`` names the axis. Under ``jit`` with a sharded x they are those of the whole x.

    Reverse mode works in every order. Forward mode (``jax.jvp``) needs ``jax_convgrad.forward_mode()`` in
    training. Orders above the first are computed by ``jax.numpy``, whose variance is that of two passes.

    Args:
      x: f32, f64, bf16 or f16, of any rank.
      scale: γ, [C] of any real dtype; None stands for ones.
      bias: β, [C] of any real dtype; None stands for zeros.
      running: the running statistics, a pair (mean, var) of [C] each.
      use_running_average: normalise with ``running`` and not with x's own statistics, as at evaluation.
      momentum: how much of ``running`` stays: new = momentum · old + (1 - momentum) · x's, as in
        ``flax.linen.BatchNorm``. (PyTorch's momentum is 1 minus this one, and its running variance is
        unbiased.)
      epsilon: ε.
      axis: the dimension of the channels.
      axis_name: the named axes of ``vmap``, ``pmap`` or ``shard_map`` over which statistics are averaged.
      axis_index_groups: groups of indices along ``axis_name``, each with statistics of its own.
      activation: None, "relu", "relu6" or "silu". The first two are part of the kernels, in both directions
        (at the kinks their derivative is 0).

    Returns:
      y, of x's shape and dtype, and the statistics: x's own if ``running`` is None, otherwise the new running
      ones, which are ``running`` itself with ``use_running_average``. Statistics are f32, or f64 if x is, or
      of the dtype of ``running``; no gradient flows through x's own statistics that are returned.

    Raises:
      TypeError: an argument has a wrong dtype or is of the wrong kind.
      ValueError: an argument's shape or value does not fit.
    """
    (x,) = arrays(REAL, x=x)
    channel_axis = _channel_axis(axis, x)
    check_activation(activation)
    if axis_index_groups is not None and axis_name is None:
        raise ValueError("axis_index_groups needs the axis_name that it groups")
    wide = sum_dtype(x.dtype)
    channels = x.shape[channel_axis]
    gamma = jnp.ones(channels, wide) if scale is None else _vector("scale", scale, channels, wide)
    beta = jnp.zeros(channels, wide) if bias is None else _vector("bias", bias, channels, wide)
    given = None if running is None else _running(running, channels)
    spec = NormSpec(
        channel_axis,
        _number("epsilon", epsilon),
        activation if activation in ACTIVATIONS else "none",
        axis_name if not isinstance(axis_name, list) else tuple(axis_name),
        None if axis_index_groups is None else tuple(tuple(map(int, group)) for group in axis_index_groups),
    )
    if use_running_average:
        if given is None:
            raise ValueError("use_running_average needs the running statistics: running=(mean, var)")
        mean, var = (converted(vector, wide) for vector in given)
        y, statistics = gradients.normalized(x, mean, var, gamma, beta, spec), given
    else:
        y, mean, var = gradients.batch_norm(x, gamma, beta, spec)
        statistics = BatchStatistics(mean, var)
        if given is not None:
            kept = _number("momentum", momentum)
            statistics = BatchStatistics(
                *(
                    converted(kept * converted(old, wide) + (1 - kept) * new, old.dtype)
                    for old, new in zip(given, statistics, strict=True)
                )
            )
    return (jax.nn.silu(y) if activation == "silu" else y), statistics


def check_activation(activation: Any) -> None:
    """Raises ValueError if batch norm has no such activation."""
    if activation not in (None, "silu", *ACTIVATIONS[1:]):
        raise ValueError(f'activation must be None, "relu", "relu6" or "silu", not {activation!r}')


def _channel_axis(axis: Any, x: jax.Array) -> int:
    try:
        place = axis.__index__()
    except (AttributeError, TypeError):
        raise TypeError(f"axis must be an integer, not {axis!r}") from None
    if not -x.ndim <= place < x.ndim:
        raise ValueError(f"axis must be a dimension of x, which is of shape {x.shape}, not {axis}")
    return place % x.ndim


def _number(name: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError, jax.errors.ConcretizationTypeError):
        raise TypeError(f"{name} must be a number, not {value!r}") from None
    if not math.isfinite(number) or number < 0:
        raise ValueError(f"{name} must be a finite number of at least 0, not {value!r}")
    return number


def _vector(name: str, value: ArrayLike, channels: Any, dtype: Any) -> jax.Array:
    """An argument with a number for each channel."""
    if not (hasattr(value, "dtype") and hasattr(value, "shape")):
        raise TypeError(f"{name} must be an array, not {type(value).__name__}")
    vector = jnp.asarray(value)
    if not jnp.issubdtype(vector.dtype, jnp.floating):
        raise TypeError(f"{name} must be of a floating dtype, not {vector.dtype}")
    if vector.shape != (channels,):
        raise ValueError(f"{name} must be of shape ({channels},), one number per channel, not {vector.shape}")
    return converted(vector, dtype or vector.dtype)


def _running(running: Any, channels: Any) -> BatchStatistics:
    try:
        mean, var = running
    except (TypeError, ValueError):
        raise TypeError(f"running must be a pair (mean, var), not {type(running).__name__}") from None
    return BatchStatistics(
        _vector("running mean", mean, channels, None), _vector("running var", var, channels, None)
    )
