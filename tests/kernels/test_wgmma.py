"""The Hopper kernels (TMA and wgmma) in the emulator: every tile, phase and operand layout."""

import functools

import conv_cases
import jax
import numpy as np
import pytest
from backends import PLATFORM, cuda_backend
from conv_cases import NDHWC, NHWC, NWC
from conv_cases import ConvCase as C
from emulated_counters import counting
from emulated_launches import conv_launches
from lax_answers import exact_conv
from tolerance import assert_within, sum_bound

import jax_convgrad as jc
from jax_convgrad.primitives import targets

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
    "y": lambda case, x, w, dy, **how: jc.conv_general_dilated(x, w, **case.lax_arguments, **how),
    "dx": lambda case, x, w, dy, **how: jc.conv_input_grad(dy, w, x.shape, **case.grad_arguments, **how),
    "dw": lambda case, x, w, dy, **how: jc.conv_filter_grad(x, dy, w.shape, **case.grad_arguments, **how),
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


@WGMMA
@pytest.mark.parametrize("case", conv_cases.CASES, ids=lambda case: case.name)
def test_the_suites_problems(backend, case):
    """Every problem of the suite, with whole chunks of channels, in the ops that the kernel supports."""
    case = case.widened(8)
    exact, magnitude = exact_conv(case, "bfloat16")
    served = []
    for name, op in OPS.items():
        if case.batch_groups > 1 and name != "y":
            continue  # the gradient functions have no batch groups
        try:
            actual = jax.jit(functools.partial(op, case))(*case.arrays("bfloat16"))
        except ValueError as refused:
            assert 'the kernel "wgmma" serves' in str(refused)
            continue
        served.append(name)
        bound = sum_bound("bfloat16", case.sum_lengths[name], magnitude[name], exact[name])
        assert_within(actual, exact[name], bound, name)
    dense = case.groups == case.batch_groups == 1
    undilated = all(axis.input_dilation == 1 for axis in case.axes)
    # Most outputs of a tap, or most taps of an output, may be on padding: gemm skips those tile by tile.
    spans = [(axis, (axis.input - 1) * axis.input_dilation) for axis in case.axes]
    outputs_padded = any(span // axis.stride + 1 <= axis.output // 2 for axis, span in spans)
    taps_padded = any(span // axis.filter_dilation + 1 <= axis.taps // 2 for axis, span in spans)
    if dense:
        assert ("y" in served) == (not outputs_padded)
        assert ("dw" in served) == (undilated and not outputs_padded and not taps_padded)


@WGMMA
@pytest.mark.parametrize("op", ["y", "dx"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_tf32(backend, case, op):
    """Each operand is rounded to 11 bits, to nearest: products have errors of at most 2^-10, and some do."""
    exact, magnitude = exact_conv(case, "float32")
    actual = jax.jit(functools.partial(OPS[op], case, precision="default"))(*case.arrays("float32"))
    in_full = sum_bound("float32", case.sum_lengths[op], magnitude[op], exact[op])
    assert_within(actual, exact[op], 2.0**-10 * magnitude[op] + in_full, op)
    assert np.any(np.abs(np.asarray(actual, np.float64) - exact[op]) > in_full), f"{op} is not TF32"


@WGMMA
@pytest.mark.parametrize(
    "name", ["tails of rows, slices and columns", "groups", "more tiles than multiprocessors"]
)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_bias_and_relu(backend, name, dtype):
    """The call itself adds bias and relu and rounds once; f32 is multiplied as TF32."""
    case = BY_NAME[name]
    exact, magnitude = exact_conv(case, dtype)
    x, w, _ = case.arrays(dtype)
    b = np.random.default_rng(3).standard_normal(w.shape[-1]).astype(dtype)
    how = dict(padding=case.padding, groups=case.groups, activation="relu", precision="default")
    run = jax.jit(functools.partial(jc.conv, **how))
    assert run.lower(x, w, b).compile().as_text().count("custom_call_target") == 1
    wide = b.astype(np.float64)
    y, size = np.maximum(exact["y"] + wide, 0), magnitude["y"] + np.abs(wide)
    bound = sum_bound(dtype, case.sum_lengths["y"] + 1, size, y)
    if dtype == "float32":
        bound += 2.0**-10 * magnitude["y"]
    assert_within(run(x, w, b), y, bound, name)


@WGMMA
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_sum_in_parts(backend, dtype):
    """There are enough positions for several parts of dW, and the filter is small enough for partial sums."""
    case = C("parts", (8, 32, 32, 8), (3, 3, 8, 8), 1, "SAME", order=NHWC)
    module, asked = targets.backends[PLATFORM].module, dict(batch=8, in_channels=8, out_channels=8, groups=1)
    axes = [(32, 3, 32, 1, 1, 1, 1)] * 2
    workspace = module.conv_workspace_bytes(op="wgrad", kernel="wgmma", dtype=dtype, axes=axes, **asked)
    assert workspace >= 2 * 4 * 9 * 8 * 8
    exact, magnitude = exact_conv(case, dtype)
    first, second = (jax.jit(functools.partial(OPS["dw"], case))(*case.arrays(dtype)) for _ in range(2))
    bound = sum_bound(dtype, case.sum_lengths["dw"], magnitude["dw"], exact["dw"])
    assert_within(first, exact["dw"], bound, "dw")
    np.testing.assert_array_equal(first, second)


FOR_MULTIPROCESSORS = [
    BY_NAME["more tiles than multiprocessors"],
    BY_NAME["phases of a stride"],
    # Enough positions for several parts of dw, and more than one tile of it.
    C("parts of a sum", (2, 32, 32, 72), (1, 2, 72, 136), 1, "SAME", order=NHWC),
]


@WGMMA
@pytest.mark.emulator
@pytest.mark.parametrize("case", FOR_MULTIPROCESSORS, ids=lambda case: case.name)
def test_bits_do_not_depend_on_the_number_of_multiprocessors(backend, case, monkeypatch):
    """Only the assignment of tiles to blocks depends on it."""
    x, w, dy = case.arrays("bfloat16")
    run = jax.jit(lambda x, w, dy: {name: op(case, x, w, dy) for name, op in OPS.items()})
    problem = {
        "dtype": "bfloat16",
        "batch": case.x[0],
        "in_channels": case.x[-1],
        "out_channels": case.w[-1],
        "groups": case.groups,
        "axes": [
            (a.input, a.taps, a.output, a.stride, a.pad_lo, a.input_dilation, a.filter_dilation)
            for a in case.axes
        ],
    }
    bits, blocks = [], []
    for count in (1, 3, 7):
        monkeypatch.setenv("JAX_CONVGRAD_EMULATOR_MULTIPROCESSORS", str(count))
        bits.append({name: np.asarray(array).view(np.uint16) for name, array in run(x, w, dy).items()})
        blocks.append([conv_launches(op, "wgmma", **problem)[0].blocks for op in ("fprop", "dgrad", "wgrad")])
    # The launches differ, so the comparison means something.
    assert blocks[0] == [1, 1, 1]
    assert max(blocks[1]) == 3 and max(blocks[2]) > 3
    for other in bits[1:]:
        for name in OPS:
            np.testing.assert_array_equal(bits[0][name], other[name], name)


@WGMMA
@pytest.mark.emulator
@pytest.mark.parametrize("text", ["0", "-2", "many", "3 ", "", "99999999999"])
def test_a_wrong_number_of_multiprocessors_is_an_error(backend, text, monkeypatch):
    case = BY_NAME["whole tiles"]
    x, w, dy = case.arrays("bfloat16")
    run = jax.jit(functools.partial(OPS["y"], case))
    run(x, w, dy).block_until_ready()
    monkeypatch.setenv("JAX_CONVGRAD_EMULATOR_MULTIPROCESSORS", text)
    with pytest.raises(ValueError, match="CUDA: invalid argument"):
        run(x, w, dy).block_until_ready()


@WGMMA
@pytest.mark.parametrize(
    "case, dtype, op, precision",
    [
        (C("odd channels", (1, 8, 8, 9), (3, 3, 9, 8), order=NHWC), "bfloat16", "y", None),
        (C("narrow groups", (1, 8, 8, 64), (3, 3, 32, 64), groups=2, order=NHWC), "bfloat16", "y", None),
        (
            C("a stride past the hardware's", (1, 40, 40, 8), (3, 3, 8, 8), 9, order=NHWC),
            "float16",
            "y",
            None,
        ),
        (
            C("padding past the hardware's", (1, 8, 8, 8), (3, 3, 8, 8), 1, ((129, 0), (0, 0)), order=NHWC),
            "bfloat16",
            "y",
            None,
        ),
        (C("too many phases", (1, 13, 13, 8), (3, 3, 8, 8), 4, order=NHWC), "bfloat16", "dx", None),
        (C("f64", (1, 8, 8, 8), (3, 3, 8, 8), order=NHWC), "float64", "y", None),
        (C("f32 in full", (1, 8, 8, 8), (3, 3, 8, 8), order=NHWC), "float32", "y", "highest"),
        (C("dW in TF32", (1, 8, 8, 8), (3, 3, 8, 8), order=NHWC), "float32", "dw", "default"),
    ],
    ids=lambda value: value.name if isinstance(value, C) else None,
)
def test_what_it_refuses(backend, case, dtype, op, precision):
    with pytest.raises(ValueError, match='the kernel "wgmma" serves'):
        OPS[op](case, *case.arrays(dtype), precision=precision)


# ---------------------------------------------------------------------------------------- the cost on a GPU


@WGMMA
@pytest.mark.emulator
@pytest.mark.parametrize(
    "op, dtype", [(op, "bfloat16") for op in OPS] + [("y", "float32"), ("dx", "float32")]
)
def test_cost(backend, op, dtype):
    """There are no bank conflicts in shared memory, no unused sectors, and little work on tiles' edges."""
    case = C("dense", (2, 8, 8, 64), (3, 3, 64, 128), 1, "SAME", order=NHWC)
    x, w, dy = case.arrays(dtype)
    run = jax.jit(functools.partial(OPS[op], case, precision="default"))
    run(x, w, dy).block_until_ready()
    with counting() as counted:
        run(x, w, dy).block_until_ready()
    assert counted["wgmma_shared"]["excess"] == 0
    assert counted["load_shared"]["excess"] == 0
    copies = counted["tma_global"]
    assert copies["instructions"] > 0
    assert copies["sectors"] <= 1.15 * copies["bytes"] / 32
    stores = counted["store_global"]
    assert stores["sectors"] * 32 <= 1.15 * stores["bytes"]
    work = counted["wgmma_bf16" if dtype == "bfloat16" else "wgmma_tf32"]
    assert 1 <= work / case.multiply_adds <= 1.15
