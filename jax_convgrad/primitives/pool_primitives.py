"""Pooling's kernels as JAX primitives.

Average pooling is linear, and its gradient kernel is its transpose. Max pooling chooses a position in each
window; given the positions its gradient is linear, ``max_pool_grad``, with transpose ``max_pool_select``,
which reads at them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching

from jax_convgrad.geometry import Axis
from jax_convgrad.primitives import complex_form, fallback, ffi, pool_parts
from jax_convgrad.primitives.batching import pool_rule, position_rule
from jax_convgrad.primitives.lowering import define_primitive, shaped
from jax_convgrad.primitives.sharding import Factors
from jax_convgrad.primitives.spatial_parts import Rows, letter

Dimensions = tuple[int, ...]
"""Which dimension of a pooling's arrays plays which part: (batch, channel, spatial...)."""


def channels_last(axes: Sequence[Axis]) -> Dimensions:
    """Those of [N, spatial..., C]."""
    return (0, len(axes) + 1, *range(1, len(axes) + 1))


def _with_sizes(array: Any, sizes: Sequence[Any], dimensions: Dimensions) -> tuple[int, ...]:
    """An array's shape with other spatial sizes."""
    shape = list(array.shape)
    for d, size in zip(dimensions[2:], sizes, strict=True):
        shape[d] = size
    return tuple(shape)


def _pooled(x: Any, axes: tuple[Axis, ...], dimensions: Dimensions) -> tuple[int, ...]:
    return _with_sizes(x, [axis.output for axis in axes], dimensions)


def _unpooled(y: Any, axes: tuple[Axis, ...], dimensions: Dimensions) -> tuple[int, ...]:
    return _with_sizes(y, [axis.input for axis in axes], dimensions)


# The two that take positions: one operand may have fewer images than the other, whose number they divide;
# image n of the result then reads that operand's image n modulo their number. vmap of one operand alone
# comes to this, and copies nothing.


def _more_images(a: Any, b: Any, dimensions: Dimensions) -> Any:
    batch = dimensions[0]
    return b if a.shape[batch] != b.shape[batch] and a.shape[batch] < b.shape[batch] else a


def _scattered(dy: Any, position: Any, axes: tuple[Axis, ...], dimensions: Dimensions) -> tuple[int, ...]:
    return _unpooled(_more_images(dy, position, dimensions), axes, dimensions)


def _selected(t: Any, position: Any, axes: tuple[Axis, ...], dimensions: Dimensions) -> tuple[int, ...]:
    return _pooled(_more_images(t, position, dimensions), axes, dimensions)


def _factors(operands: int, results: int, rows: Rows) -> Callable[..., Factors]:
    """Pooling treats every image and channel alike: both may be split, and nothing is summed. Rows too.

    Not so images where one operand has fewer, since each of its own belongs to several of the other's.
    """

    def factors(*arrays: Any, dimensions: Dimensions, **_: Any) -> Factors:
        batch, channel = dimensions[:2]
        sizes = {"n": arrays[0].shape[batch], "c": arrays[0].shape[channel]}
        labels: list[str | None] = [None] * len(dimensions)
        labels[batch] = "n" if len({array.shape[batch] for array in arrays}) == 1 else None
        labels[channel] = "c"
        for a, d in enumerate(dimensions[2:]):
            labels[d] = letter(a)
        return Factors((tuple(labels),) * operands, (tuple(labels),) * results, sizes, rows=rows)

    return factors


def _native(call: Callable[..., Any]) -> Callable[..., Any]:
    """``call`` with operands channels-last where one is empty.

    They would be copied, and over copies of some empty arrays XLA for the CPU divides by zero.
    """

    def native(platform: str, *operands: Any, dimensions: Dimensions, **params: Any) -> Any:
        if any(0 in operand.shape for operand in operands):
            return _in_order(partial(call, platform))(*operands, dimensions=dimensions, **params)
        return call(platform, *operands, dimensions=dimensions, **params)

    return native


