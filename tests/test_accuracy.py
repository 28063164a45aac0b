"""The accuracy promise: the error against float64 sums is at most lax's own, times a small factor."""

import conv_cases
import jax
import numpy as np
import pytest
from jax import lax
from lax_answers import exact_conv, lax_conv
from tolerance import stored_eps

import jax_convgrad as jc

FACTOR = 4
NAMES = [
    "2d_stride2_same",
    "2d_depthwise",
    "2d_33_to_5",
    "2d_past_tile_channels",
    "2d_past_tile_taps",
    "3d_all",
]


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "float16"])
@pytest.mark.parametrize("name", NAMES)
def test_error_is_lax_error(backend, name, dtype):
    case = conv_cases.BY_NAME[name]
    x, w, dy = case.arrays(dtype)
    exact, _ = exact_conv(case, dtype)

    def conv(x, w):
        return jc.conv_general_dilated(x, w, **case.lax_arguments, precision=lax.Precision.HIGHEST)

    y, vjp = jax.vjp(jax.jit(conv), x, w)
    for what, ours in zip(("y", "dx", "dw"), (y, *vjp(dy)), strict=True):
        error = np.abs(np.asarray(ours, np.float64) - exact[what]).max()
        lax_error = np.abs(np.asarray(lax_conv(case, dtype)[what], np.float64) - exact[what]).max()
        # lax may be exact by luck: one rounding of the largest result is always allowed.
        allowed = FACTOR * lax_error + stored_eps(dtype) * np.abs(exact[what]).max()
        assert error <= allowed, f"{what}: {error} where lax has {lax_error}"


@pytest.mark.parametrize("dtype, length", [("bfloat16", 1024), ("float16", 4096)])
def test_sums_run_in_f32(backend, dtype, length):
    """Ones in bf16 or f16 stop adding up at 256 or 2048; an f32 sum goes on."""
    ones = np.ones((1, length, 1), dtype)
    dn = ("NWC", "WIO", "NWC")

    def conv(x, w):
        return jc.conv_general_dilated(x, w, (1,), "VALID", dimension_numbers=dn)

    over_channels = conv(ones.reshape(1, 1, length), ones)
    over_taps = conv(ones, ones.reshape(length, 1, 1))
    over_positions = jax.vjp(conv, ones, np.ones((1, 1, 1), dtype))[1](ones)[1]
    bias = jc.conv_bias_grad(ones)
    mean = jc.avg_pool(ones, (length,))
    for name, total in {
        "y": over_channels,
        "y over taps": over_taps,
        "dw": over_positions,
        "db": bias,
    }.items():
        assert float(total.item()) == length, name
    assert float(mean.item()) == 1
