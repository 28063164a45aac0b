"""dw = wgrad(x, dy) and db = bgrad(dy) in one call: both are sums over the positions of dy, read once.

Where only one of them is wanted, JAX's dead-code elimination leaves wgrad or bgrad by itself; jax 0.10's
does not look into ``while`` loops. Derivatives are those of the two by themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
from jax.interpreters import ad, batching, partial_eval

from jax_convgrad.geometry import ConvGeometry
from jax_convgrad.primitives import complex_form, contractions, ffi
from jax_convgrad.primitives.batching import wgrad_bgrad_rule
from jax_convgrad.primitives.ffi import Dims
from jax_convgrad.primitives.lowering import define_primitive, shaped
from jax_convgrad.primitives.number_types import Precision, converted
from jax_convgrad.primitives.sharding import Factors


def _one_by_one(
    x: jax.Array, dy: jax.Array, *, geometry: ConvGeometry, dimensions: Dims, precision: Precision
) -> list[jax.Array]:
    dw = contractions.wgrad(x, dy, geometry, dimensions, precision)
    return [dw, contractions.bgrad(dy, dimensions.y[1])]


def _factors(x: Any, dy: Any, **params: Any) -> Factors:
    contraction = contractions.wgrad_factors(x, dy, **params)
    channel = contraction.operands[1][params["dimensions"].y[1]]
    return Factors(
        contraction.operands,
        (*contraction.results, (channel,)),
        contraction.sizes,
        contraction.localize,
        contraction.rows,
    )


def _native(
    platform: str, x: jax.Array, dy: jax.Array, *, geometry: Any, dimensions: Any, precision: Any
) -> Any:
    shape = contractions.w_shape(x, dy, geometry, dimensions)
    return complex_form.wgrad_bgrad(platform, x, dy, shape, geometry, dimensions, precision)


def _partial(platform: str, x: jax.Array, dy: jax.Array, **params: Any) -> Any:
    """Of 16 bits a dw and a db that are yet to be added up are of f32, for which there is no one call."""
    if x.dtype.itemsize != 2:
        return wgrad_bgrad_p.bind(x, dy, **params)
    dw = contractions.unrounded(contractions.wgrad_p, x, dy, **params)
    return [dw, contractions.unrounded_bgrad(dy, params["dimensions"].y[1])]


def _rounded(dw: jax.Array, db: jax.Array, x: jax.Array, dy: jax.Array, **_: Any) -> list[jax.Array]:
    return [converted(dw, x.dtype), converted(db, dy.dtype)]


wgrad_bgrad_p = define_primitive(
    "wgrad_bgrad",
    lambda x, dy, *, geometry, dimensions, precision: [
        shaped(x, contractions.w_shape(x, dy, geometry, dimensions)),
        shaped(dy, (dy.shape[dimensions.y[1]],)),
    ],
    _native,
    _one_by_one,
    # Of no input channels db is still a sum.
    serves=lambda platform, x, dy, **_: ffi.sums_filter_and_bias(platform) and x.size != 0 and dy.size != 0,
    factors=_factors,
    multiple_results=True,
    of_partial_sums=(_partial, _rounded),
)


def wgrad_bgrad(
    x: jax.Array, dy: jax.Array, geometry: ConvGeometry, dimensions: Dims, precision: Precision
) -> tuple[jax.Array, jax.Array]:
    """dw[r,c,k] = Σ_{n,o} x[n,i,c] · dy[n,o,k] and db[k] = Σ_{n,o} dy[n,o,k]."""
    dw, db = wgrad_bgrad_p.bind(x, dy, geometry=geometry, dimensions=dimensions, precision=precision)
    return dw, db


def _only_what_is_used(used: Sequence[bool], *rest: Any) -> tuple[list[bool], Any]:
    # jax 0.12 gives, before the equation, which of its inputs are live; jax 0.10 does not.
    *_, equation = rest
    dw, db = used
    if dw and db:
        return [True, True], equation
    if not dw and not db:
        return [False, False], None
    if dw:
        return [True, True], equation.replace(primitive=contractions.wgrad_p, outvars=equation.outvars[:1])
    return [False, True], equation.replace(
        primitive=contractions.bgrad_p,
        invars=equation.invars[1:],
        outvars=equation.outvars[1:],
        params={"channel_axis": equation.params["dimensions"].y[1]},
    )


def _jvp(primals: Any, tangents: Any, **params: Any) -> Any:
    x, dy = primals
    x_t, dy_t = tangents
    dw, db = wgrad_bgrad_p.bind(x, dy, **params)
    if type(dy_t) is ad.Zero:
        return [dw, db], [contractions.wgrad(x_t, dy, **params), ad.Zero(jax.typeof(db))]
    dw_t, db_t = wgrad_bgrad_p.bind(x, dy_t, **params)
    if type(x_t) is not ad.Zero:
        dw_t = dw_t + contractions.wgrad(x_t, dy, **params)
    return [dw, db], [dw_t, db_t]


def _transpose(cotangents: Any, x: Any, dy: Any, **params: Any) -> list[Any]:
    """In dy alone, or in x alone, on which db does not depend."""
    dw_t, db_t = cotangents
    if ad.is_undefined_primal(x):
        return [ad.Zero(x.aval) if type(dw_t) is ad.Zero else contractions.dgrad(dy, dw_t, **params), None]
    parts = []
    if type(dw_t) is not ad.Zero:
        parts.append(contractions.fprop(x, dw_t, **params))
    if type(db_t) is not ad.Zero:
        parts.append(contractions.spread(db_t, dy.aval.shape, params["dimensions"].y[1]))
    return [None, sum(parts[1:], parts[0]) if parts else ad.Zero(dy.aval)]


partial_eval.dce_rules[wgrad_bgrad_p] = _only_what_is_used
ad.primitive_jvps[wgrad_bgrad_p] = _jvp
ad.primitive_transposes[wgrad_bgrad_p] = _transpose
batching.primitive_batchers[wgrad_bgrad_p] = wgrad_bgrad_rule(wgrad_bgrad_p)