def _in_order(compute: Callable[..., Any]) -> Callable[..., Any]:
    """``compute`` of arrays [N, spatial..., C], for those of other dimensions."""

    def computed(*operands: Any, axes: tuple[Axis, ...], dimensions: Dimensions, **params: Any) -> Any:
        order = (dimensions[0], *dimensions[2:], dimensions[1])
        last = channels_last(axes)
        if dimensions == last:
            return compute(*operands, axes=axes, dimensions=last, **params)
        results = compute(
            *(jnp.transpose(operand, order) for operand in operands), axes=axes, dimensions=last, **params
        )
        places = [order.index(d) for d in range(len(order))]
        return jax.tree.map(lambda result: jnp.transpose(result, places), results)

    return computed


def _on_lax(compute: Callable[..., Any]) -> Callable[..., Any]:
    """One of ``fallback``'s functions, which know [N, spatial..., C] alone, for any dimensions."""
    return _in_order(lambda *operands, dimensions, **params: compute(*operands, **params))


_ANY_SIZE = frozenset("nc")
"""Letters whose size pooling's kernels learn when they run only."""

max_pool_p = define_primitive(
    "max_pool",
    lambda x, *, axes, dimensions: shaped(x, _pooled(x, axes, dimensions)),
    _native(
        lambda platform, x, *, axes, dimensions: ffi.pool(
            platform, "max_pool", [x], [(_pooled(x, axes, dimensions), x.dtype)], axes, dimensions
        )[0]
    ),
    _on_lax(fallback.max_pool),
    factors=_factors(1, 1, pool_parts.max_pool),
    any_size=_ANY_SIZE,
)


def _with_positions(
    platform: str, x: Any, rule: str, axes: tuple[Axis, ...], dimensions: Dimensions
) -> Sequence[Any]:
    shape = _pooled(x, axes, dimensions)
    results = [(shape, x.dtype), (shape, np.int32)]
    return ffi.pool(platform, "max_pool_argmax", [x], results, axes, dimensions, position_rule=rule)


max_pool_argmax_p = define_primitive(
    "max_pool_argmax",
    lambda x, *, axes, dimensions: [
        shaped(x, _pooled(x, axes, dimensions), dtype) for dtype in (None, np.dtype(np.int32))
    ],
    _native(
        lambda platform, x, *, axes, dimensions: _with_positions(
            platform, x, "first_maximum", axes, dimensions
        )
    ),
    _on_lax(fallback.max_pool_argmax),
    factors=_factors(1, 2, pool_parts.max_pool_argmax),
    any_size=_ANY_SIZE,
    multiple_results=True,
)

ruled_position_p = define_primitive(
    "ruled_position",
    lambda x, *, axes, dimensions, rule: shaped(x, _pooled(x, axes, dimensions), np.dtype(np.int32)),
    _native(
        lambda platform, x, *, axes, dimensions, rule: _with_positions(platform, x, rule, axes, dimensions)[1]
    ),
    _on_lax(fallback.ruled_position),
    factors=_factors(1, 1, pool_parts.ruled_position),
)

max_pool_grad_p = define_primitive(
    "max_pool_grad",
    lambda dy, position, *, axes, dimensions: shaped(dy, _scattered(dy, position, axes, dimensions)),
    _native(
        lambda platform, dy, position, *, axes, dimensions: ffi.pool(
            platform,
            "max_pool_grad",
            [dy, position],
            [(_scattered(dy, position, axes, dimensions), dy.dtype)],
            axes,
            dimensions,
        )[0]
    ),
    _in_order(
        lambda dy, position, *, axes, dimensions: fallback.max_pool_grad(
            dy, position, shape=_scattered(dy, position, axes, dimensions)
        )
    ),
    factors=_factors(2, 1, pool_parts.max_pool_grad),
    any_size=_ANY_SIZE,
)

