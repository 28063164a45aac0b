"""The CPU's "depthwise": when the plan takes it, what it refuses, and rows of taps of every length."""

import numpy as np
import pytest
from conv_cases import NDHWC, NHWC, NWC, ConvCase
from cpu_by_name import CPU, ISAS, run_all, spec_of
from lax_answers import exact_conv
from tolerance import assert_within, sum_bound

from jax_convgrad.primitives import ffi

CASES = [
    ConvCase("3x3", (2, 9, 23, 35), (3, 3, 1, 35), padding="SAME", groups=35, order=NHWC),
    ConvCase("5x5", (1, 9, 23, 70), (5, 5, 1, 70), padding="SAME", groups=70, order=NHWC),
    ConvCase("7x7", (1, 12, 30, 20), (7, 7, 1, 20), padding="SAME", groups=20, order=NHWC),
    ConvCase("9x9", (1, 12, 30, 20), (9, 9, 1, 20), padding="SAME", groups=20, order=NHWC),
    ConvCase("even", (1, 8, 15, 18), (2, 4, 1, 18), padding="SAME", groups=18, order=NHWC),
    ConvCase("stride", (2, 13, 22, 18), (3, 3, 1, 18), stride=2, padding="SAME", groups=18, order=NHWC),
    ConvCase(
        "stride_past_taps", (1, 13, 22, 4), (2, 2, 1, 4), stride=3, padding="SAME", groups=4, order=NHWC
    ),
    ConvCase(
        "dilated", (1, 13, 22, 18), (3, 3, 1, 18), padding="SAME", filter_dilation=2, groups=18, order=NHWC
    ),
    ConvCase(
        "dilated_input",
        (1, 6, 9, 5),
        (3, 3, 1, 5),
        padding="SAME",
        input_dilation=(2, 3),
        groups=5,
        order=NHWC,
    ),
    ConvCase("wide_padding", (1, 2, 3, 6), (3, 3, 1, 6), padding=((3, 4), (5, 2)), groups=6, order=NHWC),
    ConvCase("cropped", (1, 9, 14, 6), (3, 3, 1, 6), padding=((-1, -2), (-3, 0)), groups=6, order=NHWC),
    ConvCase("1d", (3, 50, 19), (5, 1, 19), padding="SAME", groups=19, order=NWC),
    ConvCase("3d", (1, 5, 6, 12, 8), (3, 3, 3, 1, 8), padding="SAME", groups=8, order=NDHWC),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_kernel(case, platforms):
    dtypes = ("float32", "float64", "bfloat16", "float16")
    arrays = {dtype: case.arrays(dtype) for dtype in dtypes}
    names = [f"depthwise.{isa}" for isa in ISAS]
    for (dtype, name), results in run_all(case, names, arrays, platforms).items():
        exact, magnitude = exact_conv(case, dtype)
        for what, actual in results.items():
            bound = sum_bound(dtype, case.sum_lengths[what], magnitude[what], exact[what])
            assert_within(actual, exact[what], bound, f"{what} by {name} in {dtype}")


def layer(channels=64, size=28, taps=3, **changed):
    axis = (size, taps, size, 1, taps // 2, 1, 1)
    problem = {"in_channels": channels, "out_channels": channels, "groups": channels, "dtype": "float32"}
    return problem | {"batch": 8, "axes": [(1, 1, 1, 1, 0, 1, 1), axis, axis]} | changed


def kernel(op, problem):
    return CPU.module.plan(op, "auto", **problem)["kernel"]


def test_plan():
    for op in ("fprop", "dgrad", "wgrad"):
        assert kernel(op, layer()) == "depthwise"
        assert kernel(op, layer(96, 56, 7)) == "depthwise"
        # Most results of such rows lie at their ends, and have other taps.
        assert kernel(op, layer(96, 7, 7)) == "grouped"
        assert kernel(op, layer(out_channels=128)) != "depthwise"
    # Sources of 1024 channels all lie in the same few sets of a cache; wgrad reads each of them in one go.
    assert [kernel(op, layer(1024)) for op in ("fprop", "dgrad", "wgrad")] == [
        "grouped",
        "grouped",
        "depthwise",
    ]
    # 16-bit sources are widened once by "grouped", and again for each tap by "depthwise".
    assert kernel("fprop", layer(dtype="bfloat16")) == "grouped"


def test_workspace():
    """None for the filter, and for partial sums at most a twentieth of the activations, or the filter."""
    for size in (7, 28, 112):
        problem = layer(size=size)
        for op in ("fprop", "dgrad", "wgrad"):
            found = CPU.module.conv_workspace_bytes(op=op, kernel="depthwise", **problem)
            activations = 2 * 8 * size * size * 64 * 4
            assert found <= (max(activations / 20, 9 * 64 * 4) if op == "wgrad" else 0)


def test_refuses(platforms):
    for case in (
        ConvCase("multiplier", (1, 9, 9, 4), (3, 3, 1, 8), groups=4, order=NHWC),
        ConvCase("one_group", (1, 9, 9, 1), (3, 3, 1, 1), order=NHWC),
        ConvCase("many_taps", (1, 20, 20, 4), (17, 17, 1, 4), padding="SAME", groups=4, order=NHWC),
    ):
        x, w, _ = case.arrays("float32")
        with pytest.raises(ValueError, match='"depthwise" serves several groups of one channel'):
            ffi.fprop(platforms("depthwise"), x, w, spec_of(case))


def test_sums_of_many_rows(platforms):
    """Rows are summed apart, and split among tasks, so that a long sum of ones stays exact."""
    x = np.ones((8, 64, 300, 2), np.float32)
    case = ConvCase("ones", x.shape, (1, 1, 1, 2), groups=2, order=NHWC)
    dw = ffi.wgrad(platforms("depthwise"), x, x, spec_of(case))
    np.testing.assert_array_equal(dw, np.full((1, 1, 1, 2), 8 * 64 * 300))
