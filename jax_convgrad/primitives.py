"""The kernels as JAX primitives: shape rules, derivatives of each in terms of the others, lowerings.

``fprop``, ``dgrad`` and ``wgrad`` are bilinear, and are one trilinear form Σ x·w·y with one argument left
open each. So the transpose of each in one operand is another of the three, over the same geometry:

    y  = fprop(x, w)      in x: dgrad      in w: wgrad
    dx = dgrad(dy, w)     in dy: fprop     in w: wgrad
    dw = wgrad(x, dy)     in x: dgrad      in dy: fprop

which gives derivatives of every order. On a platform without kernels each is lowered to ``jax.lax``.
"""

from __future__ import annotations

from typing import Any

import jax
from jax import lax
from jax.interpreters import ad

from jax_convgrad import complex_form, fallback
from jax_convgrad.arguments import Precision
from jax_convgrad.ffi import Dims
from jax_convgrad.geometry import ConvGeometry
from jax_convgrad.lowering import define_primitive, shaped
from jax_convgrad.problem import arranged

# --------------------------------------------------------------------------------- the three contractions


def _y_shape(x: Any, w: Any, geometry: ConvGeometry, dimensions: Dims) -> tuple[int, ...]:
    return arranged(
        dimensions.y, (x.shape[dimensions.x[0]], w.shape[dimensions.w[0]], *geometry.output_shape)
    )


def _x_shape(dy: Any, w: Any, geometry: ConvGeometry, dimensions: Dims) -> tuple[int, ...]:
    channels = w.shape[dimensions.w[1]] * geometry.groups
    return arranged(dimensions.x, (dy.shape[dimensions.y[0]], channels, *geometry.input_shape))


def _w_shape(x: Any, dy: Any, geometry: ConvGeometry, dimensions: Dims) -> tuple[int, ...]:
    group_in = x.shape[dimensions.x[1]] // geometry.groups
    return arranged(dimensions.w, (dy.shape[dimensions.y[1]], group_in, *geometry.filter_shape))


fprop_p = define_primitive(
    "fprop",
    lambda x, w, *, geometry, dimensions, precision: shaped(x, _y_shape(x, w, geometry, dimensions)),
    lambda platform, x, w, *, geometry, dimensions, precision: complex_form.fprop(
        platform, x, w, _y_shape(x, w, geometry, dimensions), geometry, dimensions
    ),
    fallback.fprop,
    sums=True,
)

dgrad_p = define_primitive(
    "dgrad",
    lambda dy, w, *, geometry, dimensions, precision: shaped(dy, _x_shape(dy, w, geometry, dimensions)),
    lambda platform, dy, w, *, geometry, dimensions, precision: complex_form.dgrad(
        platform, dy, w, _x_shape(dy, w, geometry, dimensions), geometry, dimensions
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
)

wgrad_p = define_primitive(
    "wgrad",
    lambda x, dy, *, geometry, dimensions, precision: shaped(x, _w_shape(x, dy, geometry, dimensions)),
    lambda platform, x, dy, *, geometry, dimensions, precision: complex_form.wgrad(
        platform, x, dy, _w_shape(x, dy, geometry, dimensions), geometry, dimensions
    ),
    lambda x, dy, *, geometry, dimensions, precision: fallback.wgrad(
        x,
        dy,
        shape=_w_shape(x, dy, geometry, dimensions),
        geometry=geometry,
        dimensions=dimensions,
        precision=precision,
    ),
    sums=True,
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

# ------------------------------------------------------------------------------------------ bias gradient

bgrad_p = define_primitive(
    "bgrad",
    lambda dy, *, channel_axis: shaped(dy, (dy.shape[channel_axis],)),
    complex_form.bgrad,
    fallback.bgrad,
    sums=True,
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
)


def spread(b: jax.Array, shape: tuple[int, ...], channel_axis: int) -> jax.Array:
    """b[k] at every n and o of a y of the given shape: the transpose of ``bgrad``."""
    return spread_p.bind(b, shape=shape, channel_axis=channel_axis)


ad.deflinear2(bgrad_p, lambda t, dy, *, channel_axis: [spread(t, dy.aval.shape, channel_axis)])
ad.deflinear2(spread_p, lambda t, b, *, shape, channel_axis: [bgrad(t, channel_axis)])
