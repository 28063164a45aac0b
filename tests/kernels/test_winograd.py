"""The CPU's "winograd": every problem that it takes, what precision chooses it, and how far a NaN reaches."""

import conv_cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conv_cases import NDHWC, NHWC, NWC, ConvCase
from cpu_by_name import CPU, ISAS, run_all, spec_of
from lax_answers import exact_conv
from tolerance import assert_within, sum_bound

import jax_convgrad as jc
from jax_convgrad.primitives import ffi
from jax_convgrad.primitives.epilogue import fprop_epilogue

DTYPES = ("float32", "bfloat16", "float16")

# A result's error depends on its whole tile, whose numbers the transforms make at most so much larger.
GROWTH = 8

CASES = [
    ConvCase("one_tile", (1, 4, 4, 3), (3, 3, 3, 2), padding="SAME", order=NHWC),
    ConvCase("ends_of_tiles", (2, 9, 6, 5), (3, 3, 5, 18), padding="SAME", order=NHWC),
    ConvCase("one_result", (2, 3, 3, 4), (3, 3, 4, 3), order=NHWC),
    ConvCase("uneven_padding", (1, 6, 7, 4), (3, 3, 4, 6), padding=((0, 5), (3, 1)), order=NHWC),
    ConvCase("cropped", (1, 11, 9, 4), (3, 3, 4, 6), padding=((-2, 1), (0, -3)), order=NHWC),
    ConvCase("several_blocks", (4, 33, 21, 17), (3, 3, 17, 35), padding="SAME", order=NHWC),
    ConvCase("many_sources", (1, 5, 5, 150), (3, 3, 150, 20), padding="SAME", order=NHWC),
    ConvCase("many_results", (1, 5, 5, 20), (3, 3, 20, 300), padding="SAME", order=NHWC),
    # Its transformed filter would have 20 MiB, so every task transforms the part that it needs.
    ConvCase("large_filter", (1, 9, 8, 400), (3, 3, 400, 370), padding="SAME", order=NHWC),
    ConvCase("groups", (1, 8, 9, 34), (3, 3, 17, 38), padding="SAME", groups=2, order=NHWC),
    ConvCase("depthwise", (1, 8, 9, 5), (3, 3, 1, 5), padding="SAME", groups=5, order=NHWC),
    ConvCase("dilated", (1, 17, 11, 4), (3, 3, 4, 6), padding="SAME", filter_dilation=(2, 3), order=NHWC),
    ConvCase(
        "dilated_past_the_image", (1, 5, 4, 4), (3, 3, 4, 6), padding="SAME", filter_dilation=7, order=NHWC
    ),
    ConvCase("one_axis_of_two", (2, 9, 10, 6), (3, 1, 6, 7), padding="SAME", order=NHWC),
    ConvCase("the_other_axis", (2, 9, 10, 6), (1, 3, 6, 7), padding="SAME", order=NHWC),
    ConvCase("five_by_three", (1, 9, 10, 6), (5, 3, 6, 7), padding="SAME", order=NHWC),
    ConvCase("three_by_five", (1, 9, 10, 6), (3, 5, 6, 7), padding="SAME", order=NHWC),
    ConvCase("stride_along_one", (1, 9, 11, 6), (3, 3, 6, 7), stride=(2, 1), padding="SAME", order=NHWC),
    ConvCase(
        "dilated_input_along_one",
        (1, 5, 6, 4),
        (3, 3, 4, 7),
        padding=((2, 2), (1, 1)),
        input_dilation=(2, 1),
        order=NHWC,
    ),
    ConvCase("1d", (3, 131, 18), (3, 18, 20), padding="SAME", order=NWC),
    ConvCase("1d_dilated", (2, 50, 4), (3, 4, 6), padding="SAME", filter_dilation=4, order=NWC),
    ConvCase("3d", (1, 6, 7, 5, 6), (3, 3, 3, 6, 8), padding="SAME", order=NDHWC),
    ConvCase("3d_between", (1, 6, 7, 5, 4), (3, 1, 3, 4, 6), padding="SAME", order=NDHWC),
    ConvCase("3d_outer", (1, 6, 7, 5, 4), (3, 3, 2, 4, 6), order=NDHWC),
    ConvCase("3d_apart", (1, 5, 6, 7, 4), (3, 2, 3, 4, 6), order=NDHWC),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_kernel(case, platforms):
    arrays = {dtype: case.arrays(dtype) for dtype in DTYPES}
    names = [f"winograd.{isa}" for isa in ISAS]
    for (dtype, name), results in run_all(case, names, arrays, platforms).items():
        exact, magnitude = exact_conv(case, dtype)
        for what, actual in results.items():
            assert actual.dtype == dtype
            bound = sum_bound(dtype, case.sum_lengths[what], GROWTH * magnitude[what].max(), exact[what])
            assert_within(actual, exact[what], bound, f"{what} by {name} in {dtype}")


@pytest.mark.parametrize("dtype", DTYPES)
def test_bias_and_relu(dtype, platforms):
    """A tile's results get their bias and are cut off before they are rounded."""
    case = ConvCase("layer", (2, 9, 10, 8), (3, 3, 8, 21), padding="SAME", order=NHWC)
    x, w, _ = case.arrays(dtype)
    b = np.random.default_rng(0).standard_normal(21).astype(dtype)
    exact, magnitude = exact_conv(case, dtype)
    z = exact["y"] + b.astype(np.float64)
    largest = GROWTH * (magnitude["y"].max() + np.abs(b.astype(np.float64)).max())
    for isa in ISAS:
        on = platforms(f"winograd.{isa}")
        for bias, relu in ((b, False), (b, True), (None, True)):
            expected = z if bias is not None else exact["y"]
            expected = np.maximum(expected, 0) if relu else expected
            actual = ffi.fprop(on, x, w, spec_of(case), *([] if bias is None else [b]), relu=relu)
            bound = sum_bound(dtype, case.sum_lengths["y"] + 1, largest, expected)
            assert_within(actual, expected, bound, f"bias {bias is not None}, relu {relu}, {isa}")


def test_refuses(platforms):
    for case, dtype in [
        (conv_cases.BY_NAME["2d_stride2_same"], "float32"),
        (CASES[1], "float64"),
        (ConvCase("five_taps", (1, 9, 9, 2), (5, 5, 2, 2), order=NHWC), "float32"),
    ]:
        x, w, _ = case.arrays(dtype)
        with pytest.raises(ValueError, match='"winograd" serves float32, bfloat16 and float16'):
            ffi.fprop(platforms("winograd"), x, w, spec_of(case))


DENSE = {
    "dtype": "float32", "batch": 8, "in_channels": 64, "out_channels": 64, "groups": 1,
    "axes": [(1, 1, 1, 1, 0, 1, 1), (28, 3, 28, 1, 1, 1, 1), (28, 3, 28, 1, 1, 1, 1)],
}  # fmt: skip


@pytest.mark.parametrize("op", ["fprop", "dgrad", "wgrad"])
def test_precision_chooses(op):
    for below, kernel in ((True, "winograd"), (False, "tiled")):
        assert CPU.module.plan(op, "auto", **DENSE, below_highest=below)["kernel"] == kernel


@pytest.mark.parametrize("op", ["fprop", "dgrad", "wgrad"])
@pytest.mark.parametrize(
    "changed",
    [
        {"dtype": "float64"},
        {"in_channels": 3},
        {"out_channels": 4},
        {"groups": 16},  # 4 channels each
        {"axes": [(1, 1, 1, 1, 0, 1, 1), (28, 5, 28, 1, 2, 1, 1), (28, 5, 28, 1, 2, 1, 1)]},
        {"axes": [(1, 1, 1, 1, 0, 1, 1), (28, 3, 14, 2, 1, 1, 1), (28, 3, 14, 2, 1, 1, 1)]},
        {"axes": [(1, 1, 1, 1, 0, 1, 1), (2, 3, 2, 1, 1, 1, 1), (2, 3, 2, 1, 1, 1, 1)]},
    ],
    ids=str,
)
def test_not_where_it_does_not_pay(op, changed):
    assert CPU.module.plan(op, "auto", **DENSE | changed)["kernel"] != "winograd"


@pytest.mark.parametrize("empty", [{"batch": 0}, {"in_channels": 0}, {"out_channels": 0}], ids=str)
@pytest.mark.parametrize("op", ["fprop", "dgrad", "wgrad"])
def test_plans_of_empty_arrays(op, empty):
    facts = CPU.module.plan(op, "winograd", **DENSE | empty)
    assert facts["kernel"] == "winograd"


def layer(precision):
    def conv(x, w):
        return jc.conv(x, w, padding="SAME", precision=precision)

    return jax.jit(lambda x, w, dy: (conv(x, w), *jax.vjp(conv, x, w)[1](dy)))


def operands(batch=2, channels=32):
    random = np.random.default_rng(0)
    shapes = (batch, 12, 12, channels), (3, 3, channels, channels), (batch, 12, 12, channels)
    return [random.standard_normal(shape).astype(np.float32) for shape in shapes]


def test_highest_is_the_sums_as_they_stand(platforms):
    """At HIGHEST the results have the bits of "tiled", and below it those of "winograd"."""
    arrays = operands()
    case = ConvCase("dense", arrays[0].shape, arrays[1].shape, padding="SAME", order=NHWC)
    x, w, dy = arrays
    for kernel, precisions in {"tiled": ["highest"], "winograd": [None, "default", "high"]}.items():
        on, spec = platforms(kernel), spec_of(case)
        by_name = ffi.fprop(on, x, w, spec), ffi.dgrad(on, dy, w, spec), ffi.wgrad(on, x, dy, spec)
        for precision in precisions:
            for a, b in zip(layer(precision)(*arrays), by_name, strict=True):
                np.testing.assert_array_equal(a, b, err_msg=f"{kernel}, {precision}")


def test_a_nan_stays_in_its_tiles():
    """A NaN or an infinity makes NaN of every result whose tile reads it, and of no other."""
    x, w, dy = operands(batch=1)
    clean = np.asarray(layer(None)(x, w, dy)[0])
    for bad in (np.nan, np.inf):
        x[0, 6, 1, 3] = bad
        y = np.asarray(layer(None)(x, w, dy)[0])
        # Tiles of 4 x 4 results read 6 x 6 inputs: row 6 belongs to rows 4..7, column 1 to columns 0..3.
        reached = np.zeros(y.shape, bool)
        reached[0, 4:8, 0:4] = True
        assert np.isnan(y[reached]).all()
        np.testing.assert_array_equal(y[~reached], clean[~reached])


def test_a_channel_without_gradient_stays_exactly_zero():
    """Zeros transform to zeros, so that a dead unit's filter has a gradient of zeros."""
    x, w, dy = operands()
    dy[..., 5] = 0
    dw = np.asarray(layer(None)(x, w, dy)[2])
    assert not dw[..., 5].any() and dw[..., 4].all()


def test_any_batch_of_an_export():
    """A program exported for any batch has workspace for whatever kernel each batch gets."""
    x, w, _ = operands(batch=8, channels=64)
    n = jax.export.symbolic_shape("n")[0]
    conv = jax.jit(lambda x, w: jc.conv(x, w, padding="SAME"))
    exported = jax.export.export(conv, disabled_checks=jc.export_checks())(
        jax.ShapeDtypeStruct((n, *x.shape[1:]), x.dtype), w
    )
    for batch in (1, 2, 8):
        np.testing.assert_array_equal(exported.call(x[:batch], w), conv(x[:batch], w))


def test_workspace_is_bounded():
    """The transformed filter has four times the filter's size, and at most 16 MiB."""
    for channels in (8, 64, 100, 256, 512, 2048):
        problem = DENSE | {"in_channels": channels, "out_channels": channels}
        for op in ("fprop", "dgrad", "wgrad"):
            found = CPU.module.conv_workspace_bytes(op=op, kernel="auto", **problem, below_highest=True)
            lanes = -(-channels // 16) * 16
            filter_bytes = 9 * channels * lanes * 4
            bound = max(min(4 * filter_bytes + 36 * 64, 16 << 20), filter_bytes)
            activations = 2 * 8 * 28 * 28 * channels * 4
            limit = max(filter_bytes, activations / 4) if op == "wgrad" else bound
            assert found <= limit, (op, channels)


def test_mixed_dtype_results_are_unrounded():
    """Operands of 16 bits with a float32 result: no rounding in between."""
    x, w, _ = (a.astype(jnp.bfloat16) for a in operands())

    def conv(x, w):
        return jc.conv_general_dilated(
            x, w, (1, 1), "SAME", dimension_numbers=NHWC, preferred_element_type=jnp.float32
        )

    wide = [np.asarray(a, np.float64) for a in (x, w)]
    case = ConvCase("dense", x.shape, w.shape, padding="SAME", order=NHWC)
    exact = case.reference(*wide, np.zeros(case.y))["y"]
    y = conv(x, w)
    assert y.dtype == jnp.float32
    assert np.abs(np.asarray(y, np.float64) - exact).max() < 1e-5 * np.abs(exact).max()


def test_a_layer_takes_bias_and_relu_along():
    """conv's bias and relu stay part of the call, so that y needs no second pass."""
    x, w, _ = operands()
    b = np.linspace(-1, 1, 32, dtype=np.float32)
    y = np.asarray(jc.conv(x, w, b, padding="SAME", activation="relu"))
    plain = np.asarray(
        fprop_epilogue(x, w, None, False, spec_of(ConvCase("", x.shape, w.shape, padding="SAME", order=NHWC)))
    )
    np.testing.assert_allclose(y, np.maximum(plain + b, 0), atol=1e-5)
