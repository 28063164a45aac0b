"""One of ``jax.lax``'s own windowed reductions in a program, computed by this package's primitives.

Values and gradients are those of ``jax.lax``, even in windows with a NaN or with -inf alone
(primitives/pool_fallback.py says which position its derivatives choose there). Sums that ``lax`` computes in
16 bits are computed in f32 here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend import core

from jax_convgrad.primitives import pool_primitives
from jax_convgrad.primitives.number_types import NUMBERS, REAL
from jax_convgrad.primitives.pool_spec import PoolSpec
from jax_convgrad.replace.lax_convolution import over_explicit_axes
from jax_convgrad.replace.pool_recognition import Order, Pooling, recognise
from jax_convgrad.replace.reasons import OnLax

try:
    from jax._src.lax import windowed_reductions as _windowed

    _scatter_p: Any = _windowed.select_and_scatter_add_p
    _gather_p: Any = _windowed.select_and_gather_add_p
    _sum_p: Any = _windowed.reduce_window_sum_p
    _max_p: Any = _windowed.reduce_window_max_p
    _min_p: Any = _windowed.reduce_window_min_p
    _any_p: Any = _windowed.reduce_window_p
except (ImportError, AttributeError):  # this JAX keeps them elsewhere: its poolings stay on lax
    _scatter_p = _gather_p = _sum_p = _max_p = _min_p = _any_p = None

WINDOW_PRIMITIVES: tuple[Any, ...] = tuple(
    p for p in (_max_p, _min_p, _sum_p, _any_p, _scatter_p, _gather_p) if p is not None
)
"""The primitives of ``jax.lax`` that may become poolings."""

_KINDS = {_max_p: "max", _min_p: "min", _sum_p: "sum"}
_BODIES = {lax.max_p: "max", lax.min_p: "min", lax.add_p: "sum"}
_GEOMETRIC = ("window_dimensions", "window_strides", "padding", "base_dilation", "window_dilation")


class Zeros(NamedTuple):
    """The shape of an operand before ``lax.pad`` put zeros around it, and the ``padding_config``."""

    shape: tuple[int, ...]
    config: tuple[tuple[int, int, int], ...]


def pooling_of(
    primitive: Any, avals: Sequence[Any], out: Any, params: dict[str, Any], zeros: Zeros | None = None
) -> tuple[Pooling | OnLax, bool]:
    """The pooling that computes this reduction, or the reason why ``jax.lax`` has to compute it.

    The second result says whether the pooling reads the operand before its padding with zeros. ``avals`` and
    ``out`` are the abstract values of the equation's operands and first result. ``zeros`` describes the first
    operand before that padding, if there was one.
    """
    kind = _kind(primitive, params)
    if isinstance(kind, OnLax):
        return kind, False
    known = NUMBERS if kind == "sum" else REAL
    dtypes = {aval.dtype for aval in avals}
    if len(dtypes) != 1 or not {dtype.name for dtype in dtypes} <= set(known):
        return OnLax(" and ".join(sorted(dtype.name for dtype in dtypes))), False
    geometric = {name: params[name] for name in _GEOMETRIC if name in params}
    of_windows = avals[0].shape if primitive is _scatter_p else out.shape
    operand = avals[1] if primitive in (_scatter_p, _gather_p) else avals[0]
    if primitive is _any_p and kind == "sum" and any(end > 0 for pair in params["padding"] for end in pair):
        return OnLax("a sum with an initial value and padding"), False
    if zeros is not None and primitive is _sum_p and _is_plain(params):
        unpadded = recognise(
            "sum",
            zeros.shape,
            out.shape,
            **geometric
            | {
                "padding": [(lo, hi) for lo, hi, _ in zeros.config],
                "base_dilation": [interior + 1 for _, _, interior in zeros.config],
            },
        )
        if isinstance(unpadded, Pooling):
            return unpadded, True
    return recognise(kind, operand.shape, of_windows, **geometric), False


def _kind(primitive: Any, params: dict[str, Any]) -> Any:
    if primitive is _scatter_p or primitive is _gather_p:
        step = "scatter" if primitive is _scatter_p else "gather"
        chosen = {lax.ge_p: "max", lax.le_p: "min"}.get(params["select_prim"])
        return f"{step}_{chosen}" if chosen else OnLax("a selection other than a maximum or minimum")
    if primitive is _any_p:
        return _body(params["jaxpr"], params["consts"]) or OnLax("a custom reduction function")
    return _KINDS[primitive]


def _body(jaxpr: Any, consts: Sequence[Any]) -> str | None:
    """The kind of a reduction's function: a maximum, minimum or sum of its two arguments, else None."""
    if consts or len(jaxpr.eqns) != 1 or len(jaxpr.invars) != 2:
        return None
    (equation,) = jaxpr.eqns
    if list(equation.outvars) != list(jaxpr.outvars) or {*map(id, equation.invars)} != {
        *map(id, jaxpr.invars)
    }:
        return None
    inner = equation.params.get("jaxpr")
    if isinstance(inner, core.ClosedJaxpr) and equation.primitive.name in ("jit", "pjit"):
        return _body(inner.jaxpr, inner.consts)
    return _BODIES.get(equation.primitive)


