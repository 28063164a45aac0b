"""Checks of arrays, precisions and dtypes that every public function shares."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike, DTypeLike

from jax_convgrad.primitives.number_types import NUMBERS, Precision


def arrays(dtypes: Sequence[str] | None = None, **named: ArrayLike) -> list[jax.Array]:
    """The arguments as JAX arrays of one dtype, which is among ``dtypes`` unless that is None.

    Raises:
      TypeError: one is not an array of such a dtype, or they differ in dtype.
    """
    given = {}
    for name, value in named.items():
        if not (hasattr(value, "dtype") and hasattr(value, "shape")):
            raise TypeError(f"{name} must be an array, not {type(value).__name__}")
        given[name] = jnp.asarray(value)
        dtype = given[name].dtype
        if dtypes is not None and dtype.name not in dtypes:
            raise TypeError(f"{name} must be of dtype {', '.join(dtypes[:-1])} or {dtypes[-1]}, not {dtype}")
    (first_name, first), *others = given.items()
    for name, array in others:
        if array.dtype != first.dtype:
            raise TypeError(
                f"{first_name} and {name} must have the same dtype, not {first.dtype} and {array.dtype}"
            )
    return list(given.values())


def on_kernels(array: jax.Array) -> bool:
    """Reports whether the kernels know this dtype; ``jax.lax`` computes others (integers, bool, float8)."""
    return array.dtype.name in NUMBERS


def canonical_precision(precision: Any) -> Precision:
    """A ``jax.lax`` precision in its canonical form, from any form that ``jax.lax`` takes.

    None stands for ``jax.default_matmul_precision``'s, if that is set.

    Raises:
      ValueError: it is not a precision.
    """
    config: Any = jax.config  # type checkers do not know its settings
    if precision is None and config.jax_default_matmul_precision is not None:
        return canonical_precision(config.jax_default_matmul_precision)
    if precision is None or isinstance(precision, lax.Precision | lax.DotAlgorithm | lax.DotAlgorithmPreset):
        return precision
    try:
        if isinstance(precision, str):
            presets = lax.DotAlgorithmPreset.__members__
            return presets[precision] if precision in presets else lax.Precision(precision)
        if isinstance(precision, list | tuple):
            of_x, of_w = precision
            if any(all(isinstance(one, kind) for one in precision) for kind in (str, lax.Precision)):
                return lax.Precision(of_x), lax.Precision(of_w)
    except ValueError:
        pass
    raise ValueError(
        "precision must be None, a jax.lax.Precision or its name, a pair of these, a jax.lax.DotAlgorithm, "
        f"or a jax.lax.DotAlgorithmPreset or its name, not {precision!r}"
    )


def result_dtype(preferred_element_type: DTypeLike | None, given: jnp.dtype) -> jnp.dtype:
    """The dtype of a result with ``jax.lax``'s ``preferred_element_type``, of operands of dtype ``given``.

    Raises:
      TypeError: it is of another kind than the operands' dtype, or narrower.
    """
    if preferred_element_type is None:
        return given
    dtype = jax.dtypes.canonicalize_dtype(preferred_element_type)
    kind = jnp.complexfloating if jnp.issubdtype(given, jnp.complexfloating) else jnp.floating
    if not jnp.issubdtype(dtype, kind) or dtype.itemsize < given.itemsize:
        raise TypeError(
            f"preferred_element_type must be a {kind.__name__} dtype at least as wide as {given}, not {dtype}"
        )
    return dtype
