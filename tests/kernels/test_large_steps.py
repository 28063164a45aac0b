"""Layers with strides and dilations much larger than their arrays, compared with the float64 reference."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from reference import Axis

import jax_convgrad

SPECS = {1: ("NHC", "HIO", "NHC"), 2: ("NHWC", "HWIO", "NHWC")}

# batch, channels in and out, groups, axes
LAYERS = {
    "patches": (1, 1, 8, 1, [Axis(4 * 500, 500, 500)]),
    "patches, many channels": (1, 3, 40, 1, [Axis(3 * 333, 333, 333)]),
    "patches, padded": (2, 2, 5, 1, [Axis(900, 400, 390, 37, 60)]),
    "patches of images": (1, 3, 20, 1, [Axis(32, 16, 16), Axis(48, 16, 16)]),
    "one tap of a stride": (2, 2, 3, 1, [Axis(3000, 1, 700)]),
    "few taps of a stride": (1, 4, 2, 1, [Axis(3000, 3, 701, 5, 9, 1, 11)]),
    "transposed": (1, 40, 1, 1, [Axis(5, 4 * 150, input_dilation=150)]),
    "transposed, groups": (2, 6, 6, 3, [Axis(4, 200, 1, 30, 20, 90)]),
    "depthwise": (1, 8, 8, 8, [Axis(2000, 3, 400, 1, 1)]),
    "both steps": (1, 3, 4, 1, [Axis(20, 30, 77, 400, 300, 91, 13)]),
    "steps without a common tap": (1, 2, 3, 1, [Axis(9, 4, 64, 33, 33, 128, 32)]),
    "filter past both ends": (1, 3, 4, 1, [Axis(5, 601, 1, 300, 300)]),
    "two axes": (1, 2, 3, 1, [Axis(3, 40, 1, 2, 2, 30), Axis(90, 2, 41, 3, 0, 1, 45)]),
}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", LAYERS)
def test_the_sums(backend, name, dtype):
    """With integers below 4 no sum is rounded: every bit is right, except if bfloat16 rounds the result."""
    batch, in_channels, out_channels, groups, axes = LAYERS[name]
    random = np.random.default_rng(len(name))

    def integers(*shape):
        return random.integers(-3, 4, shape).astype(np.float64)

    x = integers(batch, *(axis.input for axis in axes), in_channels)
    w = integers(*(axis.taps for axis in axes), in_channels // groups, out_channels)
    dy = integers(batch, *(axis.output for axis in axes), out_channels)
    exact = {
        "y": reference.fprop(x, w, axes, groups),
        "dx": reference.dgrad(dy, w, axes, groups),
        "dw": reference.wgrad(x, dy, axes, groups),
    }

    @jax.jit
    def run(x, w, dy):
        y, back = jax.vjp(
            lambda x, w: jax_convgrad.conv_general_dilated(
                x,
                w,
                [axis.stride for axis in axes],
                [(axis.pad_lo, axis.pad_hi) for axis in axes],
                [axis.input_dilation for axis in axes],
                [axis.filter_dilation for axis in axes],
                SPECS[len(axes)],
                feature_group_count=groups,
            ),
            x,
            w,
        )
        dx, dw = back(dy)
        return {"y": y, "dx": dx, "dw": dw}

    found = run(*(jnp.asarray(array, dtype) for array in (x, w, dy)))
    for what, array in exact.items():
        np.testing.assert_array_equal(
            np.asarray(found[what], np.float64),
            np.asarray(jnp.asarray(array, dtype), np.float64),
            err_msg=what,
        )
