"""The kernels as JAX primitives: shape rules, derivatives of each in terms of the others, lowerings.

``fprop``, ``dgrad`` and ``wgrad`` are bilinear, and are one trilinear form Σ x·w·y with one argument left
open each. So the transpose of each in one operand is another of the three, over the same geometry:

    y  = fprop(x, w)      in x: dgrad      in w: wgrad
    dx = dgrad(dy, w)     in dy: fprop     in w: wgrad
    dw = wgrad(x, dy)     in x: dgrad      in dy: fprop

which gives derivatives of every order. On a platform without kernels each is lowered to ``jax.lax``.

Of 16-bit operands a result may be of float32, the sums as they are: the parameter ``result_dtype``, which is
absent else.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching

from jax_convgrad.geometry import ConvGeometry
from jax_convgrad.primitives import complex_form, fallback
from jax_convgrad.primitives.axis_types import Spec, rows_spec
from jax_convgrad.primitives.batching import bgrad_rule, contraction_rule, spread_rule
from jax_convgrad.primitives.ffi import Dims
from jax_convgrad.primitives.lowering import define_primitive, shaped
from jax_convgrad.primitives.number_types import FLOAT32, Precision, converted, holds
from jax_convgrad.primitives.sharding import Factors
from jax_convgrad.primitives.spatial_parts import contraction, letter, sum_of_rows

# --------------------------------------------------------------------------------- the three contractions


def arranged(spec: tuple[int, ...], parts: Sequence[int]) -> tuple[int, ...]:
    """The shape whose dimension spec[j] has size parts[j]."""
    shape = [0] * len(spec)
    for dimension, size in zip(spec, parts, strict=True):
        shape[dimension] = size
    return tuple(shape)


def _at(spec: tuple[int, ...], first: Any, second: Any, rows: Sequence[Any] | None = None) -> tuple[Any, ...]:
    """What is said of each dimension, in their order; None of the spatial ones where nothing is said."""
    return arranged(spec, (first, second, *(rows or (None,) * (len(spec) - 2))))


def _factors(operands: str, result: str) -> Callable[..., Factors]:
    """How a contraction that takes two of x, w and y, as named, and gives the third may be split."""

    def factors(a: Any, b: Any, *, geometry: ConvGeometry, dimensions: Dims, **_: Any) -> Factors:
        # With groups it is those that are split, in x, w and y alike, and not the channels of one.
        c, k, own = ("c", "k", "c") if geometry.groups == 1 else ("g", "g", None)
        rows = [letter(axis) for axis in range(len(geometry.axes))]
        labels = {
            "x": _at(dimensions.x, "n", c, rows),
            "w": _at(dimensions.w, k, own),
            "y": _at(dimensions.y, "n", k, rows),
        }
        sizes = {
            label: array.shape[d]
            for name, array in zip(operands, (a, b), strict=True)
            for d, label in enumerate(labels[name])
            if label is not None and label not in rows
        }
        if geometry.groups > 1:
            sizes["g"] = geometry.groups
        arrays = tuple(labels[name] for name in operands)
        return Factors(arrays, (labels[result],), sizes, _local_groups, contraction(operands, result))

    return factors


def _local_groups(params: dict[str, Any], ways: Mapping[str, int]) -> dict[str, Any]:
    geometry = params["geometry"]
    return {**params, "geometry": ConvGeometry(geometry.axes, geometry.groups // ways.get("g", 1))}


def y_shape(x: Any, w: Any, geometry: ConvGeometry, dimensions: Dims) -> tuple[int, ...]:
    """Shape of ``fprop``'s result."""
    return arranged(
        dimensions.y, (x.shape[dimensions.x[0]], w.shape[dimensions.w[0]], *geometry.output_shape)
    )


def _x_shape(dy: Any, w: Any, geometry: ConvGeometry, dimensions: Dims) -> tuple[int, ...]:
    channels = w.shape[dimensions.w[1]] * geometry.groups
    return arranged(dimensions.x, (dy.shape[dimensions.y[0]], channels, *geometry.input_shape))


def w_shape(x: Any, dy: Any, geometry: ConvGeometry, dimensions: Dims) -> tuple[int, ...]:
    """Shape of ``wgrad``'s result."""
    group_in = x.shape[dimensions.x[1]] // geometry.groups
    return arranged(dimensions.w, (dy.shape[dimensions.y[1]], group_in, *geometry.filter_shape))


# How a result is split over explicit mesh axes, by how its operands are. It does not have the axes of what is
# summed over, and channels of groups go by the filter's.


