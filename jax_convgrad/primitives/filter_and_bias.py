"""dw = wgrad(x, dy) and db = bgrad(dy) in one call: both are sums over the positions of dy, read once.

If only one of them is used, JAX's dead-code elimination leaves wgrad or bgrad by itself; that of jax 0.10
does not look into ``while`` loops. The derivatives are those of the two by themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax
from jax.interpreters import ad, partial_eval

from jax_convgrad.primitives import complex_form, contractions, ffi
from jax_convgrad.primitives.batching import contraction_rule
from jax_convgrad.primitives.conv_spec import ConvSpec
from jax_convgrad.primitives.define import define, shaped
from jax_convgrad.primitives.number_types import FLOAT32, converted
from jax_convgrad.primitives.sharding import Factors


def wgrad_bgrad(x: jax.Array, dy: jax.Array, spec: ConvSpec) -> tuple[jax.Array, jax.Array]:
    """dw[r,c,k] = Σ_{n,o} x[n,i,c] · dy[n,o,k] and db[k] = Σ_{n,o} dy[n,o,k]."""
    dw, db = wgrad_bgrad_p.bind(x, dy, spec=spec)
    return dw, db


def _one_by_one(x: jax.Array, dy: jax.Array, *, spec: ConvSpec) -> list[jax.Array]:
    return [contractions.wgrad(x, dy, spec), contractions.bgrad(dy, spec.y_channel)]


def _factors(x: Any, dy: Any, *, spec: ConvSpec) -> Factors:
    contraction = contractions.wgrad_factors(x, dy, spec=spec)
    channel = contraction.operands[1][spec.y_channel]
    return replace(contraction, results=(*contraction.results, (channel,)))


def _partial_sums(x: jax.Array, dy: jax.Array, *, spec: ConvSpec) -> Any:
    """A device's dw and db, which are yet to be added up: from 16 bits they are f32, as no one call gives."""
    if x.dtype.itemsize != 2:
        return wgrad_bgrad_p.bind(x, dy, spec=spec)
    dw = contractions.unrounded(contractions.wgrad_p, x, dy, spec=spec)
    return [dw, contractions.bgrad(converted(dy, FLOAT32), spec.y_channel)]


def _rounded(dw: jax.Array, db: jax.Array, x: jax.Array, dy: jax.Array, **_: Any) -> list[jax.Array]:
    return [converted(dw, x.dtype), converted(db, dy.dtype)]


def _jvp(primals: Any, tangents: Any, *, spec: ConvSpec) -> Any:
    x, dy = primals
    x_t, dy_t = tangents
    dw, db = wgrad_bgrad(x, dy, spec)
    if type(dy_t) is ad.Zero:
        return [dw, db], [contractions.wgrad(x_t, dy, spec), ad.Zero(jax.typeof(db))]
    dw_t, db_t = wgrad_bgrad(x, dy_t, spec)
    if type(x_t) is not ad.Zero:
        dw_t = dw_t + contractions.wgrad(x_t, dy, spec)
    return [dw, db], [dw_t, db_t]


def _transpose(cotangents: Any, x: Any, dy: Any, *, spec: ConvSpec) -> list[Any]:
    """The transpose in dy alone, or in x alone, on which db does not depend."""
    dw_t, db_t = cotangents
    if ad.is_undefined_primal(x):
        return [ad.Zero(x.aval) if type(dw_t) is ad.Zero else contractions.dgrad(dy, dw_t, spec), None]
    parts = []
    if type(dw_t) is not ad.Zero:
        parts.append(contractions.fprop(x, dw_t, spec))
    if type(db_t) is not ad.Zero:
        parts.append(contractions.spread(db_t, dy.aval.shape, spec.y_channel))
    return [None, sum(parts[1:], parts[0]) if parts else ad.Zero(dy.aval)]


wgrad_bgrad_p = define(
    "wgrad_bgrad",
    lambda x, dy, *, spec: [
        shaped(x, spec.w_shape(x.shape, dy.shape)),
        shaped(dy, (dy.shape[spec.y_channel],)),
    ],
    lambda platform, x, dy, *, spec: ffi.wgrad_bgrad(platform, x, dy, spec),
    _one_by_one,
    complex_form=complex_form.wgrad,
    vmap=contraction_rule("xy", "wb"),
    jvp=_jvp,
    transpose=_transpose,
    factors=_factors,
    partial_sums=(_partial_sums, _rounded),
    # With no input channels db is still a sum.
    serves=lambda platform, x, dy, **_: ffi.sums_filter_and_bias(platform) and x.size != 0 and dy.size != 0,
    multiple_results=True,
)


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
        params={"channel_axis": equation.params["spec"].y_channel},
    )


partial_eval.dce_rules[wgrad_bgrad_p] = _only_what_is_used