max_pool_select_p = define_primitive(
    "max_pool_select",
    lambda t, position, *, axes, dimensions: shaped(t, _selected(t, position, axes, dimensions)),
    _native(
        lambda platform, t, position, *, axes, dimensions: ffi.pool(
            platform,
            "max_pool_select",
            [t, position],
            [(_selected(t, position, axes, dimensions), t.dtype)],
            axes,
            dimensions,
        )[0]
    ),
    _in_order(lambda t, position, *, axes, dimensions: fallback.max_pool_select(t, position)),
    factors=_factors(2, 1, pool_parts.max_pool_select),
    any_size=_ANY_SIZE,
)

avg_pool_p = define_primitive(
    "avg_pool",
    lambda x, *, axes, dimensions, count_include_pad: shaped(x, _pooled(x, axes, dimensions)),
    _native(
        lambda platform, x, *, axes, dimensions, count_include_pad: complex_form.avg_pool(
            platform, "avg_pool", x, _pooled(x, axes, dimensions), axes, dimensions, count_include_pad
        )
    ),
    _on_lax(fallback.avg_pool),
    factors=_factors(1, 1, pool_parts.avg_pool),
    any_size=_ANY_SIZE,
)

avg_pool_grad_p = define_primitive(
    "avg_pool_grad",
    lambda dy, *, axes, dimensions, count_include_pad: shaped(dy, _unpooled(dy, axes, dimensions)),
    _native(
        lambda platform, dy, *, axes, dimensions, count_include_pad: complex_form.avg_pool(
            platform,
            "avg_pool_grad",
            dy,
            _unpooled(dy, axes, dimensions),
            axes,
            dimensions,
            count_include_pad,
        )
    ),
    _in_order(
        lambda dy, *, axes, dimensions, count_include_pad: fallback.avg_pool_grad(
            dy, shape=_unpooled(dy, axes, dimensions), axes=axes, count_include_pad=count_include_pad
        )
    ),
    factors=_factors(1, 1, pool_parts.avg_pool_grad),
    any_size=_ANY_SIZE,
)

# The same without the division.

sum_pool_p = define_primitive(
    "sum_pool",
    lambda x, *, axes, dimensions: shaped(x, _pooled(x, axes, dimensions)),
    _native(
        lambda platform, x, *, axes, dimensions: complex_form.avg_pool(
            platform, "avg_pool", x, _pooled(x, axes, dimensions), axes, dimensions, True, sum=True
        )
    ),
    _on_lax(fallback.sum_pool),
    factors=_factors(1, 1, pool_parts.sum_pool),
)

sum_pool_grad_p = define_primitive(
    "sum_pool_grad",
    lambda dy, *, axes, dimensions: shaped(dy, _unpooled(dy, axes, dimensions)),
    _native(
        lambda platform, dy, *, axes, dimensions: complex_form.avg_pool(
            platform, "avg_pool_grad", dy, _unpooled(dy, axes, dimensions), axes, dimensions, True, sum=True
        )
    ),
    _in_order(
        lambda dy, *, axes, dimensions: fallback.sum_pool_grad(
            dy, shape=_unpooled(dy, axes, dimensions), axes=axes
        )
    ),
    factors=_factors(1, 1, pool_parts.sum_pool_grad),
)


def max_pool(x: jax.Array, axes: tuple[Axis, ...], dimensions: Dimensions) -> jax.Array:
    """y[n,o,c] = max_r x[n,i,c]."""
    return max_pool_p.bind(x, axes=axes, dimensions=dimensions)


def max_pool_argmax(
    x: jax.Array, axes: tuple[Axis, ...], dimensions: Dimensions
) -> tuple[jax.Array, jax.Array]:
    """Y and the flat spatial position (int32) of the first maximum of each window, -1 where there is none."""
    y, position = max_pool_argmax_p.bind(x, axes=axes, dimensions=dimensions)
    return y, position


def ruled_position(x: jax.Array, axes: tuple[Axis, ...], dimensions: Dimensions, rule: str) -> jax.Array:
    """The flat spatial position (int32) that ``lax``'s derivatives take in each window, -1 where none.

    ``rule`` is "select_and_scatter" or "select_and_gather" (fallback.ruled_position). Where the maximum is a
    number above -inf both take the first.
    """
    return ruled_position_p.bind(x, axes=axes, dimensions=dimensions, rule=rule)


