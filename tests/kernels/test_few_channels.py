"""CUDA's kernels for few input channels: steps, paddings, tails, unsupported problems, costs."""

import dataclasses
import functools

import conv_cases
import jax
import numpy as np
import pytest
from backends import PLATFORM, cuda_backend
from conv_cases import NDHWC, NHWC, NWC
from conv_cases import ConvCase as C
from emulated_counters import counting
from lax_answers import exact_conv, lax_conv
from tolerance import assert_within, sum_bound

import jax_convgrad as jc
from jax_convgrad.primitives import targets

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
# In f64 the filter of "filter of many rows" does not fit.
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
    """Each operand is rounded to 11 bits, to nearest: products have errors of at most 2^-10, and some do."""
    exact, magnitude = exact_conv(case, "float32")
    for name, actual in gradients(case, *case.arrays("float32"), "default").items():
        in_full = sum_bound("float32", case.sum_lengths[name], magnitude[name], exact[name])
        assert_within(actual, exact[name], 2.0**-10 * magnitude[name] + in_full, name)
        assert np.any(np.abs(np.asarray(actual, np.float64) - exact[name]) > in_full), f"{name} is not TF32"


@FEW
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["7x7 of stride 2", "3x3"])
def test_same_bits(backend, name, dtype):
    case = BY_NAME[name]
    first, second = (gradients(case, *case.arrays(dtype), "highest") for _ in range(2))
    for what in first:
        np.testing.assert_array_equal(first[what], second[what])


@FEW
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
@pytest.mark.parametrize("name", ["7x7 of stride 2", "one channel, stride 2", "3x3"])
@pytest.mark.parametrize("precision", ["highest", "default"])
def test_infinity_stays_where_it_is_tied(backend, name, dtype, precision):
    """Unused slots contain numbers from outside the window, which must count as zeros, even if infinite."""
    case = BY_NAME[name]
    x, w, _ = case.arrays(dtype)
    x[0, 6, 7, 0] = np.inf
    y = jc.conv_general_dilated(x, np.abs(w), **case.lax_arguments, precision=precision)
    spread = np.zeros(x.shape)
    spread[0, 6, 7, 0] = 1
    tied = case.reference(spread, np.ones(w.shape), np.zeros(case.y))["y"] > 0
    np.testing.assert_array_equal(np.asarray(y, np.float64) == np.inf, tied)
    assert np.isfinite(np.asarray(y, np.float64)[~tied]).all()


@FEW
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize(
    "case",
    [
        C("no image", (0, 6, 9, 3), (3, 3, 3, 8), 1, "SAME", order=NHWC),
        C("no output channel", (2, 6, 9, 3), (3, 3, 3, 0), 1, "SAME", order=NHWC),
        C("no input", (2, 6, 0, 3), (3, 3, 3, 8), 1, "SAME", order=NHWC),
        C("padding alone", (2, 6, 0, 3), (3, 2, 3, 8), 2, ((1, 1), (2, 2)), order=NHWC),
        C("no output", (2, 6, 9, 3), (3, 11, 3, 8), order=NHWC),
    ],
    ids=lambda case: case.name,
)
def test_nothing_to_sum(backend, case, dtype):
    for name, actual in gradients(case, *case.arrays(dtype), "highest").items():
        expected = lax_conv(case, dtype)[name]
        assert actual.shape == expected.shape
        np.testing.assert_array_equal(actual, expected, err_msg=name)


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


def workspace(op, case, kernel="few_channels", dtype="float32"):
    module = targets.backends[PLATFORM].module
    return module.conv_workspace_bytes(op=op, kernel=kernel, dtype=dtype, **sizes(case))


@FEW
def test_what_it_serves(backend):
    """The kernel supports what the suite's rule says, and an unsupported problem raises while tracing."""
    alone = [case for case in conv_cases.CASES if case.batch_groups == 1]  # the others are split into parts
    assert {case.has_few_channels for case in alone} == {True, False}
    for case in alone:
        for op in ("fprop", "wgrad"):
            if case.has_few_channels:
                assert workspace(op, case) >= 0
            else:
                with pytest.raises(ValueError, match=r"serves .*one group of 1 to 4"):
                    workspace(op, case)


@FEW
@pytest.mark.parametrize(
    "case",
    [
        C("five channels", (1, 9, 9, 5), (3, 3, 5, 8), order=NHWC),
        C("no channel", (1, 9, 9, 0), (3, 3, 0, 8), order=NHWC),
        C("two groups", (1, 9, 9, 4), (3, 3, 2, 8), groups=2, order=NHWC),
        C("dilated inputs", (1, 9, 9, 3), (3, 3, 3, 8), 1, "VALID", 2, order=NHWC),
        C("a filter that does not fit", (1, 40, 40, 4), (25, 25, 4, 8), order=NHWC),
        C("steps whose inputs do not fit", (1, 900, 900, 4), (3, 3, 4, 8), 90, "VALID", order=NHWC),
    ],
    ids=lambda case: case.name,
)
def test_refused(backend, case):
    with pytest.raises(ValueError, match='"few_channels" serves'):
        workspace("fprop", case)
    assert workspace("fprop", case, "auto") == 0


