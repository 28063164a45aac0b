"""The expected results, computed once for all backends: the NumPy reference's sums, and lax's."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import reference
from jax import lax


@cache
def exact_conv(case, dtype):
    """The results {y, dx, dw} in float64 of arrays rounded to dtype, and the sums of absolute products."""
    arrays = case.arrays(dtype)
    return case.reference(*arrays), case.reference(*arrays, reduce_abs=True)


@cache
def lax_conv(case, dtype):
    """The results {y, dx, dw} of lax in full precision."""
    x, w, dy = case.arrays(dtype)

    @jax.jit
    def run(x, w, dy):
        arguments = dict(case.lax_arguments, precision=lax.Precision.HIGHEST)
        y, vjp = jax.vjp(lambda x, w: lax.conv_general_dilated(x, w, **arguments), x, w)
        return y, *vjp(dy)

    # Always on the CPU: it has no TF32 and no autotuning, and gives the same numbers for all backends.
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        answers = run(x, w, dy)
    # Tests read lax's float64 results after a switch of backends too: a copy outlives the caches.
    return {name: np.asarray(a) for name, a in zip(("y", "dx", "dw"), answers, strict=True)}


def lax_conv_widened(x, w, *arguments, preferred_element_type=None, **rest):
    """lax.conv_general_dilated with explicit conversions; old versions cannot differentiate implicit ones."""
    if preferred_element_type is None:
        return lax.conv_general_dilated(x, w, *arguments, **rest)
    wide = jnp.promote_types(x.dtype, preferred_element_type)
    y = lax.conv_general_dilated(x.astype(wide), w.astype(wide), *arguments, **rest)
    return y.astype(preferred_element_type)


def pool_window(inputs, window, strides, padding):
    """The reference's axes of a pooling window."""
    strides = strides or (1,) * len(window)
    pads = reference.padding_pairs(padding, inputs, window, strides, (1,) * len(window))
    columns = zip(inputs, window, strides, pads, strict=True)
    return [reference.Axis(i, r, s, lo, hi) for i, r, s, (lo, hi) in columns]
