"""Every CPU kernel by name, on every instruction set of this machine, for every problem that it supports."""

import functools

import conv_cases
import jax
import numpy as np
import pytest
from conv_cases import NHWC, ConvCase
from cpu_by_name import CPU, ISAS, has_code_of_its_own, kernels, run_all, spec_of
from lax_answers import exact_conv
from tolerance import assert_within, sum_bound

from jax_convgrad.geometry import Axis, ConvGeometry
from jax_convgrad.layers.problem import dimensions
from jax_convgrad.primitives import ffi
from jax_convgrad.primitives.conv_spec import ConvSpec

DTYPES = ("float32", "float64", "bfloat16", "float16")
F32_ISAS = [isa for isa in ISAS if has_code_of_its_own(f".{isa}", "float32")]

# Cases without batch groups, which Python turns into feature groups of another order (conv_cases.py).
CASES = (
    tuple(case for case in conv_cases.CASES if case.batch_groups == 1) + conv_cases.GROUPS + conv_cases.PLANAR
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_kernel(case, platforms):
    arrays = {dtype: case.arrays(dtype) for dtype in DTYPES}
    for (dtype, name), results in run_all(case, kernels(case), arrays, platforms).items():
        exact, magnitude = exact_conv(case, dtype)
        for what, actual in results.items():
            assert actual.dtype == dtype
            bound = sum_bound(dtype, case.sum_lengths[what], magnitude[what], exact[what])
            assert_within(actual, exact[what], bound, f"{what} by {name} in {dtype}")


def test_grouped_refuses(platforms):
    """grouped refuses one group, and a group that is larger than a vector, with an error."""
    for name in ("2d_channels_last", "2d_past_tile_groups"):
        case = conv_cases.BY_NAME[name]
        with pytest.raises(ValueError, match='"grouped" serves'):
            run_all(case, ["grouped"], {"float32": case.arrays("float32")}, platforms)


def test_dot_refuses_wgrad(platforms):
    case = conv_cases.BY_NAME["1d"]
    x, _, dy = case.arrays("float32")
    with pytest.raises(ValueError, match='"dot" serves fprop and dgrad'):
        ffi.wgrad(platforms("dot"), x, dy, spec_of(case))


@functools.cache
def past_the_cache():
    """A problem whose tasks split every sum, with integers, so that every sum is exact in f32."""
    case = ConvCase("past_the_cache", (4, 100, 60, 48), (3, 3, 2, 48), 1, "SAME", groups=24, order=NHWC)
    random = np.random.default_rng(0)
    x, w, dy = (random.integers(-2, 3, shape).astype(np.float32) for shape in (case.x, case.w, case.y))
    return case, (x, w, dy), case.reference(x, w, dy)


@pytest.mark.parametrize("isa", F32_ISAS)
def test_grouped_in_parts(platforms, isa):
    case, arrays, exact = past_the_cache()
    name = f"grouped.{isa}"
    axes = [(a.input, a.taps, a.output, a.stride, a.pad_lo, 1, 1) for a in case.axes]
    sizes = {"batch": 4, "in_channels": 48, "out_channels": 48, "groups": 24, "axes": axes}
    workspace = CPU.module.conv_workspace_bytes(op="wgrad", kernel=name, dtype="float32", **sizes)
    assert workspace >= 2 * arrays[1].nbytes, "positions are to be split among tasks"
    assert workspace <= 0.05 * (arrays[0].nbytes + arrays[2].nbytes)
    for what, actual in run_all(case, [name], {"float32": arrays}, platforms)["float32", name].items():
        np.testing.assert_array_equal(actual, exact[what], err_msg=what)


def one_pixel(in_channels, out_channels):
    """A layer that is a matrix product: its spec, and the shapes of x, y and w."""
    axis = Axis(1, 1, 1, 1, 0, 1, 1)
    x, y = ((1, 1, 1, channels) for channels in (in_channels, out_channels))
    w = (1, 1, in_channels, out_channels)
    return ConvSpec(ConvGeometry((axis, axis), 1), dimensions(x, w, NHWC, ("x", "w"))), x, y, w


@pytest.mark.parametrize("isa", F32_ISAS)
def test_pairs_of_many_channels(platforms, isa):
    """The filter has more numbers per position than f32 can count."""
    spec, x, y, w = one_pixel(3_000_000, 3)
    random = np.random.default_rng(0)
    arrays = (random.integers(-3, 4, shape).astype(np.float32) for shape in (x, y, w))
    x_array, dy_array, w_array = arrays
    name = platforms(f"pairs.{isa}")
    dx = jax.jit(lambda dy, w: ffi.dgrad(name, dy, w, spec))(dy_array, w_array)
    dw = jax.jit(lambda x, dy: ffi.wgrad(name, x, dy, spec))(x_array, dy_array)
    np.testing.assert_array_equal(np.ravel(dx), w_array[0, 0] @ np.ravel(dy_array))
    np.testing.assert_array_equal(dw[0, 0], np.outer(x_array, dy_array))


@pytest.mark.parametrize("isa", F32_ISAS)
def test_pairs_sum_channels_in_runs(platforms, isa):
    """Sums of positive numbers, in which every rounding adds up, as in test_accuracy.py."""
    random = np.random.default_rng(0)
    name = platforms(f"pairs.{isa}")
    for many, few in ((200_000, 8), (200_001, 1), (3001, 33), (1001, 150)):
        spec, x, _, w = one_pixel(many, few)
        x_array, w_array = (random.random(shape, dtype=np.float32) for shape in (x, w))
        exact = np.ravel(x_array).astype(np.float64) @ w_array[0, 0]
        found = jax.jit(lambda x, w, spec=spec: ffi.fprop(name, x, w, spec))(x_array, w_array)
        # The same sums as the gradient of the opposite layer.
        spec, *_ = one_pixel(few, many)
        back = jax.jit(lambda dy, w, spec=spec: ffi.dgrad(name, dy, w, spec))(
            x_array, np.swapaxes(w_array, 2, 3)
        )
        for what, sums in (("y", found), ("dx", back)):
            error = np.abs(np.ravel(sums) / exact - 1).max()
            assert error < 16 * np.finfo(np.float32).eps / 2, (what, many, few)
