"""The convolution's kernels as JAX primitives, and the derivatives of each in terms of the others.

``fprop``, ``dgrad`` and ``wgrad`` are bilinear, and are one trilinear form Σ x·w·y with one argument left
open each. So the transpose of each in one operand is another of the three, over the same ``ConvSpec``:

    y  = fprop(x, w)      in x: dgrad      in w: wgrad
    dx = dgrad(dy, w)     in dy: fprop     in w: wgrad
    dw = wgrad(x, dy)     in x: dgrad      in dy: fprop

This gives derivatives of every order. ``bgrad`` and ``spread`` are each other's transpose.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax import lax
from jax.extend.core import Primitive

from jax_convgrad.primitives import complex_form, fallback, ffi
from jax_convgrad.primitives.batching import bgrad_rule, contraction_rule, spread_rule
from jax_convgrad.primitives.conv_spec import ConvSpec, arranged
from jax_convgrad.primitives.define import define, shaped
from jax_convgrad.primitives.number_types import FLOAT32, converted, holds
from jax_convgrad.primitives.sharding import Factors
from jax_convgrad.primitives.spatial_parts import contraction, letter, sum_of_rows

# --------------------------------------------------------------------------------- the three contractions


def _factors(operands: str, result: str) -> Callable[..., Factors]:
    """Returns how a contraction that takes two of x, w and y, as named, and gives the third may be split."""

    def factors(a: Any, b: Any, *, spec: ConvSpec, **_: Any) -> Factors:
        # With groups it is those that are split, in x, w and y alike, and not the channels of one.
        c, k, own = ("c", "k", "c") if spec.groups == 1 else ("g", "g", None)
        rows = [letter(axis) for axis in range(len(spec.axes))]
        labels = {
            "x": arranged(spec.dimensions.x, ("n", c, *rows)),
            "w": arranged(spec.dimensions.w, (k, own, *(None for _ in rows))),
            "y": arranged(spec.dimensions.y, ("n", k, *rows)),
        }
        sizes = {
            label: array.shape[d]
            for name, array in zip(operands, (a, b), strict=True)
            for d, label in enumerate(labels[name])
            if label is not None and label not in rows
        }
        if spec.groups > 1:
            sizes["g"] = spec.groups
        arrays = tuple(labels[name] for name in operands)
        return Factors(arrays, (labels[result],), sizes, _local_groups, contraction(operands, result))

    return factors


def _local_groups(params: dict[str, Any], ways: Mapping[str, int]) -> dict[str, Any]:
    spec: ConvSpec = params["spec"]
    return {**params, "spec": spec.with_groups(spec.groups // ways.get("g", 1))}


fprop_factors = _factors("xw", "y")
wgrad_factors = _factors("xy", "w")


def unrounded(contraction: Primitive, *operands: Any, spec: ConvSpec) -> jax.Array:
    """A device's part of a sum, which is rounded after all are added: from 16-bit operands it is in f32."""
    if operands[0].dtype.itemsize == 2:
        spec = spec.with_result_dtype(FLOAT32)
    return contraction.bind(*operands, spec=spec)


def _rounded(total: jax.Array, a: jax.Array, *_: Any, spec: ConvSpec) -> jax.Array:
    return converted(total, spec.result_dtype or a.dtype)


fprop_p: Primitive = define(
    "fprop",
    lambda x, w, *, spec: shaped(x, spec.y_shape(x.shape, w.shape), spec.result_dtype),
    lambda platform, x, w, *, spec: ffi.fprop(platform, x, w, spec),
    fallback.fprop,
    complex_form=complex_form.fprop,
    vmap=contraction_rule("xw", "y"),
    transposes=(
        lambda dy, x, w, *, spec: cotangent(dgrad, dy, w, x.aval.dtype, spec),
        lambda dy, x, w, *, spec: cotangent(wgrad, x, dy, w.aval.dtype, spec),
    ),
    factors=fprop_factors,
    partial_sums=(lambda x, w, *, spec: unrounded(fprop_p, x, w, spec=spec), _rounded),
    any_size="n",
    sums=True,
)
dgrad_p: Primitive = define(
    "dgrad",
    lambda dy, w, *, spec: shaped(dy, spec.x_shape(dy.shape, w.shape), spec.result_dtype),
    lambda platform, dy, w, *, spec: ffi.dgrad(platform, dy, w, spec),
    fallback.dgrad,
    complex_form=complex_form.dgrad,
    vmap=contraction_rule("yw", "x"),
    transposes=(
        lambda dx, dy, w, *, spec: cotangent(fprop, dx, w, dy.aval.dtype, spec),
        lambda dx, dy, w, *, spec: cotangent(wgrad, dx, dy, w.aval.dtype, spec),
    ),
    factors=_factors("yw", "x"),
    partial_sums=(lambda dy, w, *, spec: unrounded(dgrad_p, dy, w, spec=spec), _rounded),
    any_size="n",
    sums=True,
)
wgrad_p: Primitive = define(
    "wgrad",
    lambda x, dy, *, spec: shaped(x, spec.w_shape(x.shape, dy.shape), spec.result_dtype),
    lambda platform, x, dy, *, spec: ffi.wgrad(platform, x, dy, spec),
    fallback.wgrad,
    complex_form=complex_form.wgrad,
    vmap=contraction_rule("xy", "w"),
    transposes=(
        lambda dw, x, dy, *, spec: cotangent(dgrad, dy, dw, x.aval.dtype, spec),
        lambda dw, x, dy, *, spec: cotangent(fprop, x, dw, dy.aval.dtype, spec),
    ),
    factors=wgrad_factors,
    partial_sums=(lambda x, dy, *, spec: unrounded(wgrad_p, x, dy, spec=spec), _rounded),
    sums=True,
)


