"""y = max(fprop(x, w) + b, 0) in one call: a layer's forward pass, with its bias and relu or either of them.

Kernels add b to a sum and take the maximum while both are in their registers, before they round to y's dtype
and store. So neither costs a pass over y, and bfloat16 and float16 are rounded once, not three times. The
derivatives are those of the steps one by one, which are these primitives again:

    y' = fprop(x', w) + fprop(x, w') + b'     where y > 0, else 0
"""

from __future__ import annotations

import functools
import operator
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from jax.interpreters import ad

from jax_convgrad.primitives import complex_form, contractions, ffi
from jax_convgrad.primitives.batching import contraction_rule
from jax_convgrad.primitives.conv_spec import ConvSpec
from jax_convgrad.primitives.define import define, shaped
from jax_convgrad.primitives.filter_and_bias import wgrad_bgrad
from jax_convgrad.primitives.number_types import converted
from jax_convgrad.primitives.sharding import Factors


def step_by_step(x: jax.Array, w: jax.Array, *b: jax.Array, relu: bool, spec: ConvSpec) -> jax.Array:
    """The same, each step by itself."""
    return _finished(contractions.fprop(x, w, spec), *b, relu=relu, spec=spec)


def _finished(y: jax.Array, *b: jax.Array, relu: bool, spec: ConvSpec) -> jax.Array:
    for bias in b:
        y = y + contractions.spread(bias, y.shape, spec.y_channel)
    return jax.nn.relu(y) if relu else y


def _partial_sum(x: jax.Array, w: jax.Array, *_: jax.Array, relu: bool, spec: ConvSpec) -> jax.Array:
    return contractions.unrounded(contractions.fprop_p, x, w, spec=spec)


def _from_sum(
    y: jax.Array, x: jax.Array, w: jax.Array, *b: jax.Array, relu: bool, spec: ConvSpec
) -> jax.Array:
    # With 16-bit operands the sum is f32, and so is what follows, until it is rounded once.
    return converted(_finished(y, *(converted(bias, y.dtype) for bias in b), relu=relu, spec=spec), x.dtype)


def _factors(x: Any, w: Any, *b: Any, spec: ConvSpec, **_: Any) -> Factors:
    contraction = contractions.fprop_factors(x, w, spec=spec)
    channel = contraction.results[0][spec.y_channel]
    return replace(contraction, operands=(*contraction.operands, *((channel,) for _ in b)))


def fprop_epilogue(x: jax.Array, w: jax.Array, b: jax.Array | None, relu: bool, spec: ConvSpec) -> jax.Array:
    """y[n,o,k] = Σ_{r,c} x[n,i,c] · w[r,c,k], plus b[k] if b is given, then max(y, 0) if ``relu``."""
    if b is None and not relu:
        return contractions.fprop(x, w, spec)
    return fprop_epilogue_p.bind(x, w, *(() if b is None else (b,)), relu=relu, spec=spec)


def _jvp(primals: Any, tangents: Any, *, relu: bool, spec: ConvSpec) -> Any:
    x, w, *_ = primals
    x_t, w_t, *b_t = tangents
    y = fprop_epilogue_p.bind(*primals, relu=relu, spec=spec)
    parts = []
    if type(x_t) is not ad.Zero:
        parts.append(contractions.fprop(x_t, w, spec))
    b_t = [t for t in b_t if type(t) is not ad.Zero]
    if type(w_t) is not ad.Zero:  # together with b', so that its transpose is dw and db in one call
        parts.append(fprop_epilogue(x, w_t, b_t[0] if b_t else None, False, spec))
    else:
        parts += [contractions.spread(t, y.shape, spec.y_channel) for t in b_t]
    y_t = functools.reduce(operator.add, parts)
    return y, jnp.where(y > 0, y_t, 0) if relu else y_t


def _transpose(t: Any, x: Any, w: Any, *b: Any, relu: bool, spec: ConvSpec) -> list[Any]:
    """Without relu it is linear in x and b together, and in w and b: in ``jax.linear_transpose``."""
    if relu:
        raise NotImplementedError("jax_convgrad: a layer with relu is not linear, and has no transpose")
    if type(t) is ad.Zero:
        return [ad.Zero(operand.aval) if ad.is_undefined_primal(operand) else None for operand in (x, w, *b)]
    if b and ad.is_undefined_primal(w) and ad.is_undefined_primal(b[0]):
        return [None, *wgrad_bgrad(x, t, spec)]
    return [
        contractions.dgrad(t, w, spec) if ad.is_undefined_primal(x) else None,
        contractions.wgrad(x, t, spec) if ad.is_undefined_primal(w) else None,
        *(contractions.bgrad(t, spec.y_channel) if ad.is_undefined_primal(bias) else None for bias in b),
    ]


fprop_epilogue_p = define(
    "fprop_epilogue",
    lambda x, w, *b, relu, spec: shaped(x, spec.y_shape(x.shape, w.shape)),
    lambda platform, x, w, *b, relu, spec: ffi.fprop(platform, x, w, spec, *b, relu=relu),
    step_by_step,
    complex_form=complex_form.fprop,
    vmap=contraction_rule("xwb", "y", step_by_step),
    jvp=_jvp,
    transpose=_transpose,
    factors=_factors,
    partial_sums=(_partial_sum, _from_sum),
    # A sum over nothing needs no call, but y is still b.
    serves=lambda platform, x, w, *b, **_: x.size != 0 and w.size != 0,
    any_size="n",
)
