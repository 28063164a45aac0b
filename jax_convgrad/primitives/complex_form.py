"""Complex arrays on the real kernels: each channel becomes two, its real part and its imaginary part.

A product of complex numbers is a real 2 by 2 contraction over these parts, so a complex convolution is one
real convolution of twice the channels, filter [in, out] = [[re, im], [−im, re]]:

    y_re + i·y_im  =  [x_re, x_im] · [[w_re, w_im], [−w_im, w_re]]

The parts lie next to each other, as in memory, and group by group, so groups stay groups. This is four real
products where three would do (Gauss), but it is one call, and each part of the result has the real kernels'
error bound, which differences of larger sums lose.

JAX's transposes do not conjugate: dx = Σ dy·w and dw = Σ x·dy. dgrad contracts with the transposed filter,
[[re, −im], [im, re]], which is the conjugate's; so it is given the conjugate's. wgrad gives all four products
of parts. The functions are those of ``ffi``, and pass real arrays on to them.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import DTypeLike

from jax_convgrad.geometry import Axis, ConvGeometry
from jax_convgrad.primitives import ffi
from jax_convgrad.primitives.ffi import Dims
from jax_convgrad.primitives.number_types import Precision


def fprop(
    platform: str,
    x: jax.Array,
    w: jax.Array,
    shape: tuple[int, ...],
    geometry: ConvGeometry,
    dims: Dims,
    precision: Precision,
    *bias: jax.Array,
    relu: bool = False,
    result_dtype: np.dtype | None = None,
) -> jax.Array:
    """y of the given shape, with a bias added where one is given; relu is of real numbers only."""
    if not _is_complex(x):
        return ffi.fprop(
            platform, x, w, shape, geometry, dims, precision, *bias, relu=relu, result_dtype=result_dtype
        )
    x, w, bias = _parts(x, dims.x[1]), _matrix(w, dims), tuple(_parts(b, 0) for b in bias)
    doubled = _doubled(shape, dims.y[1])
    return _joined(ffi.fprop(platform, x, w, doubled, geometry, dims, precision, *bias), dims.y[1])


def dgrad(
    platform: str,
    dy: jax.Array,
    w: jax.Array,
    shape: tuple[int, ...],
    geometry: ConvGeometry,
    dims: Dims,
    precision: Precision,
    result_dtype: np.dtype | None = None,
) -> jax.Array:
    """dx of the given shape."""
    if not _is_complex(dy):
        return ffi.dgrad(platform, dy, w, shape, geometry, dims, precision, result_dtype)
    dy, w = _parts(dy, dims.y[1]), _matrix(jnp.conj(w), dims)
    return _joined(
        ffi.dgrad(platform, dy, w, _doubled(shape, dims.x[1]), geometry, dims, precision), dims.x[1]
    )


def wgrad(
    platform: str,
    x: jax.Array,
    dy: jax.Array,
    shape: tuple[int, ...],
    geometry: ConvGeometry,
    dims: Dims,
    precision: Precision,
    result_dtype: np.dtype | None = None,
) -> jax.Array:
    """dw of the given shape."""
    if not _is_complex(x):
        return ffi.wgrad(platform, x, dy, shape, geometry, dims, precision, result_dtype)
    w_out, w_in = dims.w[:2]
    x, dy = _parts(x, dims.x[1]), _parts(dy, dims.y[1])
    products = ffi.wgrad(platform, x, dy, _doubled(_doubled(shape, w_in), w_out), geometry, dims, precision)
    return _joined_products(products, dims)


def _joined_products(products: jax.Array, dims: Dims) -> jax.Array:
    w_out, w_in = dims.w[:2]
    (re_re, re_im), (im_re, im_im) = (_split(row, w_out) for row in _split(products, w_in))
    return lax.complex(re_re - im_im, re_im + im_re)


def wgrad_bgrad(
    platform: str,
    x: jax.Array,
    dy: jax.Array,
    shape: tuple[int, ...],
    geometry: ConvGeometry,
    dims: Dims,
    precision: Precision,
) -> tuple[jax.Array, jax.Array]:
    """dw of the given shape, and db."""
    if not _is_complex(x):
        return ffi.wgrad_bgrad(platform, x, dy, shape, geometry, dims, precision)
    w_out, w_in = dims.w[:2]
    x, dy = _parts(x, dims.x[1]), _parts(dy, dims.y[1])
    doubled = _doubled(_doubled(shape, w_in), w_out)
    products, db = ffi.wgrad_bgrad(platform, x, dy, doubled, geometry, dims, precision)
    return _joined_products(products, dims), _joined(db, 0)


def bgrad(platform: str, dy: jax.Array, channel_axis: int) -> jax.Array:
    """db, one entry a channel."""
    if not _is_complex(dy):
        return ffi.bgrad(platform, dy, channel_axis)
    return _joined(ffi.bgrad(platform, _parts(dy, channel_axis), channel_axis), 0)


def avg_pool(
    platform: str,
    op: str,
    x: jax.Array,
    shape: tuple[int, ...],
    axes: Sequence[Axis],
    dimensions: tuple[int, ...],
    count_include_pad: bool,
    sum: bool = False,
) -> jax.Array:
    """Either of average pooling's calls, which treat each channel alike."""

    def call(x: jax.Array, shape: tuple[int, ...], dtype: DTypeLike) -> jax.Array:
        return ffi.pool(platform, op, [x], [(shape, dtype)], axes, dimensions, count_include_pad, sum=sum)[0]

    if not _is_complex(x):
        return call(x, shape, x.dtype)
    channels = dimensions[1]
    x = _parts(x, channels)
    return _joined(call(x, _doubled(shape, channels), x.dtype), channels)


def _is_complex(array: jax.Array) -> bool:
    return jnp.issubdtype(array.dtype, jnp.complexfloating)


def _doubled(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return (*shape[:axis], 2 * shape[axis], *shape[axis + 1 :])


def _interleaved(first: jax.Array, second: jax.Array, axis: int) -> jax.Array:
    """[a0, b0, a1, b1, ...] along an axis."""
    return jnp.reshape(jnp.stack([first, second], axis + 1), _doubled(first.shape, axis))


def _split(array: jax.Array, axis: int) -> tuple[jax.Array, jax.Array]:
    """The inverse of ``_interleaved``."""
    shape = array.shape
    pairs = jnp.reshape(array, (*shape[:axis], shape[axis] // 2, 2, *shape[axis + 1 :]))
    return (
        lax.index_in_dim(pairs, 0, axis + 1, keepdims=False),
        lax.index_in_dim(pairs, 1, axis + 1, keepdims=False),
    )


def _parts(array: jax.Array, channel_axis: int) -> jax.Array:
    return _interleaved(lax.real(array), lax.imag(array), channel_axis)


def _joined(array: jax.Array, channel_axis: int) -> jax.Array:
    return lax.complex(*_split(array, channel_axis))


def _matrix(w: jax.Array, dims: Dims) -> jax.Array:
    """The filter over parts: rows are x's, columns y's."""
    w_out, w_in = dims.w[:2]
    re, im = lax.real(w), lax.imag(w)
    return _interleaved(_interleaved(re, im, w_out), _interleaved(-im, re, w_out), w_in)
