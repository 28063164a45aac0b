"""Checks of arrays, precisions and dtypes that every public function shares."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike, DTypeLike

Precision = (
    lax.Precision | lax.DotAlgorithm | lax.DotAlgorithmPreset | tuple[lax.Precision, lax.Precision] | None
)
"""What ``jax.lax`` calls a precision, in the one hashable form that primitives carry."""

REAL = ("float32", "float64", "bfloat16", "float16")
"""What the kernels compute with."""

NUMBERS = (*REAL, "complex64", "complex128")
"""What runs on the kernels: a complex array is a real one of twice the channels (complex_form.py)."""


def arrays(dtypes: Sequence[str] | None = None, **named: ArrayLike) -> list[jax.Array]:
    """The arguments as JAX arrays of one dtype: of any where ``dtypes`` is None, else of one of these.

    Raises:
      TypeError: one is no array of such a dtype, or they differ in dtype.
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
    """Whether the kernels know arrays of this dtype; of others (integers, bool, float8) ``jax.lax`` does."""
    return array.dtype.name in NUMBERS


def canonical_precision(precision: Any) -> Precision:
    """A ``jax.lax`` precision in its canonical form; each way to write one that ``jax.lax`` takes.

    None is ``jax.default_matmul_precision``'s, where that is set.

    Raises:
      ValueError: it is none.
    """
    config: Any = jax.config  # whose settings no type checker knows
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


def allows_tf32(precision: Precision) -> bool:
    """Whether f32 operands may be rounded to TF32, 10 bits of mantissa, before they are multiplied.

    As in XLA for GPUs: at every precision but HIGHEST, and in algorithms that multiply that narrowly.
    """
    if precision is None:
        return True
    if isinstance(precision, tuple):
        return lax.Precision.HIGHEST not in precision
    if isinstance(precision, lax.Precision):
        return precision != lax.Precision.HIGHEST
    if isinstance(precision, lax.DotAlgorithmPreset):
        # BF16_BF16_F32_X3 and its like make up for narrow products by their number.
        narrow = precision.name.startswith(("TF32_", "BF16_", "F16_", "ANY_F8_"))
        return precision.name == "DEFAULT" or (narrow and not precision.name.endswith(("X3", "X6", "X9")))
    return precision.num_primitive_operations == 1 and np.dtype(precision.lhs_precision_type) != np.float32


def result_dtype(preferred_element_type: DTypeLike | None, given: jnp.dtype) -> jnp.dtype:
    """The dtype of a result for which ``jax.lax``'s ``preferred_element_type`` is asked.

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


def holds(wide: jnp.dtype, narrow: jnp.dtype) -> bool:
    """Whether a dtype of the kernels has every number of another one of its kind.

    float16 and bfloat16 do not hold each other. Unlike ``jnp.promote_types`` it knows no strict promotion.
    """
    kinds = [jnp.issubdtype(dtype, jnp.complexfloating) for dtype in (wide, narrow)]
    return wide == narrow or (kinds[0] == kinds[1] and wide.itemsize > narrow.itemsize)


def for_result(dtype: jnp.dtype, x: jax.Array, w: jax.Array) -> tuple[jax.Array, jax.Array, np.dtype | None]:
    """Operands for a result that holds all of ``dtype``, and the primitives' ``result_dtype`` for it.

    Operands of 16 bits stay as they are: their sums are of f32. Others are converted, each a copy.
    """
    wide = np.dtype(dtype) if holds(dtype, x.dtype) else FLOAT32
    if x.dtype.itemsize == 2 and wide == FLOAT32:
        return x, w, FLOAT32
    return converted(x, wide), converted(w, wide), None


FLOAT32 = np.dtype(np.float32)
"""What sums of 16-bit numbers run in, and the one dtype beside the operands' that a result may have."""


def converted(array: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """The array in a dtype; as it is, weakly typed or not, where that is its own."""
    return array if array.dtype == dtype else array.astype(dtype)
