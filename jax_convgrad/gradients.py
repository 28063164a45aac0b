"""Which kernel is whose derivative: the layers, bound with ``jax.custom_vjp`` (primitives/binding.py).

    y  = fprop(x, w) + b            ∂E/∂x = dgrad(∂E/∂y, w)
                                    ∂E/∂w = wgrad(x, ∂E/∂y)
                                    ∂E/∂b = bgrad(∂E/∂y)

    y  = dgrad(x, w), transposed    ∂E/∂x = fprop(∂E/∂y, w)
                                    ∂E/∂w = wgrad(∂E/∂y, x)

    y  = max_pool(x)                ∂E/∂x = max_pool_grad(∂E/∂y, position of each first maximum)
    y  = avg_pool(x)                ∂E/∂x = avg_pool_grad(∂E/∂y)

A backward pass is made of primitives whose derivatives are again these kernels
(primitives/contractions.py), so reverse mode may be applied any number of times.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jax_convgrad.geometry import Axis, ConvGeometry
from jax_convgrad.primitives import contractions, pool_primitives
from jax_convgrad.primitives.axis_types import rows_spec
from jax_convgrad.primitives.binding import bind
from jax_convgrad.primitives.epilogue import fprop_epilogue
from jax_convgrad.primitives.ffi import Dims
from jax_convgrad.primitives.filter_and_bias import wgrad_bgrad
from jax_convgrad.primitives.number_types import Precision
from jax_convgrad.primitives.pool_primitives import channels_last

# The rules below take what their layers take, whose types are said there, in custom_vjp's order; to say them
# again would hide the formulas.

# --------------------------------------------------------------------------- y = activation(fprop(x, w) + b)


def _convolution(
    x: jax.Array,
    w: jax.Array,
    b: jax.Array | None,
    relu: bool,
    geometry: ConvGeometry,
    dims: Dims,
    precision: Precision,
    result_dtype: np.dtype | None,
) -> jax.Array:
    """y[n,o,k] = Σ_{r,c} x[n,i,c] · w[r,c,k], plus b[k] where there is one, then max(y, 0) where ``relu``.

    ``result_dtype`` is the primitives', of a y with neither.
    """
    return _convolution_fwd(x, w, b, relu, geometry, dims, precision, result_dtype)[0]


def _convolution_fwd(x, w, b, relu, geometry, dims, precision, result_dtype):  # type: ignore[no-untyped-def]
    if result_dtype is not None:
        return contractions.fprop(x, w, geometry, dims, precision, result_dtype), (x, w, b, None)
    y = fprop_epilogue(x, w, b, relu, geometry, dims, precision)
    return y, (x, w, b, y if relu else None)


def _convolution_bwd(relu, geometry, dims, precision, _, kept, dy):  # type: ignore[no-untyped-def]
    x, w, b, y = kept
    if relu:
        dy = jnp.where(y > 0, dy, 0)  # the gradient of relu at 0 is 0, as in jax.nn.relu
    dx = contractions.cotangent(contractions.dgrad, dy, w, x.dtype, geometry, dims, precision)
    if b is None:
        return dx, contractions.cotangent(contractions.wgrad, x, dy, w.dtype, geometry, dims, precision), None
    return dx, *wgrad_bgrad(x, dy, geometry, dims, precision)


def _convolution_spec(specs, relu, geometry, dims, *_):  # type: ignore[no-untyped-def]
    return contractions.y_spec(specs[0], specs[1], geometry, dims)


convolution = bind(_convolution, _convolution_fwd, _convolution_bwd, 3, _convolution_spec)

# ------------------------------------------------------------------------------- y = dgrad(x, w), transposed


def _transposed_convolution(
    x: jax.Array,
    w: jax.Array,
    geometry: ConvGeometry,
    dims: Dims,
    precision: Precision,
    result_dtype: np.dtype | None,
) -> jax.Array:
    """y[n,i,c] = Σ_{r,k} x[n,o,k] · w[r,c,k], over the geometry and dims of the convolution undone."""
    return contractions.dgrad(x, w, geometry, dims, precision, result_dtype)


def _transposed_fwd(x, w, *static):  # type: ignore[no-untyped-def]
    return contractions.dgrad(x, w, *static), (x, w)


def _transposed_bwd(geometry, dims, precision, _, kept, dy):  # type: ignore[no-untyped-def]
    x, w = kept
    dx = contractions.cotangent(contractions.fprop, dy, w, x.dtype, geometry, dims, precision)
    dw = contractions.cotangent(contractions.wgrad, dy, x, w.dtype, geometry, dims, precision)
    return dx, dw


def _transposed_spec(specs, geometry, dims, *_):  # type: ignore[no-untyped-def]
    return contractions.x_spec(*specs, geometry, dims)


transposed_convolution = bind(_transposed_convolution, _transposed_fwd, _transposed_bwd, 2, _transposed_spec)

# --------------------------------------------------------------------------------------------------- pooling


def _pool_spec(specs, axes, *_):  # type: ignore[no-untyped-def]
    rows = rows_spec(specs[0], range(1, len(axes) + 1), [axis.output for axis in axes])
    return (specs[0][0], *rows, specs[0][-1])


def _max_pool(x: jax.Array, axes: tuple[Axis, ...]) -> jax.Array:
    """y[n,o,c] = max_r x[n,i,c]."""
    return pool_primitives.max_pool(x, axes, channels_last(axes))


def _max_pool_fwd(x, axes):  # type: ignore[no-untyped-def]
    return pool_primitives.max_pool_argmax(x, axes, channels_last(axes))


def _max_pool_bwd(axes, position, dy):  # type: ignore[no-untyped-def]
    return (pool_primitives.max_pool_grad(dy, position, axes, channels_last(axes)),)


max_pool = bind(_max_pool, _max_pool_fwd, _max_pool_bwd, 1, _pool_spec)


def _avg_pool(x: jax.Array, axes: tuple[Axis, ...], count_include_pad: bool) -> jax.Array:
    """y[n,o,c] = Σ_r x[n,i,c] / count(o)."""
    return pool_primitives.avg_pool(x, axes, channels_last(axes), count_include_pad)


def _avg_pool_fwd(x, axes, count_include_pad):  # type: ignore[no-untyped-def]
    return pool_primitives.avg_pool(x, axes, channels_last(axes), count_include_pad), None


def _avg_pool_bwd(axes, count_include_pad, _, dy):  # type: ignore[no-untyped-def]
    return (pool_primitives.avg_pool_grad(dy, axes, channels_last(axes), count_include_pad),)


avg_pool = bind(_avg_pool, _avg_pool_fwd, _avg_pool_bwd, 1, _pool_spec)