def fprop(x: jax.Array, w: jax.Array, spec: ConvSpec) -> jax.Array:
    """y[n,o,k] = Σ_{r,c} x[n,i,c] · w[r,c,k]."""
    return fprop_p.bind(x, w, spec=spec)


def dgrad(dy: jax.Array, w: jax.Array, spec: ConvSpec) -> jax.Array:
    """dx[n,i,c] = Σ_{r,k} dy[n,o,k] · w[r,c,k]."""
    return dgrad_p.bind(dy, w, spec=spec)


def wgrad(x: jax.Array, dy: jax.Array, spec: ConvSpec) -> jax.Array:
    """dw[r,c,k] = Σ_{n,o} x[n,i,c] · dy[n,o,k]."""
    return wgrad_p.bind(x, dy, spec=spec)


def cotangent(
    contraction: Callable[..., jax.Array], a: jax.Array, b: jax.Array, dtype: Any, spec: ConvSpec
) -> jax.Array:
    """A contraction of a cotangent with an operand, for the other operand, of dtype ``dtype``.

    The cotangent may be wider than the operand, where the result had a ``result_dtype``. There is no kernel
    for two dtypes, so the operand is widened, which loses nothing, and the contraction is rounded.
    """
    wide = a.dtype if holds(a.dtype, b.dtype) else b.dtype
    out = contraction(converted(a, wide), converted(b, wide), spec.with_result_dtype(None))
    return converted(out, dtype)


# ------------------------------------------------------------------------------------------ bias gradient


def _bgrad_factors(dy: Any, *, channel_axis: int) -> Factors:
    """Every position may be split, whether it divides or not."""
    labels = tuple("k" if d == channel_axis else f"n{d}" for d in range(dy.ndim))
    sizes = {label: size for label, size in zip(labels, dy.shape, strict=True) if label != "k"}
    rows = functools.partial(sum_of_rows, labels, sizes)
    return Factors((labels,), (("k",),), {"k": dy.shape[channel_axis]}, rows=rows)


bgrad_p = define(
    "bgrad",
    lambda dy, *, channel_axis: shaped(dy, (dy.shape[channel_axis],)),
    lambda platform, dy, *, channel_axis: ffi.bgrad(platform, dy, channel_axis),
    fallback.bgrad,
    complex_form=complex_form.bgrad,
    vmap=bgrad_rule,
    transposes=(lambda db, dy, *, channel_axis: spread(db, dy.aval.shape, channel_axis),),
    factors=_bgrad_factors,
    sums=True,
)


def _spread(b: jax.Array, *, shape: tuple[int, ...], channel_axis: int) -> jax.Array:
    return lax.broadcast_in_dim(b, shape, (channel_axis,))


# A broadcast, which XLA fuses into what comes next; a primitive of its own so that its transpose is bgrad.
spread_p = define(
    "spread",
    lambda b, *, shape, channel_axis: shaped(b, shape),
    lambda platform, b, **params: _spread(b, **params),
    _spread,
    vmap=spread_rule,
    transposes=(lambda dy, b, *, shape, channel_axis: bgrad(dy, channel_axis),),
    only_calls=False,
)


def bgrad(dy: jax.Array, channel_axis: int) -> jax.Array:
    """db[k] = Σ_{n,o} dy[n,o,k]."""
    return bgrad_p.bind(dy, channel_axis=channel_axis)


def spread(b: jax.Array, shape: tuple[int, ...], channel_axis: int) -> jax.Array:
    """b[k] at every n and o of a y of the given shape: the transpose of ``bgrad``."""
    return spread_p.bind(b, shape=shape, channel_axis=channel_axis)