def max_pool_grad(
    dy: jax.Array, position: jax.Array, axes: tuple[Axis, ...], dimensions: Dimensions
) -> jax.Array:
    """dx[n,i,c] = Σ_r dy[n,o,c] where position[n,o,c] = i."""
    return max_pool_grad_p.bind(dy, position, axes=axes, dimensions=dimensions)


def max_pool_select(
    t: jax.Array, position: jax.Array, axes: tuple[Axis, ...], dimensions: Dimensions
) -> jax.Array:
    """t[n, position[n,o,c], c], the transpose of ``max_pool_grad``."""
    return max_pool_select_p.bind(t, position, axes=axes, dimensions=dimensions)


def avg_pool(
    x: jax.Array, axes: tuple[Axis, ...], dimensions: Dimensions, count_include_pad: bool
) -> jax.Array:
    """y[n,o,c] = Σ_r x[n,i,c] / count(o)."""
    return avg_pool_p.bind(x, axes=axes, dimensions=dimensions, count_include_pad=count_include_pad)


def avg_pool_grad(
    dy: jax.Array, axes: tuple[Axis, ...], dimensions: Dimensions, count_include_pad: bool
) -> jax.Array:
    """dx[n,i,c] = Σ_r dy[n,o,c] / count(o)."""
    return avg_pool_grad_p.bind(dy, axes=axes, dimensions=dimensions, count_include_pad=count_include_pad)


def sum_pool(x: jax.Array, axes: tuple[Axis, ...], dimensions: Dimensions) -> jax.Array:
    """y[n,o,c] = Σ_r x[n,i,c]."""
    return sum_pool_p.bind(x, axes=axes, dimensions=dimensions)


def sum_pool_grad(dy: jax.Array, axes: tuple[Axis, ...], dimensions: Dimensions) -> jax.Array:
    """dx[n,i,c] = Σ_r dy[n,o,c]."""
    return sum_pool_grad_p.bind(dy, axes=axes, dimensions=dimensions)


# A maximum's tangent is the tangent at the chosen position, which itself does not move.


def _max_pool_jvp(primals: Any, tangents: Any, **params: Any) -> Any:
    (x,), (t,) = primals, tangents
    y, position = max_pool_argmax(x, **params)
    return y, max_pool_select(ad.instantiate_zeros(t), position, **params)


def _max_pool_argmax_jvp(primals: Any, tangents: Any, **params: Any) -> Any:
    (x,), (t,) = primals, tangents
    y, position = max_pool_argmax(x, **params)
    y_tangent = max_pool_select(ad.instantiate_zeros(t), position, **params)
    return [y, position], [y_tangent, ad.Zero(ShapedArray(position.shape, jax.dtypes.float0))]


def _ruled_position_jvp(primals: Any, tangents: Any, **params: Any) -> Any:
    position = ruled_position(primals[0], **params)
    return position, ad.Zero(ShapedArray(position.shape, jax.dtypes.float0))


ad.primitive_jvps[ruled_position_p] = _ruled_position_jvp
ad.primitive_jvps[max_pool_p] = _max_pool_jvp
ad.primitive_jvps[max_pool_argmax_p] = _max_pool_argmax_jvp


def _linear_in_first(primitive: Primitive, transpose: Callable[..., jax.Array]) -> None:
    """Derivatives of a primitive that is linear in its first operand and takes positions as its second."""
    ad.defjvp(primitive, lambda t, first, position, **params: primitive.bind(t, position, **params), None)

    def rule(t: jax.Array, first: Any, position: jax.Array, **params: Any) -> list[Any]:
        result = transpose(t, position, **params)
        batch = params["dimensions"][0]
        shape = first.aval.shape
        if shape[batch] != result.shape[batch]:  # first was read again for each run of as many images
            runs = result.shape[batch] // shape[batch]
            result = jnp.reshape(result, (*shape[:batch], runs, *shape[batch:]))
            result = jnp.sum(result, axis=batch)
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
