"""The accuracy promise below precision HIGHEST on the CPU, where Winograd's sums may be chosen.

Against float64, the root mean square of the errors is at most 4 times lax's, and the largest at most 8 times.
"""

import jax
import numpy as np
import pytest
from jax import lax

import jax_convgrad as jc

RMS_FACTOR, LARGEST_FACTOR = 4, 8
NHWC = ("NHWC", "HWIO", "NHWC")
# Batch, size, channels in and out: few channels, many, many in one direction.
LAYERS = {
    "16": (2, 16, 16, 16),
    "64": (2, 14, 64, 64),
    "256_to_16": (2, 12, 256, 16),
    "16_to_256": (2, 12, 16, 256),
}


def numbers(random, shape, kind):
    a = random.standard_normal(shape).astype(np.float32)
    if kind == "relu":
        return np.maximum(a, 0)
    if kind == "scaled_channels":
        return a * (10 ** random.uniform(-3, 3, shape[-1:])).astype(np.float32)
    if kind == "scaled_pixels":
        return a * (10 ** random.uniform(-3, 3, (*shape[:-1], 1))).astype(np.float32)
    if kind == "constant":
        return np.full(shape, 0.7316, np.float32)
    return a


def results(conv, arrays, dtype):
    def run(x, w, dy):
        y, vjp = jax.vjp(lambda x, w: conv(x, w, (1, 1), "SAME", dimension_numbers=NHWC), x, w)
        return y, *vjp(dy)

    return [np.asarray(a, np.float64) for a in jax.jit(run)(*(a.astype(dtype) for a in arrays))]


def errors(found, exact):
    error = np.abs(found - exact)
    return np.sqrt((error**2).mean()), error.max()


@pytest.mark.parametrize("kind", ["normal", "relu", "scaled_channels", "scaled_pixels", "constant"])
@pytest.mark.parametrize("layer", LAYERS)
def test_errors_are_a_small_multiple_of_laxs(layer, kind):
    n, size, c, k = LAYERS[layer]
    random = np.random.default_rng(0)
    x, dy = (numbers(random, (n, size, size, channels), kind) for channels in (c, k))
    w = numbers(random, (3, 3, c, k), kind if kind == "constant" else "normal")
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        exact = results(lax.conv_general_dilated, (x, w, dy), np.float64)
        by_lax, ours = (
            results(conv, (x, w, dy), np.float32)
            for conv in (lax.conv_general_dilated, jc.conv_general_dilated)
        )
    for what, e, a, b in zip(("y", "dx", "dw"), exact, by_lax, ours, strict=True):
        (lax_rms, lax_largest), (rms, largest) = errors(a, e), errors(b, e)
        # lax may be exact by chance, so one rounding is always allowed.
        rounding = np.finfo(np.float32).eps * np.sqrt((e**2).mean())
        assert rms <= RMS_FACTOR * lax_rms + rounding, f"{what}: {rms}, lax {lax_rms}"
        assert largest <= LARGEST_FACTOR * lax_largest + rounding, f"{what}: {largest}, lax {lax_largest}"