def _is_plain(params: dict[str, Any]) -> bool:
    """Reports whether the sum has neither padding nor base dilation."""
    return all(end == 0 for pair in params["padding"] for end in pair) and set(params["base_dilation"]) <= {1}


def runner(pooling: Pooling, primitive: Any, out: Any) -> Callable[..., Any]:
    """The reduction as a function of the equation's operands (the first without its padding, if so decided).

    It returns as many results as the equation, split over explicit mesh axes as ``out`` is.
    """
    run = over_explicit_axes(_RUNS[pooling.kind](pooling), out)
    if primitive is not _any_p:
        return run

    def with_initial_value(x: jax.Array, init: jax.Array) -> list[jax.Array]:
        y = run(x)
        combine = {"max": lax.max, "min": lax.min}.get(pooling.kind, lax.add)
        return [combine(y, jnp.broadcast_to(init, y.shape))]

    return with_initial_value


def _value(pooling: Pooling) -> Callable[[jax.Array], jax.Array]:
    order, spec = pooling.order, PoolSpec(pooling.axes, pooling.order.dimensions)

    def run(x: jax.Array) -> jax.Array:
        merged = _merged(x, order)
        if pooling.kind == "max":
            y = pool_primitives.max_pool(merged, spec)
        elif pooling.kind == "min":
            y = -pool_primitives.max_pool(-merged, spec)
        elif pooling.kind == "sum":
            y = pool_primitives.sum_pool(merged, spec)
        else:
            y = pool_primitives.sum_pool_grad(merged, spec)
        return _split(y, x.shape, order)

    return run


def _derivative(pooling: Pooling) -> Callable[[jax.Array, jax.Array], jax.Array]:
    order, spec = pooling.order, PoolSpec(pooling.axes, pooling.order.dimensions)
    scatters = pooling.kind.startswith("scatter")

    def run(t: jax.Array, x: jax.Array) -> jax.Array:
        merged = _merged(x, order)
        if pooling.kind.endswith("min"):
            merged = -merged
        rule = "select_and_scatter" if scatters else "select_and_gather"
        position = pool_primitives.ruled_position(merged, spec, rule)
        along = pool_primitives.max_pool_grad if scatters else pool_primitives.max_pool_select
        return _split(along(_merged(t, order), position, spec), x.shape, order)

    return run


_RUNS: dict[str, Callable[[Pooling], Callable[..., jax.Array]]] = {
    **dict.fromkeys(("max", "min", "sum", "sum_grad"), _value),
    **dict.fromkeys(("scatter_max", "scatter_min", "gather_max", "gather_min"), _derivative),
}


def _merged(array: jax.Array, order: Order) -> jax.Array:
    """The array with one dimension for each part of the order: only separate image dimensions move."""
    moved = jnp.transpose(array, [d for part in order.parts for d in part])
    return jnp.reshape(moved, [prod(array.shape[d] for d in part) for part in order.parts])


def _split(array: jax.Array, shape: Sequence[int], order: Order) -> jax.Array:
    """The inverse of ``_merged``, for an array whose spatial sizes may differ from those of ``shape``."""
    sizes: list[int] = []
    for size, part in zip(array.shape, order.parts, strict=True):
        sizes += [size] if part[:1] and part[0] in order.spatial else [shape[d] for d in part]
    places = [d for part in order.parts for d in part]
    return jnp.transpose(jnp.reshape(array, sizes), [places.index(d) for d in range(len(places))])