def y_spec(x: Spec, w: Spec, geometry: ConvGeometry, dimensions: Dims) -> Spec:
    """How ``fprop``'s result is split over explicit axes."""
    rows = rows_spec(x, dimensions.x[2:], geometry.output_shape)
    return _at(dimensions.y, x[dimensions.x[0]], w[dimensions.w[0]], rows)


def x_spec(dy: Spec, w: Spec, geometry: ConvGeometry, dimensions: Dims) -> Spec:
    """How ``dgrad``'s result is split over explicit axes."""
    channels = w[dimensions.w[1]] if geometry.groups == 1 else None
    rows = rows_spec(dy, dimensions.y[2:], geometry.input_shape)
    return _at(dimensions.x, dy[dimensions.y[0]], channels, rows)


def w_spec(x: Spec, dy: Spec, geometry: ConvGeometry, dimensions: Dims) -> Spec:
    """How ``wgrad``'s result is split over explicit axes."""
    channels = x[dimensions.x[1]] if geometry.groups == 1 else None
    return _at(dimensions.w, dy[dimensions.y[1]], channels)


fprop_factors = _factors("xw", "y")
wgrad_factors = _factors("xy", "w")


def _contraction(
    name: str,
    operands: str,
    result: str,
    result_shape: Callable[..., tuple[int, ...]],
    native: Callable[..., jax.Array],
    on_lax: Callable[..., jax.Array],
    any_size: frozenset[str] = frozenset(),
) -> Primitive:
    """The primitive that takes two of x, w and y, as named, and gives the third."""

    def abstract(
        a: Any, b: Any, *, geometry: ConvGeometry, dimensions: Dims, result_dtype: Any = None, **_: Any
    ) -> Any:
        return shaped(a, result_shape(a, b, geometry, dimensions), result_dtype)

    def on_kernels(
        platform: str, a: Any, b: Any, *, geometry: Any, dimensions: Any, precision: Any, **rest: Any
    ) -> Any:
        shape = result_shape(a, b, geometry, dimensions)
        return native(platform, a, b, shape, geometry, dimensions, precision, **rest)

    def elsewhere(a: Any, b: Any, *, geometry: ConvGeometry, dimensions: Dims, **rest: Any) -> Any:
        shape = result_shape(a, b, geometry, dimensions)
        return on_lax(a, b, shape=shape, geometry=geometry, dimensions=dimensions, **rest)

    def rounded(total: jax.Array, a: jax.Array, *_: Any, result_dtype: Any = None, **__: Any) -> jax.Array:
        return converted(total, result_dtype or a.dtype)

    primitive = define_primitive(
        name,
        abstract,
        on_kernels,
        elsewhere,
        sums=True,
        factors=_factors(operands, result),
        of_partial_sums=(lambda platform, *parts, **params: unrounded(primitive, *parts, **params), rounded),
        any_size=any_size,
    )
    return primitive


def unrounded(contraction: Primitive, *operands: Any, **params: Any) -> jax.Array:
    """A device's part of a sum, which is rounded when all are added: of 16-bit operands it is of f32."""
    if operands[0].dtype.itemsize == 2:
        params = {**params, "result_dtype": FLOAT32}
    return contraction.bind(*operands, **params)


fprop_p = _contraction("fprop", "xw", "y", y_shape, complex_form.fprop, fallback.fprop, frozenset("n"))
dgrad_p = _contraction("dgrad", "yw", "x", _x_shape, complex_form.dgrad, fallback.dgrad, frozenset("n"))
wgrad_p = _contraction("wgrad", "xy", "w", w_shape, complex_form.wgrad, fallback.wgrad)


def fprop(
    x: jax.Array,
    w: jax.Array,
    geometry: ConvGeometry,
    dimensions: Dims,
    precision: Precision,
    result_dtype: np.dtype | None = None,
) -> jax.Array:
    """y[n,o,k] = Σ_{r,c} x[n,i,c] · w[r,c,k]."""
    return fprop_p.bind(x, w, **_params(geometry, dimensions, precision, result_dtype))


def dgrad(
    dy: jax.Array,
    w: jax.Array,
    geometry: ConvGeometry,
    dimensions: Dims,
    precision: Precision,
    result_dtype: np.dtype | None = None,
) -> jax.Array:
    """dx[n,i,c] = Σ_{r,k} dy[n,o,k] · w[r,c,k]."""
    return dgrad_p.bind(dy, w, **_params(geometry, dimensions, precision, result_dtype))


def wgrad(
    x: jax.Array,
    dy: jax.Array,
    geometry: ConvGeometry,
    dimensions: Dims,
    precision: Precision,
    result_dtype: np.dtype | None = None,
) -> jax.Array:
    """dw[r,c,k] = Σ_{n,o} x[n,i,c] · dy[n,o,k]."""
    return wgrad_p.bind(x, dy, **_params(geometry, dimensions, precision, result_dtype))


