"""The Hopper kernels (TMA and wgmma) in the emulator: every tile, phase and operand layout."""

import functools

import jax
import numpy as np
import pytest
from conftest import cuda_backend
from conv_cases import NDHWC, NHWC, NWC
from conv_cases import ConvCase as C
from emulated_counters import counting
from lax_answers import exact_conv
from tolerance import assert_within, sum_bound

import jax_convgrad as jc

WGMMA = pytest.mark.parametrize("backend", [cuda_backend("wgmma")], indirect=True)

CASES = [
    C("tails of rows, slices and columns", (2, 7, 9, 40), (3, 3, 40, 72), 1, "SAME", order=NHWC),
    C("whole tiles", (2, 8, 8, 64), (1, 1, 64, 64), 1, "VALID", order=NHWC),
    C("more tiles than multiprocessors", (5, 16, 16, 8), (1, 1, 8, 136), 1, "VALID", order=NHWC),
    C("more slices than stages", (1, 4, 4, 264), (3, 3, 264, 8), 1, "SAME", order=NHWC),
    C("phases of a stride", (2, 9, 8, 16), (3, 3, 16, 24), 2, ((1, 1), (0, 1)), order=NHWC),
    C("phases without a tap", (1, 9, 11, 8), (1, 2, 8, 16), 3, "VALID", order=NHWC),
    C("dilated filter", (1, 9, 9, 8), (3, 2, 8, 16), 1, ((2, 2), (0, 3)), 1, (2, 3), order=NHWC),
    C("stride and dilated filter", (1, 11, 12, 8), (3, 3, 8, 16), 2, ((2, 2), (1, 3)), 1, (2, 3), order=NHWC),
    C("cropped", (2, 7, 6, 8), (3, 3, 8, 8), 1, ((-1, 1), (2, -2)), order=NHWC),
    C("groups", (2, 5, 6, 192), (3, 3, 64, 192), 1, "SAME", groups=3, order=NHWC),
    C("one axis", (3, 50, 16), (5, 16, 8), 2, ((3, 4),), order=NWC),
    C("three axes", (1, 4, 5, 6, 8), (2, 3, 3, 8, 16), (2, 1, 2), "SAME", order=NDHWC),
    C("images smaller than a slice", (20, 2, 1, 8), (1, 1, 8, 8), 1, "VALID", order=NHWC),
]
BY_NAME = {case.name: case for case in CASES}
OPS = {
    "y": lambda case, x, w, dy: jc.conv_general_dilated(x, w, **case.lax_arguments),
    "dx": lambda case, x, w, dy: jc.conv_input_grad(dy, w, x.shape, **case.grad_arguments),
    "dw": lambda case, x, w, dy: jc.conv_filter_grad(x, dy, w.shape, **case.grad_arguments),
}


@WGMMA
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_sums(backend, case, op, dtype):
    exact, magnitude = exact_conv(case, dtype)
    actual = jax.jit(functools.partial(OPS[op], case))(*case.arrays(dtype))
    bound = sum_bound(dtype, case.sum_lengths[op], magnitude[op], exact[op])
    assert_within(actual, exact[op], bound, op)
