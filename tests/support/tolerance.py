"""The largest difference between a sum of rounded products and the exact sum, by dtype.

A product and an addition each round by at most eps/2 of a value that is at most S = sum |a_i * b_i|. The
signs of n such roundings are independent, so together they are about sqrt(n) * eps * S. Four times that is
very unlikely to be exceeded by chance, yet well below the worst case n * eps * S, which would hide a lost
product. The result is then rounded once to its stored type.
"""

import jax.numpy as jnp
import numpy as np

FACTOR = 4

# bf16 and f16 are stored; their sums run in f32.
SUM_EPS = {
    "float32": np.finfo(np.float32).eps,
    "float64": np.finfo(np.float64).eps,
    "bfloat16": np.finfo(np.float32).eps,
    "float16": np.finfo(np.float32).eps,
}


def stored_eps(dtype) -> float:
    return float(jnp.finfo(dtype).eps)


def stored_tiny(dtype) -> float:
    """Half the gap between the numbers next to zero, which is the rounding of a subnormal result."""
    return float(jnp.finfo(dtype).smallest_subnormal)


def sum_bound(dtype, length, sum_of_abs, exact):
    """The allowed error of a stored sum of `length` products, elementwise."""
    name = jnp.dtype(dtype).name
    rounding = stored_eps(dtype) / 2 * np.abs(exact) + stored_tiny(dtype)
    return FACTOR * np.sqrt(length + 1) * SUM_EPS[name] * sum_of_abs + rounding


def assert_within(actual, exact, bound, what):
    """Asserts |actual - exact| <= bound, elementwise, and NaN and infinity only where exact has them."""
    actual, exact = np.asarray(actual, np.float64), np.asarray(exact, np.float64)
    assert actual.shape == exact.shape, f"{what}: shape {actual.shape}, should be {exact.shape}"
    bound = np.broadcast_to(bound, exact.shape)
    finite = np.isfinite(exact)
    np.testing.assert_array_equal(actual[~finite], exact[~finite], err_msg=what)
    error = np.abs(actual - exact)
    wrong = finite & ~(error <= bound)
    if wrong.any():
        at = np.unravel_index(np.argmax(np.where(wrong, np.nan_to_num(error, nan=np.inf), -1)), exact.shape)
        raise AssertionError(
            f"{what}: {wrong.sum()} of {exact.size} numbers are off; at {tuple(map(int, at))} "
            f"{actual[at]} should be {exact[at]} within {bound[at]}"
        )
