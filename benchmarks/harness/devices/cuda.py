"""The device's peaks, measured through XLA: large matrix products in each arithmetic, and a large copy."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from device_plan import ARITHMETICS
from timing import measure

_SIDES = {"bf16": 8192, "tf32": 8192, "f32": 8192, "f64": 4096}
_COPY_BYTES = 2**30


def peaks(seconds: float, scale: float = 1.0) -> dict[str, float]:
    """FLOP/s by arithmetic, and as "copy" bytes/s, read and written.

    Args:
      seconds: about how long each measurement takes.
      scale: of the sizes, for a machine that is no GPU.
    """
    found = {}
    for arithmetic, (dtype, precision) in ARITHMETICS.items():
        side = int(_SIDES[arithmetic] * scale)
        keys = jax.random.split(jax.random.key(0))
        a, b = (jax.random.normal(key, (side, side), dtype) for key in keys)  # products of zeros run faster
        multiply = jax.jit(lambda a, b, precision=precision: jnp.matmul(a, b, precision=precision))
        found[arithmetic] = 2 * side**3 / _seconds(lambda f=multiply, a=a, b=b: f(a, b), seconds)
    x = jax.random.normal(jax.random.key(1), (int(_COPY_BYTES * scale) // 4,), jnp.float32)
    # XLA copies by the driver's own function, and negates in a kernel of its own: the faster one counts.
    copies = jax.jit(jnp.copy), jax.jit(jnp.negative)
    found["copy"] = max(2 * x.nbytes / _seconds(lambda f=copy: f(x), seconds) for copy in copies)
    return found


def _seconds(function: Callable[[], jax.Array], seconds: float) -> float:
    times = measure({"it": function}, seconds, shortest=seconds / 5, wait=jax.block_until_ready)
    return times["it"]["median"]
