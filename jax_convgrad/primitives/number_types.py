"""Dtypes and precisions: what the kernels compute with, and which dtype holds another one's numbers."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

Precision = (
    lax.Precision | lax.DotAlgorithm | lax.DotAlgorithmPreset | tuple[lax.Precision, lax.Precision] | None
)
"""A precision of ``jax.lax``, in the one hashable form that primitives carry."""

REAL = ("float32", "float64", "bfloat16", "float16")
"""The dtypes that the kernels compute with."""

NUMBERS = (*REAL, "complex64", "complex128")
"""The dtypes that run on the kernels; complex arrays become real ones (complex_form.py)."""

FLOAT32 = np.dtype(np.float32)
"""The dtype in which 16-bit numbers are added up; a result may have it instead of the operands' dtype."""


def below_highest(precision: Precision) -> bool:
    """Reports whether a convolution may be faster at the cost of some of f32's precision.

    Then CUDA rounds f32 operands to TF32, 10 bits of mantissa, and the CPU may add sums in Winograd's form.
    As in XLA for GPUs: at every precision except HIGHEST, and in algorithms that multiply that narrowly.
    """
    if precision is None:
        return True
    if isinstance(precision, tuple):
        return lax.Precision.HIGHEST not in precision
    if isinstance(precision, lax.Precision):
        return precision != lax.Precision.HIGHEST
    if isinstance(precision, lax.DotAlgorithmPreset):
        # BF16_BF16_F32_X3 and the like make up for narrow products by adding several.
        narrow = precision.name.startswith(("TF32_", "BF16_", "F16_", "ANY_F8_"))
        return precision.name == "DEFAULT" or (narrow and not precision.name.endswith(("X3", "X6", "X9")))
    return precision.num_primitive_operations == 1 and np.dtype(precision.lhs_precision_type) != np.float32


def holds(wide: jnp.dtype, narrow: jnp.dtype) -> bool:
    """Reports whether a dtype of the kernels has every number of another one of its kind.

    float16 and bfloat16 do not hold each other. Unlike ``jnp.promote_types`` this ignores strict promotion.
    """
    kinds = [jnp.issubdtype(dtype, jnp.complexfloating) for dtype in (wide, narrow)]
    return wide == narrow or (kinds[0] == kinds[1] and wide.itemsize > narrow.itemsize)


def for_result(dtype: jnp.dtype, x: jax.Array, w: jax.Array) -> tuple[jax.Array, jax.Array, np.dtype | None]:
    """Operands for a result that holds all of ``dtype``, and the ``result_dtype`` of the spec for it.

    Operands of 16 bits stay as they are, since their sums are f32. Others are converted, each a copy.
    """
    wide = np.dtype(dtype) if holds(dtype, x.dtype) else FLOAT32
    if x.dtype.itemsize == 2 and wide == FLOAT32:
        return x, w, FLOAT32
    return converted(x, wide), converted(w, wide), None


def converted(array: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """The array in a dtype; the array itself, weakly typed or not, if it has that dtype."""
    return array if array.dtype == dtype else array.astype(dtype)
