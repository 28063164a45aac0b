"""The accuracy promise: the error against float64 sums is at most a small multiple of lax's error."""

from functools import cache

import conv_cases
import jax
import numpy as np
import pytest
from jax import lax
from lax_answers import lax_conv
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
    # lax's error in float64 may be that of the reference in float64, if both add in the same order.
    exact = case.reference(*(a.astype(np.longdouble if dtype == "float64" else dtype) for a in (x, w, dy)))

    @jax.jit
    def run(x, w, dy):
        arguments = dict(case.lax_arguments, precision=lax.Precision.HIGHEST)
        y, vjp = jax.vjp(lambda x, w: jc.conv_general_dilated(x, w, **arguments), x, w)
        return y, *vjp(dy)

    for what, ours in zip(("y", "dx", "dw"), run(x, w, dy), strict=True):
        error = np.abs(np.asarray(ours, np.float64) - exact[what]).max()
        lax_error = np.abs(np.asarray(lax_conv(case, dtype)[what], np.float64) - exact[what]).max()
        # lax may be exact by chance, so one rounding of the largest result is always allowed.
        allowed = FACTOR * lax_error + stored_eps(dtype) * np.abs(exact[what]).max()
        assert error <= allowed, f"{what}: {error} where lax has {lax_error}"


# Sums of many terms: x [N, C, spatial...], w [K, C, taps...]
LONG = {
    "channels": ((1, 20000, 2), (2, 20000, 1)),
    "taps": ((1, 1, 4000), (2, 1, 3999)),
    "channels_and_taps": ((1, 700, 31), (1, 700, 30)),
    "batch": ((10000, 1, 3), (2, 1, 2)),
}


def long_operands(name):
    random = np.random.default_rng(0)
    return [random.random(shape, dtype=np.float32) for shape in LONG[name]]


def derivatives(conv, x, w):
    def run(x, w):
        y, vjp = jax.vjp(lambda x, w: conv(x, w, (1,), "VALID", precision="highest"), x, w)
        return y, *vjp(jax.numpy.ones_like(y))

    return [np.asarray(a) for a in jax.jit(run)(x, w)]


@cache
def lax_of_a_long_sum(name):
    """lax's float32 answers and its float64 ones, once for all backends."""
    x, w = long_operands(name)
    return [
        derivatives(lax.conv_general_dilated, x.astype(dtype), w.astype(dtype))
        for dtype in (np.float32, np.float64)
    ]


@pytest.mark.parametrize("name", LONG)
def test_long_sums(backend, name):
    """Positive numbers, whose sum gathers every rounding on the way: one running sum loses three digits."""
    x, w = long_operands(name)
    ours = derivatives(jc.conv_general_dilated, x, w)
    theirs, exact = lax_of_a_long_sum(name)
    for what, a, b, c in zip(("y", "dx", "dw"), ours, theirs, exact, strict=True):
        error, lax_error = (np.max(np.abs(np.asarray(r, np.float64) / c - 1)) for r in (a, b))
        assert error <= FACTOR * lax_error + 2 * stored_eps("float32"), f"{what}: {error}, lax {lax_error}"


def test_a_long_mean(backend):
    x = np.random.default_rng(0).random((1, 300, 200, 1), dtype=np.float32)
    error = abs(float(jc.avg_pool(x, (300, 200)).item()) / x.astype(np.float64).mean() - 1)
    assert error < 8 * stored_eps("float32")


@pytest.mark.parametrize("dtype, length", [("bfloat16", 1024), ("float16", 4096)])
def test_sums_run_in_f32(backend, dtype, length):
    """A sum of ones in bf16 or f16 stops growing at 256 or 2048; an f32 sum continues."""
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


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_small_numbers(backend, dtype):
    """The kernels keep f16's subnormals, and the smallest normal numbers of the other types."""
    least = jax.numpy.finfo(dtype).smallest_subnormal if dtype == "float16" else jax.numpy.finfo(dtype).tiny
    x = (np.arange(1, 41, dtype=np.float64) * float(least)).astype(dtype).reshape(1, 8, 5, 1)
    x[0, ::2] *= -1
    one = np.ones((1, 1, 1, 1), dtype)
    same = {
        "fprop": jc.conv(x, one),
        "dgrad": jc.conv_input_grad(x, one, x.shape),
        "wgrad": jc.conv_filter_grad(x.reshape(1, 1, 1, 40), one, (1, 1, 40, 1)),
        "bgrad": jc.conv_bias_grad(x.reshape(1, 1, 1, 40)),
        "avg_pool": jc.avg_pool(x, (1, 1)),
        "max_pool": jc.max_pool(x, (1, 1)),
    }
    for name, y in same.items():
        # Compares bits, because a comparison of numbers may itself flush subnormals to zero.
        np.testing.assert_array_equal(np.asarray(y).ravel().view("u1"), x.ravel().view("u1"), err_msg=name)
