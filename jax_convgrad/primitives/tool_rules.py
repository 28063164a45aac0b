"""The primitives' rules for JAX's own tools: checkify, Taylor mode (``jet``) and the roofline.

Each of the three keeps a table of rules by primitive. Those of ``jet`` and the roofline are public and
experimental, that of checkify is private. If a version of JAX keeps one elsewhere, that tool does not know
the primitives, and nothing else changes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Primitive

from jax_convgrad.geometry import tied
from jax_convgrad.primitives import contractions, hijax_layer
from jax_convgrad.primitives import pool_primitives as pools
from jax_convgrad.primitives.conv_spec import ConvSpec
from jax_convgrad.primitives.define import lax_forms
from jax_convgrad.primitives.epilogue import fprop_epilogue_p
from jax_convgrad.primitives.filter_and_bias import wgrad_bgrad_p
from jax_convgrad.primitives.pool_spec import PoolSpec

_CONTRACTIONS = (contractions.fprop_p, contractions.dgrad_p, contractions.wgrad_p)
_LINEAR = (
    contractions.bgrad_p,
    contractions.spread_p,
    pools.avg_pool_p,
    pools.avg_pool_grad_p,
    pools.sum_pool_p,
    pools.sum_pool_grad_p,
)
_AT_POSITIONS = (pools.max_pool_grad_p, pools.max_pool_select_p)
_CHOOSING = (
    pools.max_pool_p,
    pools.max_pool_argmax_p,
    pools.ruled_position_p,
    pools.max_pool_select_p,
    contractions.spread_p,
)
"""Primitives that only pass numbers on, and so never turn numbers into NaN."""


def enter_rules() -> None:
    """Enters the rules in the tables of the tools that this version of JAX has."""
    for enter in (_enter_in_checkify, _enter_in_jet, _enter_in_roofline):
        try:
            enter()
        except (ImportError, AttributeError, KeyError):
            continue


# --------------------------------------------------------------------------------------------------- checkify


def _enter_in_checkify() -> None:
    """Has ``float_checks`` look for NaN in the results of the primitives that may make it."""
    from jax._src import checkify

    for primitive in lax_forms:
        if primitive not in _CHOOSING:
            checkify.error_checks[primitive] = partial(checkify.nan_error_check, primitive)
    if hijax_layer.HAS_BOTH_MODES:
        from jax._src import hijax

        of_others = checkify.error_checks[hijax.call_hi_primitive_p]
        checkify.error_checks[hijax.call_hi_primitive_p] = partial(_checked_layer, of_others)


def _checked_layer(of_others: Any, ctx: Any, error: Any, enabled: Any, *given: Any, _prim: Any) -> Any:
    """Checks a layer by the rules of the primitives that it is made of."""
    from jax._src import checkify

    if not isinstance(_prim, hijax_layer.Layer):
        return of_others(ctx, error, enabled, *given, _prim=_prim)
    return checkify.checkify_jaxpr(ctx, jax.make_jaxpr(_prim.expand)(*given), enabled, error, *given)


# ------------------------------------------------------------------------------------------------ Taylor mode


def _enter_in_jet() -> None:
    from jax.experimental import jet

    # lax's own rule, which knows whether a version's series are coefficients or derivatives.
    rules: dict[Primitive, Any] = jet.jet_rules
    bilinear = rules[lax.conv_general_dilated_p].func
    for contraction in _CONTRACTIONS:
        rules[contraction] = partial(bilinear, contraction)
    for linear in _LINEAR:
        jet.deflinear(linear)
    for at_positions in _AT_POSITIONS:
        rules[at_positions] = partial(_first_by_first, at_positions)
    rules[fprop_epilogue_p] = partial(_epilogue_series, partial(bilinear, contractions.fprop_p))
    rules[wgrad_bgrad_p] = partial(_two_sums_series, partial(bilinear, contractions.wgrad_p))
    rules[pools.max_pool_p] = _max_pool_series
    rules[pools.max_pool_argmax_p] = partial(_argmax_series, jet.zero_series)
    jet.defzero(pools.ruled_position_p)  # positions do not move


Series = Sequence[Any]
Rule = Callable[..., tuple[Any, list[Any]]]


def _first_by_first(
    primitive: Primitive, primals: Sequence[Any], series: Sequence[Series], **params: Any
) -> tuple[Any, list[Any]]:
    """The series of a primitive that is linear in its first operand; the second, positions, stays."""
    first, position = primals
    return (
        primitive.bind(first, position, **params),
        [primitive.bind(term, position, **params) for term in series[0]],
    )


def _epilogue_series(
    fprop: Rule, primals: Sequence[Any], series: Sequence[Series], *, relu: bool, **params: Any
) -> tuple[Any, list[Any]]:
    y = fprop_epilogue_p.bind(*primals, relu=relu, **params)
    terms = fprop(primals[:2], series[:2], **params)[1]
    for of_bias in series[2:]:
        terms = [
            term + contractions.spread(b, y.shape, params["spec"].y_channel)
            for term, b in zip(terms, of_bias, strict=True)
        ]
    return y, [jnp.where(y > 0, term, 0) for term in terms] if relu else terms


def _two_sums_series(
    wgrad: Rule, primals: Sequence[Any], series: Sequence[Series], **params: Any
) -> tuple[list[Any], list[Any]]:
    channel_axis = params["spec"].y_channel
    terms = wgrad(primals, series, **params)[1]
    return (
        wgrad_bgrad_p.bind(*primals, **params),
        [terms, [contractions.bgrad(term, channel_axis) for term in series[1]]],
    )


def _max_pool_series(
    primals: Sequence[Any], series: Sequence[Series], **params: Any
) -> tuple[Any, list[Any]]:
    """The terms at the chosen positions, which do not move."""
    y, position = pools.max_pool_argmax(primals[0], **params)
    return y, [pools.max_pool_select(term, position, **params) for term in series[0]]


def _argmax_series(
    no_series: Any, primals: Sequence[Any], series: Sequence[Series], **params: Any
) -> tuple[list[Any], list[Any]]:
    y, position = pools.max_pool_argmax(primals[0], **params)
    return [y, position], [[pools.max_pool_select(term, position, **params) for term in series[0]], no_series]


# --------------------------------------------------------------------------------------------------- roofline


def _enter_in_roofline() -> None:
    """Enters counts like JAX's own: a multiply-add is two, and each array is read or written once."""
    from jax.experimental import roofline

    def rule(ctx: Any, *_: Any, **params: Any) -> Any:
        arrays = (*ctx.avals_in, *ctx.avals_out)
        return roofline.RooflineResult(
            unfused_flops=_flops(ctx.primitive, ctx.avals_in, ctx.avals_out, **params),
            unfused_hbm_bytes=sum(array.size * array.dtype.itemsize for array in arrays),
        )

    for primitive in lax_forms:
        roofline.register_roofline(primitive)(rule)


