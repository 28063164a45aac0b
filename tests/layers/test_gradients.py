"""The gradient suite: compares y, dx, dw, db of every problem with the float64 sums and with lax."""

import conv_cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from backends import runs
from jax import lax
from lax_answers import exact_conv, lax_conv
from tolerance import assert_within, stored_eps, sum_bound

import jax_convgrad as jc

HIGHEST = lax.Precision.HIGHEST

# Every kernel takes every case in float32. The other dtypes run the same templates: each takes a part of the
# cases, with every feature.
ONE_DTYPE = [(case, "float32") for case in conv_cases.CASES]
ONE_DTYPE += [(case, dtype) for case in conv_cases.FEW for dtype in ("float64", "bfloat16", "float16")]
ALL = ONE_DTYPE + [(case, "float64") for case in conv_cases.CASES if case not in conv_cases.FEW]
RUNS = [(backend, *case) for backend, case in runs(ALL, ONE_DTYPE)]


def check(case, dtype, name, actual, what):
    exact, magnitude = exact_conv(case, dtype)
    assert actual.dtype == dtype, f"{what}: {actual.dtype}"
    bound = sum_bound(dtype, case.sum_lengths[name], magnitude[name], exact[name])
    assert_within(actual, exact[name], bound, what)
    if dtype == "float64" or case in conv_cases.FEW:  # compiling lax's programs is half of this suite's time
        assert_within(actual, lax_conv(case, dtype)[name], 2 * bound, f"{what} against lax")


