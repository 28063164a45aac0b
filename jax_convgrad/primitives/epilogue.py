"""y = max(fprop(x, w) + b, 0) in one call: a layer's forward pass, with its bias and relu or either of them.

Kernels add b to a sum and take the maximum where they have it in their registers, before they round it to
y's dtype and store it. So neither costs a pass over y, and bfloat16 and float16 are rounded once, not three
times. Derivatives are those of the steps one by one, which are these primitives again:

    y' = fprop(x', w) + fprop(x, w') + b'     where y > 0, else 0
"""

from __future__ import annotations

import functools
import operator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.interpreters import ad, batching

from jax_convgrad.geometry import ConvGeometry
from jax_convgrad.primitives import complex_form, contractions
from jax_convgrad.primitives.batching import fprop_epilogue_rule
from jax_convgrad.primitives.ffi import Dims
from jax_convgrad.primitives.filter_and_bias import wgrad_bgrad
from jax_convgrad.primitives.lowering import define_primitive, shaped
from jax_convgrad.primitives.number_types import Precision, converted
from jax_convgrad.primitives.sharding import Factors


def step_by_step(
    x: jax.Array,
    w: jax.Array,
    *b: jax.Array,
    relu: bool,
    geometry: ConvGeometry,
    dimensions: Dims,
    precision: Precision,
) -> jax.Array:
    """The same, each step by itself."""
    y = contractions.fprop(x, w, geometry, dimensions, precision)
    return _finished(y, *b, relu=relu, dimensions=dimensions)


def _finished(y: jax.Array, *b: jax.Array, relu: bool, dimensions: Dims) -> jax.Array:
    for bias in b:
        y = y + contractions.spread(bias, y.shape, dimensions.y[1])
    return jax.nn.relu(y) if relu else y


def _native(
    platform: str,
    x: jax.Array,
    w: jax.Array,
    *b: jax.Array,
    relu: bool,
    geometry: ConvGeometry,
    dimensions: Dims,
    precision: Precision,
    result_dtype: np.dtype | None = None,
) -> jax.Array:
    shape = contractions.y_shape(x, w, geometry, dimensions)
    return complex_form.fprop(
        platform, x, w, shape, geometry, dimensions, precision, *b, relu=relu, result_dtype=result_dtype
    )


def _partial(
    platform: str, x: jax.Array, w: jax.Array, *_: jax.Array, relu: bool, **params: Any
) -> jax.Array:
    return contractions.unrounded(contractions.fprop_p, x, w, **params)


def _from_partial(
    y: jax.Array,
    x: jax.Array,
    w: jax.Array,
    *b: jax.Array,
    relu: bool,
    dimensions: Dims,
    **_: Any,
) -> jax.Array:
    # Of 16 bits the sum is of f32, and so is what becomes of it, until it is rounded once.
    return converted(
        _finished(y, *(converted(bias, y.dtype) for bias in b), relu=relu, dimensions=dimensions), x.dtype
    )


def _factors(x: Any, w: Any, *b: Any, geometry: ConvGeometry, dimensions: Dims, **params: Any) -> Factors:
    contraction = contractions.fprop_factors(x, w, geometry=geometry, dimensions=dimensions)
    channel = contraction.results[0][dimensions.y[1]]
    return Factors(
        (*contraction.operands, *((channel,) for _ in b)),
        contraction.results,
        contraction.sizes,
        contraction.localize,
        contraction.rows,
    )


fprop_epilogue_p = define_primitive(
    "fprop_epilogue",
    lambda x, w, *b, relu, geometry, dimensions, precision: shaped(
        x, contractions.y_shape(x, w, geometry, dimensions)
    ),
    _native,
    step_by_step,
    # A sum over nothing is no call, but b.
    serves=lambda platform, x, w, *b, **_: x.size != 0 and w.size != 0,
    factors=_factors,
    any_size=frozenset("n"),
    of_partial_sums=(_partial, _from_partial),
)


def fprop_epilogue(
    x: jax.Array,
    w: jax.Array,
    b: jax.Array | None,
    relu: bool,
    geometry: ConvGeometry,
    dimensions: Dims,
    precision: Precision,
) -> jax.Array:
    """y[n,o,k] = Σ_{r,c} x[n,i,c] · w[r,c,k], plus b[k] where there is one, then max(y, 0) where ``relu``."""
    if b is None and not relu:
        return contractions.fprop(x, w, geometry, dimensions, precision)
    bias = () if b is None else (b,)
    return fprop_epilogue_p.bind(
        x, w, *bias, relu=relu, geometry=geometry, dimensions=dimensions, precision=precision
    )


def _jvp(primals: Any, tangents: Any, *, relu: bool, **params: Any) -> Any:
    x, w, *_ = primals
    x_t, w_t, *b_t = tangents
    y = fprop_epilogue_p.bind(*primals, relu=relu, **params)
    parts = []
    if type(x_t) is not ad.Zero:
        parts.append(contractions.fprop(x_t, w, **params))
    b_t = [t for t in b_t if type(t) is not ad.Zero]
    if type(w_t) is not ad.Zero:  # together with b', so that its transpose is dw and db in one call
        parts.append(fprop_epilogue(x, w_t, b_t[0] if b_t else None, False, **params))
    else:
        parts += [contractions.spread(t, y.shape, params["dimensions"].y[1]) for t in b_t]
    y_t = functools.reduce(operator.add, parts)
    return y, jnp.where(y > 0, y_t, 0) if relu else y_t


def _transpose(t: Any, x: Any, w: Any, *b: Any, relu: bool, **params: Any) -> list[Any]:
    """Without relu it is linear in x and b together, and in w and b: in ``jax.linear_transpose``."""
    if relu:
        raise NotImplementedError("jax_convgrad: a layer with relu is not linear, and has no transpose")
    if type(t) is ad.Zero:
        return [ad.Zero(operand.aval) if ad.is_undefined_primal(operand) else None for operand in (x, w, *b)]
    if b and ad.is_undefined_primal(w) and ad.is_undefined_primal(b[0]):
        return [None, *wgrad_bgrad(x, t, **params)]
    return [
        contractions.dgrad(t, w, **params) if ad.is_undefined_primal(x) else None,
        contractions.wgrad(x, t, **params) if ad.is_undefined_primal(w) else None,
        *(
            contractions.bgrad(t, params["dimensions"].y[1]) if ad.is_undefined_primal(bias) else None
            for bias in b
        ),
    ]


ad.primitive_jvps[fprop_epilogue_p] = _jvp
ad.primitive_transposes[fprop_epilogue_p] = _transpose
batching.primitive_batchers[fprop_epilogue_p] = fprop_epilogue_rule(fprop_epilogue_p, step_by_step)
