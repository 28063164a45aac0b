"""CUDA's kernels for few input channels: steps, paddings and tails, what they refuse, and what they would cost."""

import functools

import conv_cases
import jax
import numpy as np
import pytest
from conftest import PLATFORM, cuda_backend
from conv_cases import NDHWC, NHWC, NWC
from conv_cases import ConvCase as C
from emulated_counters import counting
from lax_answers import exact_conv
from tolerance import assert_within, sum_bound

import jax_convgrad as jc
from jax_convgrad import ffi

FEW = pytest.mark.parametrize("backend", [cuda_backend("few_channels")], indirect=True)
pytestmark = pytest.mark.few_channels

CASES = [
    C("7x7 of stride 2", (2, 19, 22, 3), (7, 7, 3, 64), 2, ((3, 3), (3, 3)), order=NHWC),
    C("3x3", (2, 9, 11, 3), (3, 3, 3, 24), 1, "SAME", order=NHWC),
    C("one channel, stride 2", (2, 11, 14, 1), (5, 5, 1, 40), 2, ((1, 1), (1, 1)), order=NHWC),
    C("one channel", (3, 28, 28, 1), (3, 3, 1, 16), 1, "SAME", order=NHWC),
    C("two channels", (2, 6, 13, 2), (2, 4, 2, 8), 1, ((0, 1), (2, 1)), order=NHWC),
    C("four channels", (1, 10, 12, 4), (3, 3, 4, 72), (2, 1), "SAME", order=NHWC),
    C("rows of odd length", (2, 7, 9, 3), (3, 3, 3, 8), 2, ((1, 1), (2, 1)), order=NHWC),
    C("odd output channels", (2, 8, 10, 3), (3, 2, 3, 13), 1, "SAME", order=NHWC),
    C("past a tile of columns", (1, 6, 8, 2), (3, 3, 2, 67), 2, "SAME", order=NHWC),
    C("dilated filter", (1, 12, 14, 3), (3, 3, 3, 8), 1, ((2, 2), (3, 0)), 1, (2, 3), order=NHWC),
    C("dilated filter, four channels", (1, 9, 16, 4), (2, 3, 4, 8), (1, 2), ((1, 0), (4, 4)), 1, (3, 2),
      order=NHWC),
    C("cropped", (2, 9, 12, 3), (3, 3, 3, 16), (1, 2), ((-1, 1), (2, -3)), order=NHWC),
    C("far padding", (1, 3, 4, 2), (2, 3, 2, 8), 2, ((4, 5), (3, 6)), order=NHWC),
    C("stride past the filter", (1, 13, 16, 3), (2, 2, 3, 8), (4, 3), "VALID", order=NHWC),
    C("one axis", (2, 300, 1), (9, 1, 24), 4, ((4, 4),), order=NWC),
    C("one axis of stride 1", (1, 150, 1), (25, 1, 8), 1, "SAME", order=NWC),
    C("three axes", (1, 5, 6, 10, 2), (2, 3, 3, 2, 16), (2, 1, 2), "SAME", order=NDHWC),
    C("pointwise", (2, 7, 9, 4), (1, 1, 4, 32), order=NHWC),
    C("pointwise, strided", (2, 7, 9, 3), (1, 1, 3, 32), 2, "VALID", order=NHWC),
    C("filter of many rows", (1, 12, 15, 3), (9, 9, 3, 16), 2, ((4, 4), (4, 4)), order=NHWC),
    C("small images", (40, 3, 3, 3), (2, 2, 3, 8), 1, "SAME", order=NHWC),
    C("few output channels", (2, 9, 10, 2), (3, 3, 2, 3), 1, "SAME", order=NHWC),
    C("few output channels, cropped", (1, 8, 12, 3), (2, 3, 3, 4), 1, ((-1, 2), (3, -2)), 1, (1, 2),
      order=NHWC),
]  # fmt: skip
# In f64 its filter does not fit.
RUNS = [
    (case, dtype)
    for case in CASES
    for dtype in ("float32", "float64", "bfloat16", "float16")
    if (case.name, dtype) != ("filter of many rows", "float64")
]
BY_NAME = {case.name: case for case in CASES}


@functools.partial(jax.jit, static_argnums=(0, 4))
def gradients(case, x, w, dy, precision):
    def conv(x, w):
        return jc.conv_general_dilated(x, w, **case.lax_arguments, precision=precision)

    y, vjp = jax.vjp(conv, x, w)
    dx, dw = vjp(dy)
    return {"y": y, "dx": dx, "dw": dw}


@FEW
@pytest.mark.parametrize("case, dtype", RUNS, ids=lambda value: getattr(value, "name", value))
def test_sums(backend, case, dtype):
    exact, magnitude = exact_conv(case, dtype)
    for name, actual in gradients(case, *case.arrays(dtype), "highest").items():
        bound = sum_bound(dtype, case.sum_lengths[name], magnitude[name], exact[name])
        assert_within(actual, exact[name], bound, name)


@FEW
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_tf32(backend, case):
    """Each operand is rounded to 11 bits, to nearest: products are off by 2^-10 at most, and some are."""
    exact, magnitude = exact_conv(case, "float32")
    for name, actual in gradients(case, *case.arrays("float32"), "default").items():
        in_full = sum_bound("float32", case.sum_lengths[name], magnitude[name], exact[name])
        assert_within(actual, exact[name], 2.0**-10 * magnitude[name] + in_full, name)
        assert np.any(np.abs(np.asarray(actual, np.float64) - exact[name]) > in_full), f"{name} is not TF32"
