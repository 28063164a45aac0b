"""Pooling's kernels as JAX primitives.

Average pooling is linear, and its gradient kernel is its transpose. Max pooling chooses a position in each
window; given the positions its gradient is linear, ``max_pool_grad``, with transpose ``max_pool_select``,
which reads at them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching

from jax_convgrad import complex_form, fallback, ffi, pool_parts
from jax_convgrad.batching import pool_rule, position_rule
from jax_convgrad.geometry import Axis
from jax_convgrad.lowering import define_primitive, shaped
from jax_convgrad.sharding import Factors
from jax_convgrad.spatial_parts import Rows, letter


def _pooled(x: Any, axes: tuple[Axis, ...]) -> tuple[int, ...]:
    return (x.shape[0], *(axis.output for axis in axes), x.shape[-1])


def _unpooled(y: Any, axes: tuple[Axis, ...]) -> tuple[int, ...]:
    return (y.shape[0], *(axis.input for axis in axes), y.shape[-1])


# The two that take positions: one operand may have fewer images than the other, whose number they divide;
# image n of the result then reads that operand's image n modulo their number. vmap of one operand alone
# comes to this, and copies nothing.


def _images(a: Any, b: Any) -> int:
    return a.shape[0] if a.shape[0] == b.shape[0] else max(a.shape[0], b.shape[0])


def _scattered(dy: Any, position: Any, axes: tuple[Axis, ...]) -> tuple[int, ...]:
    return (_images(dy, position), *_unpooled(dy, axes)[1:])


def _selected(t: Any, position: Any, axes: tuple[Axis, ...]) -> tuple[int, ...]:
    return (_images(t, position), *_pooled(t, axes)[1:])


def _factors(operands: int, results: int, rows: Rows) -> Callable[..., Factors]:
    """Pooling treats every image and channel alike: both may be split, and nothing is summed. Rows too.

    Not so images where one operand has fewer, since each of its own belongs to several of the other's.
    """

    def factors(*arrays: Any, **_: Any) -> Factors:
        n = "n" if len({array.shape[0] for array in arrays}) == 1 else None
        labels = (n, *(letter(a) for a in range(arrays[0].ndim - 2)), "c")
        sizes = {"n": arrays[0].shape[0], "c": arrays[0].shape[-1]}
        return Factors((labels,) * operands, (labels,) * results, sizes, rows=rows)

    return factors


_ANY_SIZE = frozenset("nc")
"""Letters whose size pooling's kernels learn when they run only."""

max_pool_p = define_primitive(
    "max_pool",
    lambda x, *, axes: shaped(x, _pooled(x, axes)),
    lambda platform, x, *, axes: ffi.pool(platform, "max_pool", [x], [(_pooled(x, axes), x.dtype)], axes)[0],
    fallback.max_pool,
    factors=_factors(1, 1, pool_parts.max_pool),
    any_size=_ANY_SIZE,
)

max_pool_argmax_p = define_primitive(
    "max_pool_argmax",
    lambda x, *, axes: [shaped(x, _pooled(x, axes)), shaped(x, _pooled(x, axes), np.dtype(np.int32))],
    lambda platform, x, *, axes: ffi.pool(
        platform,
        "max_pool_argmax",
        [x],
        [(_pooled(x, axes), x.dtype), (_pooled(x, axes), np.int32)],
        axes,
        position_rule="first_maximum",
    ),
    fallback.max_pool_argmax,
    factors=_factors(1, 2, pool_parts.max_pool_argmax),
    any_size=_ANY_SIZE,
    multiple_results=True,
)

ruled_position_p = define_primitive(
    "ruled_position",
    lambda x, *, axes, rule: shaped(x, _pooled(x, axes), np.dtype(np.int32)),
    lambda platform, x, *, axes, rule: ffi.pool(
        platform,
        "max_pool_argmax",
        [x],
        [(_pooled(x, axes), x.dtype), (_pooled(x, axes), np.int32)],
        axes,
        position_rule=rule,
    )[1],
    fallback.ruled_position,
    factors=_factors(1, 1, pool_parts.ruled_position),
)

