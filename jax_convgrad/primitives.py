"""The kernels as JAX primitives: shape rules, derivatives of each in terms of the others, lowerings.

``fprop``, ``dgrad`` and ``wgrad`` are bilinear, and are one trilinear form Σ x·w·y with one argument left
open each. So the transpose of each in one operand is another of the three, over the same geometry:

    y  = fprop(x, w)      in x: dgrad      in w: wgrad
    dx = dgrad(dy, w)     in dy: fprop     in w: wgrad
    dw = wgrad(x, dy)     in x: dgrad      in dy: fprop

which gives derivatives of every order. On a platform without kernels each is lowered to ``jax.lax``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from jax import lax
from jax.interpreters import ad, batching

from jax_convgrad import complex_form, fallback
from jax_convgrad.arguments import Precision
from jax_convgrad.axis_types import Spec, rows_spec
from jax_convgrad.batching import bgrad_rule, contraction_rule, spread_rule
from jax_convgrad.ffi import Dims
from jax_convgrad.geometry import ConvGeometry
from jax_convgrad.lowering import define_primitive, shaped
from jax_convgrad.problem import arranged
from jax_convgrad.sharding import Factors
from jax_convgrad.spatial_parts import contraction, letter, sum_of_rows

# --------------------------------------------------------------------------------- the three contractions


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
    """The result's of ``fprop``."""
    return arranged(
        dimensions.y, (x.shape[dimensions.x[0]], w.shape[dimensions.w[0]], *geometry.output_shape)
    )


def _x_shape(dy: Any, w: Any, geometry: ConvGeometry, dimensions: Dims) -> tuple[int, ...]:
    channels = w.shape[dimensions.w[1]] * geometry.groups
    return arranged(dimensions.x, (dy.shape[dimensions.y[0]], channels, *geometry.input_shape))


def w_shape(x: Any, dy: Any, geometry: ConvGeometry, dimensions: Dims) -> tuple[int, ...]:
    """The result's of ``wgrad``."""
    group_in = x.shape[dimensions.x[1]] // geometry.groups
    return arranged(dimensions.w, (dy.shape[dimensions.y[1]], group_in, *geometry.filter_shape))


# How a result is split over explicit mesh axes, by how its operands are. It does not have the axes of what is
# summed over, and channels of groups go by the filter's.


def y_spec(x: Spec, w: Spec, geometry: ConvGeometry, dimensions: Dims) -> Spec:
    """The result's of ``fprop``."""
    rows = rows_spec(x, dimensions.x[2:], geometry.output_shape)
    return _at(dimensions.y, x[dimensions.x[0]], w[dimensions.w[0]], rows)


def x_spec(dy: Spec, w: Spec, geometry: ConvGeometry, dimensions: Dims) -> Spec:
    """The result's of ``dgrad``."""
    channels = w[dimensions.w[1]] if geometry.groups == 1 else None
    rows = rows_spec(dy, dimensions.y[2:], geometry.input_shape)
    return _at(dimensions.x, dy[dimensions.y[0]], channels, rows)


def w_spec(x: Spec, dy: Spec, geometry: ConvGeometry, dimensions: Dims) -> Spec:
    """The result's of ``wgrad``."""
    channels = x[dimensions.x[1]] if geometry.groups == 1 else None
    return _at(dimensions.w, dy[dimensions.y[1]], channels)


fprop_factors = _factors("xw", "y")
wgrad_factors = _factors("xy", "w")

fprop_p = define_primitive(
    "fprop",
    lambda x, w, *, geometry, dimensions, precision: shaped(x, y_shape(x, w, geometry, dimensions)),
    lambda platform, x, w, *, geometry, dimensions, precision: complex_form.fprop(
        platform, x, w, y_shape(x, w, geometry, dimensions), geometry, dimensions, precision
    ),
    fallback.fprop,
    sums=True,
    factors=fprop_factors,
    any_size=frozenset("n"),
)

dgrad_p = define_primitive(
    "dgrad",
    lambda dy, w, *, geometry, dimensions, precision: shaped(dy, _x_shape(dy, w, geometry, dimensions)),
    lambda platform, dy, w, *, geometry, dimensions, precision: complex_form.dgrad(
        platform, dy, w, _x_shape(dy, w, geometry, dimensions), geometry, dimensions, precision
    ),
    lambda dy, w, *, geometry, dimensions, precision: fallback.dgrad(
        dy,
        w,
        shape=_x_shape(dy, w, geometry, dimensions),
        geometry=geometry,
        dimensions=dimensions,
        precision=precision,
    ),
    sums=True,
    factors=_factors("yw", "x"),
    any_size=frozenset("n"),
)

wgrad_p = define_primitive(
    "wgrad",
    lambda x, dy, *, geometry, dimensions, precision: shaped(x, w_shape(x, dy, geometry, dimensions)),
    lambda platform, x, dy, *, geometry, dimensions, precision: complex_form.wgrad(
        platform, x, dy, w_shape(x, dy, geometry, dimensions), geometry, dimensions, precision
    ),
    lambda x, dy, *, geometry, dimensions, precision: fallback.wgrad(
        x,
        dy,
        shape=w_shape(x, dy, geometry, dimensions),
        geometry=geometry,
        dimensions=dimensions,
        precision=precision,
    ),
    sums=True,
    factors=wgrad_factors,
)


def fprop(
    x: jax.Array, w: jax.Array, geometry: ConvGeometry, dimensions: Dims, precision: Precision
) -> jax.Array:
    """y[n,o,k] = Σ_{r,c} x[n,i,c] · w[r,c,k]."""
    return fprop_p.bind(x, w, geometry=geometry, dimensions=dimensions, precision=precision)


def dgrad(
    dy: jax.Array, w: jax.Array, geometry: ConvGeometry, dimensions: Dims, precision: Precision
) -> jax.Array:
    """dx[n,i,c] = Σ_{r,k} dy[n,o,k] · w[r,c,k]."""
    return dgrad_p.bind(dy, w, geometry=geometry, dimensions=dimensions, precision=precision)


def wgrad(
    x: jax.Array, dy: jax.Array, geometry: ConvGeometry, dimensions: Dims, precision: Precision
) -> jax.Array:
    """dw[r,c,k] = Σ_{n,o} x[n,i,c] · dy[n,o,k]."""
    return wgrad_p.bind(x, dy, geometry=geometry, dimensions=dimensions, precision=precision)


ad.defbilinear(
    fprop_p,
    lambda t, x, w, **params: dgrad(t, w, **params),
    lambda t, x, w, **params: wgrad(x, t, **params),
)
ad.defbilinear(
    dgrad_p,
    lambda t, dy, w, **params: fprop(t, w, **params),
    lambda t, dy, w, **params: wgrad(t, dy, **params),
)
ad.defbilinear(
    wgrad_p,
    lambda t, x, dy, **params: dgrad(dy, t, **params),
    lambda t, x, dy, **params: fprop(x, t, **params),
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