@pytest.mark.parametrize(
    "backend, case, dtype", RUNS, indirect=["backend"], ids=lambda value: getattr(value, "name", value)
)
def test_conv(backend, case, dtype):
    """Runs everything of one problem in one program, because compiling takes most of the time."""
    x, w, dy = case.arrays(dtype)

    @jax.jit
    def run(x, w, dy):
        def conv(x, w):
            return jc.conv_general_dilated(x, w, **case.lax_arguments, precision=HIGHEST)

        y, vjp = jax.vjp(conv, x, w)
        dx, dw = vjp(dy)
        alone = {}
        if case.batch_groups == 1:
            alone["dx"] = jc.conv_input_grad(dy, w, x.shape, **case.grad_arguments, precision=HIGHEST)
            alone["dw"] = jc.conv_filter_grad(x, dy, w.shape, **case.grad_arguments, precision=HIGHEST)
        db = jc.conv_bias_grad(dy, dimension_numbers=case.specs)
        return {"y": y, "dx": dx, "dw": dw}, alone, db

    together, alone, db = run(x, w, dy)
    for name, actual in together.items():
        check(case, dtype, name, actual, name)
    for name, actual in alone.items():
        check(case, dtype, name, actual, f"{name} by itself")

    rows = np.asarray(dy, np.float64).transpose(case.to_canonical[2])
    exact, magnitude = reference.bgrad(rows), reference.bgrad(np.abs(rows))
    assert db.dtype == dtype
    assert_within(db, exact, sum_bound(dtype, rows.size // len(exact), magnitude, exact), "db")


LAYERS = [
    "2d_stride2_same",
    "2d_groups",
    "2d_permuted",
    "2d_nhwc_oihw_nchw",
    "3d_same_stride",
    "2d_past_tile_out",
]


# tanh is no kernel's, and what is linear is relu without its last step: those in one dtype.
ACTIVATIONS = [
    *(("relu", dtype) for dtype in ("float32", "float64", "bfloat16")),
    *((activation, "float32") for activation in (None, jnp.tanh)),
]


@pytest.mark.parametrize(
    "activation, dtype", ACTIVATIONS, ids=lambda value: getattr(value, "__name__", value) or "linear"
)
@pytest.mark.parametrize("name", LAYERS)
def test_layer(backend, name, activation, dtype):
    """conv with bias and activation has the y, dx, dw and db of the reference, chained by hand."""
    case = conv_cases.BY_NAME[name]
    x, w, dy = case.arrays(dtype)
    _, w_order, y_order = case.to_canonical
    features = case.w[w_order[-1]]
    b = np.random.default_rng(3).standard_normal(features).astype(dtype)

    @jax.jit
    def run(x, w, b, dy):
        def layer(x, w, b):
            return jc.conv(
                x, w, b,
                stride=case.stride, padding=case.padding, dilation=case.filter_dilation, groups=case.groups,
                dimension_numbers=case.specs, activation=activation, precision=HIGHEST,
            )  # fmt: skip

        y, vjp = jax.vjp(layer, x, w, b)
        return y, *vjp(dy)

    y, dx, dw, db = run(x, w, b, dy)
    exact, magnitude = exact_conv(case, dtype)
    bias = np.asarray(b, np.float64).reshape([-1 if d == y_order[-1] else 1 for d in range(case.rank + 2)])
    z = exact["y"] + bias
    # Each step between kernels may round to the stored type once more.
    rounding = 2 * stored_eps(dtype)
    z_bound = sum_bound(dtype, case.sum_lengths["y"] + 1, magnitude["y"] + np.abs(bias), z)
    z_bound = z_bound + rounding * (np.abs(exact["y"]) + np.abs(bias))

    if activation is None:
        exact_y, slope = z, np.ones_like(z)
    elif activation == "relu":
        # If z is within its error of 0, either slope is right, so these gradients are removed from dy.
        dy = np.where(np.abs(z) <= z_bound, 0, dy).astype(dtype)
        _, dx, dw, db = run(x, w, b, dy)
        exact_y, slope = np.maximum(z, 0), (z > 0).astype(np.float64)
    else:
        exact_y, slope = np.tanh(z), 1 - np.tanh(z) ** 2
    assert_within(y, exact_y, z_bound + rounding, "y")

    dz = np.asarray(dy, np.float64) * slope
    dz_error = (
        0
        if activation in (None, "relu")
        else np.abs(np.asarray(dy, np.float64)) * (2 * z_bound + 2 * rounding)
    )
    exact = case.reference(x, w, dz)
    magnitude = case.reference(x, w, dz, reduce_abs=True)
    carried = case.reference(x, w, dz_error + np.zeros_like(dz), reduce_abs=True)
    for what, actual in {"dx": dx, "dw": dw}.items():
        bound = sum_bound(dtype, case.sum_lengths[what], magnitude[what], exact[what])
        assert_within(
            actual, exact[what], bound + carried[what] + rounding * magnitude[what] * (slope < 1).any(), what
        )

    rows = dz.transpose(y_order)
    exact_db, magnitude_db = reference.bgrad(rows), reference.bgrad(np.abs(rows))
    carried_db = reference.bgrad((dz_error + np.zeros_like(dz)).transpose(y_order)) + rounding * magnitude_db
    bound = sum_bound(dtype, rows.size // features, magnitude_db, exact_db)
    assert_within(db, exact_db, bound + carried_db, "db")


def test_layer_defaults_are_channels_last(backend):
    """conv and the gradient functions are channels-last without dimension_numbers, in 1 to 3 dimensions."""
    for spatial in ("W", "HW", "DHW"):
        size = len(spatial)
        specs = (f"N{spatial}C", f"{spatial}IO", f"N{spatial}C")
        random = np.random.default_rng(size)
        x, w = (
            random.standard_normal((2, *range(4, 4 + size), 3)),
            random.standard_normal((*[2] * size, 3, 4)),
        )

        def by_lax(x, w, specs=specs, size=size):
            return lax.conv_general_dilated(x, w, (2,) * size, "SAME", dimension_numbers=specs)

        y, vjp = jax.vjp(by_lax, x, w)
        dy = random.standard_normal(y.shape)
        dx, dw = vjp(dy)
        same = {"stride": 2, "padding": "SAME"}
        pairs = [
            (jc.conv(x, w, **same), y),
            (jc.conv_input_grad(dy, w, x.shape, **same), dx),
            (jc.conv_filter_grad(x, dy, w.shape, **same), dw),
            (jc.conv_bias_grad(dy), dy.sum(tuple(range(size + 1)))),
        ]
        for actual, expected in pairs:
            np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-12)


def test_preferred_element_type(backend):
    """With bf16 operands and an f32 result, y is the f32 sum, not a widened bf16 sum; gradients are bf16."""
    case = conv_cases.BY_NAME["2d_33_to_5"]
    x, w, _ = case.arrays("bfloat16")
    dy = case.arrays("float32")[2]

    def conv(x, w):
        return jc.conv_general_dilated(x, w, **case.lax_arguments, preferred_element_type=jnp.float32)

    y, vjp = jax.vjp(conv, x, w)
    dx, dw = vjp(dy)
    exact, magnitude = case.reference(x, w, dy), case.reference(x, w, dy, reduce_abs=True)
    assert (y.dtype, dx.dtype, dw.dtype) == (jnp.float32, jnp.bfloat16, jnp.bfloat16)
    assert_within(y, exact["y"], sum_bound("float32", case.sum_lengths["y"], magnitude["y"], exact["y"]), "y")
    for name, actual in {"dx": dx, "dw": dw}.items():
        # dy may be rounded to bf16 before the product, as in lax.
        bound = sum_bound("bfloat16", case.sum_lengths[name], magnitude[name], exact[name])
        bound = bound + stored_eps("bfloat16") / 2 * magnitude[name]
        assert_within(actual, exact[name], bound, name)


def test_default_precision_is_no_coarser_than_tf32(backend):
    """DEFAULT may round f32 operands to TF32's 10 bits of fraction, but not to fewer."""
    for name in ("2d_past_tile_out", "2d_stride2_same", "2d_depthwise"):
        case = conv_cases.BY_NAME[name]
        x, w, dy = case.arrays("float32")
        y, vjp = jax.vjp(lambda x, w, case=case: jc.conv_general_dilated(x, w, **case.lax_arguments), x, w)
        exact, magnitude = exact_conv(case, "float32")
        for what, actual in zip(("y", "dx", "dw"), (y, *vjp(dy)), strict=True):
            bound = sum_bound("float32", case.sum_lengths[what], magnitude[what], exact[what])
            assert_within(actual, exact[what], bound + 2**-10 * magnitude[what], f"{name} {what}")


@pytest.mark.parametrize("empty", ["batch", "positions", "features", "channels"])
def test_nothing_to_sum(backend, empty):
    """With zero sizes, empty results have lax's shape, and sums over nothing are written as zeros."""
    x_shape = {"batch": (0, 5, 5, 3), "channels": (2, 5, 5, 0), "positions": (2, 2, 5, 3)}.get(
        empty, (2, 5, 5, 3)
    )
    w_shape = (3, 3, x_shape[-1], 0 if empty == "features" else 4)
    x, w = np.ones(x_shape, np.float32), np.ones(w_shape, np.float32)

    def run(conv_general_dilated):
        @jax.jit
        def conv(x, w):
            return conv_general_dilated(x, w, (1, 1), "VALID", dimension_numbers=conv_cases.NHWC)

        y, vjp = jax.vjp(conv, x, w)
        return y, *vjp(jnp.ones_like(y))

    for ours, laxs in zip(run(jc.conv_general_dilated), run(lax.conv_general_dilated), strict=True):
        assert ours.shape == laxs.shape
        np.testing.assert_array_equal(ours, laxs)