def _flops(primitive: Primitive, operands: Sequence[Any], results: Sequence[Any], **params: Any) -> int:
    spec = params.get("spec")
    if isinstance(spec, PoolSpec) and primitive not in _AT_POSITIONS:  # one for each entry of each window
        batch, channel = (operands[0].shape[d] for d in (spec.batch, spec.channel))
        return batch * channel * math.prod(map(tied, spec.axes))
    if not isinstance(spec, ConvSpec):
        return 0 if primitive is contractions.spread_p else operands[0].size
    a, b, dims = operands[0].shape, operands[1].shape, spec.dimensions
    if primitive in (contractions.wgrad_p, wgrad_bgrad_p):
        batch, group_in, out = a[dims.x[0]], a[dims.x[1]] // spec.groups, b[dims.y[1]]
    else:
        first = dims.y if primitive is contractions.dgrad_p else dims.x
        batch, group_in, out = a[first[0]], b[dims.w[1]], b[dims.w[0]]
    products = batch * group_in * out * math.prod(map(tied, spec.axes))
    if primitive is wgrad_bgrad_p:
        return 2 * products + operands[1].size
    # With one addition for a bias, and one maximum for relu.
    return 2 * products + results[0].size * (len(operands) - 2 + params.get("relu", False))


enter_rules()