max_pool_grad_p = define_primitive(
    "max_pool_grad",
    lambda dy, position, *, axes: shaped(dy, _scattered(dy, position, axes)),
    lambda platform, dy, position, *, axes: ffi.pool(
        platform, "max_pool_grad", [dy, position], [(_scattered(dy, position, axes), dy.dtype)], axes
    )[0],
    lambda dy, position, *, axes: fallback.max_pool_grad(dy, position, shape=_scattered(dy, position, axes)),
    factors=_factors(2, 1, pool_parts.max_pool_grad),
    any_size=_ANY_SIZE,
)

max_pool_select_p = define_primitive(
    "max_pool_select",
    lambda t, position, *, axes: shaped(t, _selected(t, position, axes)),
    lambda platform, t, position, *, axes: ffi.pool(
        platform, "max_pool_select", [t, position], [(_selected(t, position, axes), t.dtype)], axes
    )[0],
    lambda t, position, *, axes: fallback.max_pool_select(t, position),
    factors=_factors(2, 1, pool_parts.max_pool_select),
    any_size=_ANY_SIZE,
)

avg_pool_p = define_primitive(
    "avg_pool",
    lambda x, *, axes, count_include_pad: shaped(x, _pooled(x, axes)),
    lambda platform, x, *, axes, count_include_pad: complex_form.avg_pool(
        platform, "avg_pool", x, _pooled(x, axes), axes, count_include_pad
    ),
    fallback.avg_pool,
    factors=_factors(1, 1, pool_parts.avg_pool),
    any_size=_ANY_SIZE,
)

avg_pool_grad_p = define_primitive(
    "avg_pool_grad",
    lambda dy, *, axes, count_include_pad: shaped(dy, _unpooled(dy, axes)),
    lambda platform, dy, *, axes, count_include_pad: complex_form.avg_pool(
        platform, "avg_pool_grad", dy, _unpooled(dy, axes), axes, count_include_pad
    ),
    lambda dy, *, axes, count_include_pad: fallback.avg_pool_grad(
        dy, shape=_unpooled(dy, axes), axes=axes, count_include_pad=count_include_pad
    ),
    factors=_factors(1, 1, pool_parts.avg_pool_grad),
    any_size=_ANY_SIZE,
)

# The same without the division.

sum_pool_p = define_primitive(
    "sum_pool",
    lambda x, *, axes: shaped(x, _pooled(x, axes)),
    lambda platform, x, *, axes: complex_form.avg_pool(
        platform, "avg_pool", x, _pooled(x, axes), axes, True, sum=True
    ),
    fallback.sum_pool,
    factors=_factors(1, 1, pool_parts.sum_pool),
)

sum_pool_grad_p = define_primitive(
    "sum_pool_grad",
    lambda dy, *, axes: shaped(dy, _unpooled(dy, axes)),
    lambda platform, dy, *, axes: complex_form.avg_pool(
        platform, "avg_pool_grad", dy, _unpooled(dy, axes), axes, True, sum=True
    ),
    lambda dy, *, axes: fallback.sum_pool_grad(dy, shape=_unpooled(dy, axes), axes=axes),
    factors=_factors(1, 1, pool_parts.sum_pool_grad),
)


def max_pool(x: jax.Array, axes: tuple[Axis, ...]) -> jax.Array:
    """y[n,o,c] = max_r x[n,i,c]."""
    return max_pool_p.bind(x, axes=axes)


def max_pool_argmax(x: jax.Array, axes: tuple[Axis, ...]) -> tuple[jax.Array, jax.Array]:
    """Y and the flat spatial position (int32) of the first maximum of each window, -1 where there is none."""
    y, position = max_pool_argmax_p.bind(x, axes=axes)
    return y, position


def ruled_position(x: jax.Array, axes: tuple[Axis, ...], rule: str) -> jax.Array:
    """The flat spatial position (int32) that ``lax``'s derivatives take in each window, -1 where none.

    ``rule`` is "select_and_scatter" or "select_and_gather" (fallback.ruled_position). Where the maximum is a
    number above -inf both take the first.
    """
    return ruled_position_p.bind(x, axes=axes, rule=rule)


def max_pool_grad(dy: jax.Array, position: jax.Array, axes: tuple[Axis, ...]) -> jax.Array:
    """dx[n,i,c] = Σ_r dy[n,o,c] where position[n,o,c] = i."""
    return max_pool_grad_p.bind(dy, position, axes=axes)


