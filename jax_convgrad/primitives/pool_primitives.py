"""Pooling's kernels as JAX primitives.

Average pooling is linear, and its gradient kernel is its transpose. Max pooling chooses a position in each
window; given the positions its gradient is linear, ``max_pool_grad``, with transpose ``max_pool_select``,
which reads at them.

In the two that take positions, one operand may have fewer images than the other, whose number they divide.
Image n of the result then reads that operand's image n modulo their number. vmap of one operand alone comes
to this, and copies nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import ShapedArray
from jax.interpreters import ad

from jax_convgrad.primitives import complex_form, pool_fallback, pool_parts
from jax_convgrad.primitives.define_pool import define_pool, kernel_of
from jax_convgrad.primitives.pool_spec import PoolSpec

_INT32 = np.dtype(np.int32)


def _pooled(x: Any, *, spec: PoolSpec) -> tuple[int, ...]:
    return spec.pooled(x.shape)


def _unpooled(y: Any, *, spec: PoolSpec) -> tuple[int, ...]:
    return spec.unpooled(y.shape)


def _scattered(dy: Any, position: Any, *, spec: PoolSpec) -> tuple[int, ...]:
    return spec.unpooled(_with_more_images(dy, position, spec).shape)


def _selected(t: Any, position: Any, *, spec: PoolSpec) -> tuple[int, ...]:
    return spec.pooled(_with_more_images(t, position, spec).shape)


def _with_more_images(a: Any, b: Any, spec: PoolSpec) -> Any:
    m, n = a.shape[spec.batch], b.shape[spec.batch]
    return b if m != n and m < n else a


# ------------------------------------------------------------------------------------------------ max pooling


def max_pool(x: jax.Array, spec: PoolSpec) -> jax.Array:
    """y[n,o,c] = max_r x[n,i,c]."""
    return max_pool_p.bind(x, spec=spec)


def max_pool_argmax(x: jax.Array, spec: PoolSpec) -> tuple[jax.Array, jax.Array]:
    """Y and the flat spatial position (int32) of the first maximum of each window, -1 if there is none."""
    y, position = max_pool_argmax_p.bind(x, spec=spec)
    return y, position


def ruled_position(x: jax.Array, spec: PoolSpec, rule: str) -> jax.Array:
    """The flat spatial position (int32) that ``lax``'s derivatives take in each window, -1 if there is none.

    ``rule`` is "select_and_scatter" or "select_and_gather" (pool_fallback.ruled_position). If the maximum is
    a number above -inf both take the first.
    """
    return ruled_position_p.bind(x, spec=spec, rule=rule)


def max_pool_grad(dy: jax.Array, position: jax.Array, spec: PoolSpec) -> jax.Array:
    """dx[n,i,c] = Σ_r dy[n,o,c] where position[n,o,c] = i."""
    return max_pool_grad_p.bind(dy, position, spec=spec)


def max_pool_select(t: jax.Array, position: jax.Array, spec: PoolSpec) -> jax.Array:
    """t[n, position[n,o,c], c], the transpose of ``max_pool_grad``."""
    return max_pool_select_p.bind(t, position, spec=spec)


# A maximum's tangent is the tangent at the chosen position, which itself does not move.


def _max_pool_jvp(primals: Any, tangents: Any, *, spec: PoolSpec) -> Any:
    (y, _), (y_tangent, _) = _max_pool_argmax_jvp(primals, tangents, spec=spec)
    return y, y_tangent


def _max_pool_argmax_jvp(primals: Any, tangents: Any, *, spec: PoolSpec) -> Any:
    (x,), (t,) = primals, tangents
    y, position = max_pool_argmax(x, spec)
    return [y, position], [max_pool_select(ad.instantiate_zeros(t), position, spec), _no_tangent(position)]


def _ruled_position_jvp(primals: Any, tangents: Any, **params: Any) -> Any:
    position = ruled_position(primals[0], **params)
    return position, _no_tangent(position)


def _no_tangent(position: jax.Array) -> ad.Zero:
    return ad.Zero(ShapedArray(position.shape, jax.dtypes.float0))


def _linear_in_first(
    function: Callable[..., jax.Array], transpose: Callable[..., jax.Array]
) -> dict[str, Any]:
    """Derivatives of a function that is linear in its first operand and takes positions as its second."""

    def jvp(primals: Any, tangents: Any, *, spec: PoolSpec) -> Any:
        (first, position), (t, _) = primals, tangents
        return function(first, position, spec), function(ad.instantiate_zeros(t), position, spec)

    def transposed(t: jax.Array, first: Any, position: jax.Array, *, spec: PoolSpec) -> list[Any]:
        result = transpose(t, position, spec)
        batch, shape = spec.batch, first.aval.shape
        if shape[batch] != result.shape[batch]:  # first was read again for each run of as many images
            runs = result.shape[batch] // shape[batch]
            result = jnp.reshape(result, (*shape[:batch], runs, *shape[batch:]))
            result = jnp.sum(result, axis=batch)
        return [result, None]

    return {"jvp": jvp, "transpose": transposed}


_argmax = kernel_of("max_pool_argmax", _pooled, (None, _INT32))

max_pool_p = define_pool(
    "max_pool",
    _pooled,
    kernel_of("max_pool", _pooled),
    pool_fallback.max_pool,
    pool_parts.max_pool,
    jvp=_max_pool_jvp,
)
max_pool_argmax_p = define_pool(
    "max_pool_argmax",
    _pooled,
    lambda *args, **params: _argmax(*args, **params, position_rule="first_maximum"),
    pool_fallback.max_pool_argmax,
    pool_parts.max_pool_argmax,
    (None, _INT32),
    jvp=_max_pool_argmax_jvp,
)
ruled_position_p = define_pool(
    "ruled_position",
    _pooled,
    lambda *args, rule, **params: _argmax(*args, **params, position_rule=rule)[1],
    pool_fallback.ruled_position,
    pool_parts.ruled_position,
    (_INT32,),
    any_size="",
    jvp=_ruled_position_jvp,
)
max_pool_grad_p = define_pool(
    "max_pool_grad",
    _scattered,
    kernel_of("max_pool_grad", _scattered),
    pool_fallback.max_pool_grad,
    pool_parts.max_pool_grad,
    operands=2,
    **_linear_in_first(max_pool_grad, max_pool_select),
)
max_pool_select_p = define_pool(
    "max_pool_select",
    _selected,
    kernel_of("max_pool_select", _selected),
    lambda t, position, *, axes: pool_fallback.max_pool_select(t, position),
    pool_parts.max_pool_select,
    operands=2,
    **_linear_in_first(max_pool_select, max_pool_grad),
)

# -------------------------------------------------------------------------------------------- sums of windows


def avg_pool(x: jax.Array, spec: PoolSpec, count_include_pad: bool) -> jax.Array:
    """y[n,o,c] = Σ_r x[n,i,c] / count(o)."""
    return avg_pool_p.bind(x, spec=spec, count_include_pad=count_include_pad)


def avg_pool_grad(dy: jax.Array, spec: PoolSpec, count_include_pad: bool) -> jax.Array:
    """dx[n,i,c] = Σ_r dy[n,o,c] / count(o)."""
    return avg_pool_grad_p.bind(dy, spec=spec, count_include_pad=count_include_pad)


def sum_pool(x: jax.Array, spec: PoolSpec) -> jax.Array:
    """y[n,o,c] = Σ_r x[n,i,c]."""
    return sum_pool_p.bind(x, spec=spec)


def sum_pool_grad(dy: jax.Array, spec: PoolSpec) -> jax.Array:
    """dx[n,i,c] = Σ_r dy[n,o,c]."""
    return sum_pool_grad_p.bind(dy, spec=spec)


avg_pool_p = define_pool(
    "avg_pool",
    _pooled,
    kernel_of("avg_pool", _pooled, sum=False),
    pool_fallback.avg_pool,
    pool_parts.avg_pool,
    complex_form=complex_form.sums_of_windows,
    transposes=(lambda dy, x, **params: avg_pool_grad(dy, **params),),
)
avg_pool_grad_p = define_pool(
    "avg_pool_grad",
    _unpooled,
    kernel_of("avg_pool_grad", _unpooled, sum=False),
    pool_fallback.avg_pool_grad,
    pool_parts.avg_pool_grad,
    complex_form=complex_form.sums_of_windows,
    transposes=(lambda dx, dy, **params: avg_pool(dx, **params),),
)
sum_pool_p = define_pool(
    "sum_pool",
    _pooled,
    kernel_of("avg_pool", _pooled, count_include_pad=True, sum=True),
    pool_fallback.sum_pool,
    pool_parts.sum_pool,
    any_size="",
    complex_form=complex_form.sums_of_windows,
    transposes=(lambda dy, x, **params: sum_pool_grad(dy, **params),),
)
sum_pool_grad_p = define_pool(
    "sum_pool_grad",
    _unpooled,
    kernel_of("avg_pool_grad", _unpooled, count_include_pad=True, sum=True),
    pool_fallback.sum_pool_grad,
    pool_parts.sum_pool_grad,
    any_size="",
    complex_form=complex_form.sums_of_windows,
    transposes=(lambda dx, dy, **params: sum_pool(dx, **params),),
)
