"""Checks of arrays that every public function shares."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike, DTypeLike

Precision = lax.Precision | tuple[lax.Precision, lax.Precision] | None
"""What ``jax.lax`` calls a precision, in the one hashable form that primitives carry."""

DTYPES = ("float32", "float64", "bfloat16", "float16")
"""What the kernels compute with."""


def float_arrays(**named: ArrayLike) -> list[jax.Array]:
    """The arguments as JAX arrays of one of the kernels' dtypes, the same for all.

    Raises:
      TypeError: one is no array of such a dtype, or they differ in dtype.
    """
    arrays = {}
    for name, value in named.items():
        if not (hasattr(value, "dtype") and hasattr(value, "shape")):
            raise TypeError(f"{name} must be an array, not {type(value).__name__}")
        arrays[name] = jnp.asarray(value)
        dtype = arrays[name].dtype
        if dtype.name not in DTYPES:
            raise TypeError(f"{name} must be of dtype {', '.join(DTYPES[:-1])} or {DTYPES[-1]}, not {dtype}")
    (first_name, first), *others = arrays.items()
    for name, array in others:
        if array.dtype != first.dtype:
            raise TypeError(
                f"{first_name} and {name} must have the same dtype, not {first.dtype} and {array.dtype}"
            )
    return list(arrays.values())


def canonical_precision(precision: Any) -> Precision:
    """A ``jax.lax`` precision (None, a name, a ``Precision``, or a pair of these) in its canonical form.

    Raises:
      ValueError: it is none of these.
    """
    message = (
        f"precision must be None, a jax.lax.Precision or its name, or a pair of these, not {precision!r}"
    )
    try:
        if precision is None:
            return None
        if isinstance(precision, str | lax.Precision):
            return lax.Precision(precision)
        of_x, of_w = precision
        return lax.Precision(of_x), lax.Precision(of_w)
    except (TypeError, ValueError):
        raise ValueError(message) from None


def accumulation_dtype(preferred_element_type: DTypeLike | None, given: jnp.dtype) -> jnp.dtype:
    """The dtype of a result for which ``jax.lax``'s ``preferred_element_type`` is asked.

    Raises:
      TypeError: it is not one of the kernels' dtypes, or narrower than the operands'.
    """
    if preferred_element_type is None:
        return given
    dtype = jax.dtypes.canonicalize_dtype(preferred_element_type)
    if dtype.name not in DTYPES or dtype.itemsize < given.itemsize:
        raise TypeError(
            f"preferred_element_type must be a floating dtype at least as wide as {given}, not {dtype}"
        )
    return dtype