def max_pool_select(t: jax.Array, position: jax.Array, axes: tuple[Axis, ...]) -> jax.Array:
    """t[n, position[n,o,c], c], the transpose of ``max_pool_grad``."""
    return max_pool_select_p.bind(t, position, axes=axes)


def avg_pool(x: jax.Array, axes: tuple[Axis, ...], count_include_pad: bool) -> jax.Array:
    """y[n,o,c] = Σ_r x[n,i,c] / count(o)."""
    return avg_pool_p.bind(x, axes=axes, count_include_pad=count_include_pad)


def avg_pool_grad(dy: jax.Array, axes: tuple[Axis, ...], count_include_pad: bool) -> jax.Array:
    """dx[n,i,c] = Σ_r dy[n,o,c] / count(o)."""
    return avg_pool_grad_p.bind(dy, axes=axes, count_include_pad=count_include_pad)


def sum_pool(x: jax.Array, axes: tuple[Axis, ...]) -> jax.Array:
    """y[n,o,c] = Σ_r x[n,i,c]."""
    return sum_pool_p.bind(x, axes=axes)


def sum_pool_grad(dy: jax.Array, axes: tuple[Axis, ...]) -> jax.Array:
    """dx[n,i,c] = Σ_r dy[n,o,c]."""
    return sum_pool_grad_p.bind(dy, axes=axes)


# A maximum's tangent is the tangent at the chosen position, which itself does not move.


def _max_pool_jvp(primals: Any, tangents: Any, *, axes: tuple[Axis, ...]) -> Any:
    (x,), (t,) = primals, tangents
    y, position = max_pool_argmax(x, axes)
    return y, max_pool_select(ad.instantiate_zeros(t), position, axes)


def _max_pool_argmax_jvp(primals: Any, tangents: Any, *, axes: tuple[Axis, ...]) -> Any:
    (x,), (t,) = primals, tangents
    y, position = max_pool_argmax(x, axes)
    y_tangent = max_pool_select(ad.instantiate_zeros(t), position, axes)
    return [y, position], [y_tangent, ad.Zero(ShapedArray(position.shape, jax.dtypes.float0))]


def _ruled_position_jvp(primals: Any, tangents: Any, *, axes: tuple[Axis, ...], rule: str) -> Any:
    position = ruled_position(primals[0], axes, rule)
    return position, ad.Zero(ShapedArray(position.shape, jax.dtypes.float0))


ad.primitive_jvps[ruled_position_p] = _ruled_position_jvp
ad.primitive_jvps[max_pool_p] = _max_pool_jvp
ad.primitive_jvps[max_pool_argmax_p] = _max_pool_argmax_jvp


def _linear_in_first(primitive: Primitive, transpose: Callable[..., jax.Array]) -> None:
    """Derivatives of a primitive that is linear in its first operand and takes positions as its second."""
    ad.defjvp(primitive, lambda t, first, position, **params: primitive.bind(t, position, **params), None)

    def rule(t: jax.Array, first: Any, position: jax.Array, **params: Any) -> list[Any]:
        result = transpose(t, position, **params)
        images = first.aval.shape[0]
        if images != result.shape[0]:  # first was read again for each run of as many images
            result = jnp.sum(jnp.reshape(result, (result.shape[0] // images, *first.aval.shape)), axis=0)
        return [result, None]

    ad.primitive_transposes[primitive] = rule


_linear_in_first(max_pool_grad_p, max_pool_select)
_linear_in_first(max_pool_select_p, max_pool_grad)
ad.deflinear2(avg_pool_p, lambda t, x, **params: [avg_pool_grad(t, **params)])
ad.deflinear2(avg_pool_grad_p, lambda t, dy, **params: [avg_pool(t, **params)])
ad.deflinear2(sum_pool_p, lambda t, x, **params: [sum_pool_grad(t, **params)])
ad.deflinear2(sum_pool_grad_p, lambda t, dy, **params: [sum_pool(t, **params)])

for _of_one_operand in (
    max_pool_p,
    max_pool_argmax_p,
    ruled_position_p,
    avg_pool_p,
    avg_pool_grad_p,
    sum_pool_p,
    sum_pool_grad_p,
):
    batching.primitive_batchers[_of_one_operand] = pool_rule(_of_one_operand)
for _at_positions in (max_pool_grad_p, max_pool_select_p):
    batching.primitive_batchers[_at_positions] = position_rule(_at_positions)
