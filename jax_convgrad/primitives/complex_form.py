"""Complex arrays on the real kernels: each channel becomes two, its real part and its imaginary part.

A product of complex numbers is a real 2 by 2 contraction over these parts, so a complex convolution is one
real convolution of twice the channels, filter [in, out] = [[re, im], [−im, re]]:

    y_re + i·y_im  =  [x_re, x_im] · [[w_re, w_im], [−w_im, w_re]]

The parts lie next to each other, as in memory, and group by group, so groups stay groups. This is four real
products where three would do (Gauss), but it is one call, and each part of the result has the real kernels'
error bound, which differences of larger sums lose.

JAX's transposes do not conjugate: dx = Σ dy·w and dw = Σ x·dy. dgrad contracts with the transposed filter,
[[re, −im], [im, re]], which is that of the conjugate; so it gets the conjugate's. wgrad gives all four
products of parts.

A ``ComplexForm`` says this for one primitive; ``define`` (define.py) puts it around the primitive's kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jax_convgrad.primitives.conv_spec import ConvSpec
from jax_convgrad.primitives.pool_spec import PoolSpec


@dataclass(frozen=True)
class ComplexForm:
    """The way in which a call on complex arrays becomes the same call on real ones.

    ``before(*operands, **params)`` gives the real operands, ``after(result, ..., **params)`` the complex
    results from the real ones.
    """

    before: Callable[..., Sequence[jax.Array]]
    after: Callable[..., Sequence[jax.Array]]

    def on_parts(self, call: Callable[..., Any], *operands: jax.Array, **params: Any) -> Any:
        """``call(*operands, **params)`` of complex operands, computed by a call of real ones."""
        results = call(*self.before(*operands, **params), **params)
        several = isinstance(results, Sequence)
        joined = self.after(*(results if several else (results,)), **params)
        return joined if several else joined[0]


# --------------------------------------------------------------------------------------------- each primitive

fprop = ComplexForm(
    lambda x, w, *b, spec, **_: (
        _parts(x, spec.x_channel),
        _matrix(w, spec),
        *(_parts(bias, 0) for bias in b),
    ),
    lambda y, *, spec, **_: [_joined(y, spec.y_channel)],
)
dgrad = ComplexForm(
    lambda dy, w, *, spec: (_parts(dy, spec.y_channel), _matrix(jnp.conj(w), spec)),
    lambda dx, *, spec: [_joined(dx, spec.x_channel)],
)
wgrad = ComplexForm(
    lambda x, dy, *, spec: (_parts(x, spec.x_channel), _parts(dy, spec.y_channel)),
    # With db, if the call sums that too.
    lambda dw, *db, spec: [_joined_products(dw, spec), *(_joined(b, 0) for b in db)],
)
bgrad = ComplexForm(
    lambda dy, *, channel_axis: [_parts(dy, channel_axis)],
    lambda db, *, channel_axis: [_joined(db, 0)],
)


def _pool_parts(x: jax.Array, *, spec: PoolSpec, **_: Any) -> Sequence[jax.Array]:
    return [_parts(x, spec.channel)]


def _pool_joined(y: jax.Array, *, spec: PoolSpec, **_: Any) -> Sequence[jax.Array]:
    return [_joined(y, spec.channel)]


sums_of_windows = ComplexForm(_pool_parts, _pool_joined)
"""Average and sum pooling and their gradients, which treat each channel alike."""

# ------------------------------------------------------------------------------------------------------ parts


def is_complex(array: Any) -> bool:
    """Reports whether the array is of a complex dtype."""
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


def _matrix(w: jax.Array, spec: ConvSpec) -> jax.Array:
    """The filter over parts: its rows belong to x, its columns to y."""
    w_out, w_in = spec.dimensions.w[:2]
    re, im = lax.real(w), lax.imag(w)
    return _interleaved(_interleaved(re, im, w_out), _interleaved(-im, re, w_out), w_in)


def _joined_products(products: jax.Array, spec: ConvSpec) -> jax.Array:
    w_out, w_in = spec.dimensions.w[:2]
    (re_re, re_im), (im_re, im_im) = (_split(row, w_out) for row in _split(products, w_in))
    return lax.complex(re_re - im_im, re_im + im_re)
