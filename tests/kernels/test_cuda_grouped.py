"""CUDA's kernel "grouped": every size of group and step, the problems that it refuses, its split sums."""

import conv_cases
import jax
import numpy as np
import pytest
from backends import PLATFORM, cuda_backend
from conv_cases import NHWC, ConvCase
from lax_answers import exact_conv
from tolerance import assert_within, sum_bound

import jax_convgrad as jc
from jax_convgrad.primitives import targets

DTYPES = ("float32", "float64", "bfloat16", "float16")
only_grouped = pytest.mark.parametrize("backend", [cuda_backend("grouped")], indirect=True)
pytestmark = pytest.mark.small_groups


def sizes(case):
    x_order, _, y_order = case.to_canonical
    return {
        "batch": case.x[x_order[0]],
        "in_channels": case.x[x_order[-1]],
        "out_channels": case.y[y_order[-1]],
        "groups": case.groups,
        "axes": [(a.input, a.taps, a.output, a.stride, a.pad_lo, a.input_dilation, a.filter_dilation)
                 for a in case.axes],
    }  # fmt: skip


def run_all(case, x, w, dy):
    @jax.jit
    def run(x, w, dy):
        y, vjp = jax.vjp(lambda x, w: jc.conv_general_dilated(x, w, **case.lax_arguments), x, w)
        dx, dw = vjp(dy)
        return {"y": y, "dx": dx, "dw": dw}

    return run(x, w, dy)


@only_grouped
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", conv_cases.GROUPS, ids=lambda case: case.name)
def test_groups(backend, case, dtype):
    exact, magnitude = exact_conv(case, dtype)
    for what, actual in run_all(case, *case.arrays(dtype)).items():
        assert actual.dtype == dtype
        bound = sum_bound(dtype, case.sum_lengths[what], magnitude[what], exact[what])
        assert_within(actual, exact[what], bound, what)


@only_grouped
def test_what_it_serves(backend):
    """The kernel supports what the suite's rule says, and an unsupported problem raises while tracing."""
    module = targets.backends[PLATFORM].module
    alone = [case for case in conv_cases.CASES if case.batch_groups == 1]  # the others are split into parts
    assert {case.has_small_groups for case in alone} == {True, False}
    for case in alone:
        for op in ("fprop", "dgrad", "wgrad"):
            asked = {"op": op, "kernel": "grouped", "dtype": "float32", **sizes(case)}
            if case.has_small_groups:
                assert module.conv_workspace_bytes(**asked) >= 0
            else:
                with pytest.raises(ValueError, match='"grouped" serves several groups'):
                    module.conv_workspace_bytes(**asked)


@only_grouped
def test_a_call_that_it_does_not_serve(backend):
    """An unsupported call is also a handler's error, if no trace came first."""
    chosen = targets.backends[PLATFORM]
    one = np.int64(1)
    spec = np.arange(3, dtype=np.int64)
    attributes = {name: np.ones(1, np.int64) for name in ("stride", "input_dilation", "filter_dilation")}
    attributes |= {
        "pad_lo": np.zeros(1, np.int64),
        "groups": one,
        "kernel": "grouped",
        "below_highest": False,
    }
    attributes |= {"relu": False}
    attributes |= {"x_spec": spec[[0, 2, 1]], "w_spec": spec[[2, 1, 0]], "y_spec": spec[[0, 2, 1]]}
    results = [jax.ShapeDtypeStruct((1, 4, 3), np.float32), jax.ShapeDtypeStruct((0,), np.uint8)]
    x, w = np.ones((1, 4, 2), np.float32), np.ones((1, 2, 3), np.float32)
    with pytest.raises(jax.errors.JaxRuntimeError, match=r"INVALID_ARGUMENT.*several groups"):
        jax.ffi.ffi_call(chosen.prefix + "fprop", results)(x, w, **attributes)


# Sums in parts, of integers, so that every sum is exact in f32.
IN_PARTS = (
    ConvCase("vectors", (4, 48, 36, 8), (3, 3, 1, 8), 1, "SAME", groups=8, order=NHWC),
    ConvCase("one_lane", (4, 48, 36, 7), (3, 3, 1, 7), 1, "SAME", groups=7, order=NHWC),
    ConvCase("groups_of_4", (4, 72, 36, 8), (3, 3, 4, 8), 1, "SAME", groups=2, order=NHWC),
)


@only_grouped
@pytest.mark.parametrize("case", IN_PARTS, ids=lambda case: case.name)
def test_split_sums(backend, case):
    random = np.random.default_rng(0)
    arrays = [random.integers(-2, 3, shape).astype(np.float32) for shape in (case.x, case.w, case.y)]
    workspace = targets.backends[PLATFORM].module.conv_workspace_bytes(
        op="wgrad", kernel="grouped", dtype="float32", **sizes(case)
    )
    x, w, dy = arrays
    assert workspace >= 2 * w.nbytes, "positions are to be split among blocks"
    assert workspace <= 0.05 * (x.nbytes + dy.nbytes)
    exact = case.reference(*arrays)
    for what, actual in run_all(case, *arrays).items():
        np.testing.assert_array_equal(actual, exact[what], err_msg=what)


@only_grouped
def test_auto_takes_it(backend):
    """For several groups of few channels "auto" requests the workspace that only "grouped" requests."""
    module = targets.backends[PLATFORM].module
    asked = {"op": "wgrad", "dtype": "float32", **sizes(IN_PARTS[0])}
    by_kernel = {
        kernel: module.conv_workspace_bytes(kernel=kernel, **asked)
        for kernel in ("auto", "grouped", "tiled", "reference")
    }
    assert by_kernel["auto"] == by_kernel["grouped"]
    assert by_kernel["grouped"] not in (by_kernel["tiled"], by_kernel["reference"])