@FEW
def test_few_output_channels(backend):
    """With few output channels, dgrad runs on this kernel for any input channels, except with a stride."""
    assert workspace("dgrad", C("to 3", (1, 9, 9, 16), (3, 3, 16, 3), order=NHWC)) == 0
    with pytest.raises(ValueError, match='"few_channels" serves'):
        workspace("dgrad", C("to 3, strided", (1, 9, 9, 16), (3, 3, 16, 3), 2, order=NHWC))
    assert workspace("dgrad", C("3 to 16, strided", (1, 9, 9, 3), (3, 3, 3, 16), 2, order=NHWC)) == 0


# Sums in parts, of integers, so that every sum is exact in f32.
IN_PARTS = [
    C("paired", (4, 64, 66, 3), (3, 3, 3, 24), 2, "SAME", order=NHWC),
    C("one by one", (6, 40, 40, 1), (3, 3, 1, 16), 1, "SAME", order=NHWC),
]


@FEW
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("case", IN_PARTS, ids=lambda case: case.name)
def test_split_sums(backend, case, dtype):
    random = np.random.default_rng(0)
    x, w, dy = (random.integers(-2, 3, shape).astype(dtype) for shape in (case.x, case.w, case.y))
    space = workspace("wgrad", case, dtype=dtype)
    assert space >= 2 * 4 * w.size, "positions are to be split among blocks"
    assert space <= 0.05 * (x.nbytes + dy.nbytes)
    dw = jc.conv_filter_grad(x, dy, w.shape, **case.grad_arguments, precision="highest")
    np.testing.assert_array_equal(dw, case.reference(x, w, dy)["dw"].astype(dtype))


@FEW
def test_auto_takes_it(backend, monkeypatch):
    """The bits show it, because the kernels cut the sum in different places."""
    case, chosen = IN_PARTS[1], targets.backends[PLATFORM]
    x, w, dy = case.arrays("float32")

    def filter_grad(kernel):
        monkeypatch.setitem(targets.backends, PLATFORM, dataclasses.replace(chosen, kernel=kernel))
        how = {**case.grad_arguments, "precision": "highest"}
        return np.asarray(jax.jit(lambda: jc.conv_filter_grad(x, dy, w.shape, **how))())

    by_kernel = {
        kernel: filter_grad(kernel) for kernel in ("auto", "few_channels", "gemm", "tiled", "reference")
    }
    for kernel, dw in by_kernel.items():
        assert (dw == by_kernel["auto"]).all() == (kernel in ("auto", "few_channels")), kernel


# ---------------------------------------------------------------------------------------- the cost on a GPU

STEMS = {
    "3 to 64, 7x7, stride 2": C("stem", (1, 64, 64, 3), (7, 7, 3, 64), 2, ((3, 3), (3, 3)), order=NHWC),
    "4 to 64, 3x3": C("stem of 4", (1, 32, 32, 4), (3, 3, 4, 64), 1, "SAME", order=NHWC),
    "1 to 64, 5x5, stride 2": C("sound", (1, 64, 128, 1), (5, 5, 1, 64), 2, ((2, 2), (2, 2)), order=NHWC),
}
OPS = {
    "fprop": lambda case, x, w, dy, **how: jc.conv_general_dilated(x, w, **case.lax_arguments, **how),
    "wgrad": lambda case, x, w, dy, **how: jc.conv_filter_grad(x, dy, w.shape, **case.grad_arguments, **how),
}
MATHS = {  # dtype, precision, and on tensor cores the counter of multiply-adds
    "bfloat16": ("bfloat16", "default", "mma_bf16"),
    "tf32": ("float32", "default", "mma_tf32"),
    "float32": ("float32", "highest", None),
}


def count(op, case, math):
    dtype, precision, _ = MATHS[math]
    x, w, dy = case.arrays(dtype)
    run = jax.jit(functools.partial(OPS[op], case, precision=precision))
    run(x, w, dy).block_until_ready()
    with counting() as counted:
        run(x, w, dy).block_until_ready()
    return counted, (x, w, dy)


@FEW
@pytest.mark.emulator
@pytest.mark.parametrize("math", MATHS)
@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("stem", STEMS)
def test_cost(backend, stem, op, math):
    """The multiply-adds have no bank conflicts, and x and y, or x and dy, are moved about once."""
    case = STEMS[stem]
    counted, (x, _, dy) = count(op, case, math)
    assert counted["load_shared"]["instructions"] > 0
    assert counted["load_shared"]["excess"] == 0
    assert counted["ldmatrix"]["excess"] == 0
    read = counted["cp_async_global"]["sectors"] * 32
    if op == "wgrad":
        assert read <= 1.15 * (x.nbytes + dy.nbytes)
        assert counted["cp_async_global"]["bytes"] >= dy.nbytes
    else:
        stored = counted["store_global"]["sectors"] * 32 if math != "float32" else dy.nbytes
        assert read >= x.nbytes / 2
        assert read + stored <= 1.15 * (x.nbytes + dy.nbytes)


@FEW
@pytest.mark.emulator
@pytest.mark.parametrize("math", ["bfloat16", "tf32"])
def test_waste_of_tensor_cores(backend, math):
    """The largest stem needs whole groups of 8 slots, and wgrad whole warps of them."""
    case = STEMS["3 to 64, 7x7, stride 2"]
    most = {"fprop": 176 / 147 if math == "bfloat16" else 168 / 147, "wgrad": 192 / 147}
    for op, factor in most.items():
        counted, _ = count(op, case, math)
        assert 1 <= counted[MATHS[math][2]] / case.multiply_adds <= factor + 1e-9, op