def _params(geometry: ConvGeometry, dimensions: Dims, precision: Precision, dtype: Any) -> dict[str, Any]:
    params = {"geometry": geometry, "dimensions": dimensions, "precision": precision}
    return params if dtype is None else {**params, "result_dtype": dtype}


def cotangent(
    contraction: Callable[..., jax.Array],
    a: jax.Array,
    b: jax.Array,
    dtype: Any,
    geometry: ConvGeometry,
    dimensions: Dims,
    precision: Precision,
    result_dtype: Any = None,
) -> jax.Array:
    """A contraction of a cotangent with an operand, for the other operand, of dtype ``dtype``.

    Where the result was of ``result_dtype``, so is its cotangent. There is no kernel for two dtypes, so the
    operand is widened, which loses nothing, and what comes of it is rounded.
    """
    wide = a.dtype if holds(a.dtype, b.dtype) else b.dtype
    out = contraction(converted(a, wide), converted(b, wide), geometry, dimensions, precision)
    return converted(out, dtype)


ad.defbilinear(
    fprop_p,
    lambda t, x, w, **params: cotangent(dgrad, t, w, x.aval.dtype, **params),
    lambda t, x, w, **params: cotangent(wgrad, x, t, w.aval.dtype, **params),
)
ad.defbilinear(
    dgrad_p,
    lambda t, dy, w, **params: cotangent(fprop, t, w, dy.aval.dtype, **params),
    lambda t, dy, w, **params: cotangent(wgrad, t, dy, w.aval.dtype, **params),
)
ad.defbilinear(
    wgrad_p,
    lambda t, x, dy, **params: cotangent(dgrad, dy, t, x.aval.dtype, **params),
    lambda t, x, dy, **params: cotangent(fprop, x, t, dy.aval.dtype, **params),
)

batching.primitive_batchers[fprop_p] = contraction_rule(fprop_p, "xw", "y")
batching.primitive_batchers[dgrad_p] = contraction_rule(dgrad_p, "yw", "x")
batching.primitive_batchers[wgrad_p] = contraction_rule(wgrad_p, "xy", "w")

# ------------------------------------------------------------------------------------------ bias gradient


def _bgrad_factors(dy: Any, *, channel_axis: int) -> Factors:
    """Every position may be split, whether it divides or not."""
    labels = tuple("k" if d == channel_axis else f"n{d}" for d in range(dy.ndim))
    sizes = {label: size for label, size in zip(labels, dy.shape, strict=True) if label != "k"}
    rows = functools.partial(sum_of_rows, labels, sizes)
    return Factors((labels,), (("k",),), {"k": dy.shape[channel_axis]}, rows=rows)


bgrad_p = define_primitive(
    "bgrad",
    lambda dy, *, channel_axis: shaped(dy, (dy.shape[channel_axis],)),
    complex_form.bgrad,
    fallback.bgrad,
    sums=True,
    factors=_bgrad_factors,
)


def unrounded_bgrad(dy: jax.Array, channel_axis: int) -> jax.Array:
    """A device's part of db; of 16 bits it is the sum of a dy that was widened."""
    return bgrad_p.bind(converted(dy, FLOAT32) if dy.dtype.itemsize == 2 else dy, channel_axis=channel_axis)


def bgrad(dy: jax.Array, channel_axis: int) -> jax.Array:
    """db[k] = Σ_{n,o} dy[n,o,k]."""
    return bgrad_p.bind(dy, channel_axis=channel_axis)


def _spread(b: jax.Array, *, shape: tuple[int, ...], channel_axis: int) -> jax.Array:
    return lax.broadcast_in_dim(b, shape, (channel_axis,))


# A broadcast, which XLA fuses into what comes next; a primitive of its own so that its transpose is bgrad.
spread_p = define_primitive(
    "spread",
    lambda b, *, shape, channel_axis: shaped(b, shape),
    lambda platform, b, **params: _spread(b, **params),
    _spread,
    only_calls=False,
)


def spread(b: jax.Array, shape: tuple[int, ...], channel_axis: int) -> jax.Array:
    """b[k] at every n and o of a y of the given shape: the transpose of ``bgrad``."""
    return spread_p.bind(b, shape=shape, channel_axis=channel_axis)


ad.deflinear2(bgrad_p, lambda t, dy, *, channel_axis: [spread(t, dy.aval.shape, channel_axis)])
ad.deflinear2(spread_p, lambda t, b, *, shape, channel_axis: [bgrad(t, channel_axis)])
batching.primitive_batchers[bgrad_p] = bgrad_rule(bgrad_p)
batching.primitive_batchers[spread_p] = spread_rule
