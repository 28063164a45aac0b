"""16-bit operands with float32 results: every kernel stores the f32 sums and converts no operand."""

import functools
import re

import conv_cases
import jax
import jax.numpy as jnp
import meshes
import numpy as np
import pytest
from backends import cuda_backend
from conv_cases import NHWC, NWC
from conv_cases import ConvCase as C
from dense_layers import DENSE, INSTALLED_WITH_GRADIENTS, in_force, needs_lax_gradient
from jax import lax
from lax_answers import exact_conv
from tolerance import assert_within, stored_eps, sum_bound

import jax_convgrad as jc
from jax_convgrad.layers.convolution import layer_spec
from jax_convgrad.primitives import contractions, ffi, targets

FLOAT32 = np.dtype(np.float32)
NARROW = ("bfloat16", "float16")
OPS = {"y": (contractions.fprop, 0, 1), "dx": (contractions.dgrad, 2, 1), "dw": (contractions.wgrad, 0, 2)}

GROUPED = [
    C("depthwise", (2, 9, 11, 16), (3, 3, 1, 16), 1, "SAME", groups=16, order=NHWC),
    C("depthwise of odd channels", (2, 9, 11, 5), (3, 3, 1, 5), 2, "SAME", groups=5, order=NHWC),
    C("depthwise, large", (4, 24, 24, 16), (5, 5, 1, 16), 2, "SAME", groups=16, order=NHWC),
    C("groups of 4", (2, 8, 9, 16), (3, 3, 4, 16), 2, "SAME", groups=4, order=NHWC),
    C("groups of 8", (2, 8, 9, 16), (3, 3, 8, 16), 1, "SAME", groups=2, order=NHWC),
    C("groups of 3", (1, 30, 9), (2, 3, 9), 1, "SAME", groups=3, order=NWC),
]
THIN = [
    C("few channels", (2, 19, 22, 3), (7, 7, 3, 64), 2, ((3, 3), (3, 3)), order=NHWC),
    C("few channels, odd", (2, 8, 10, 3), (3, 2, 3, 13), 1, "SAME", order=NHWC),
    C("few channels, large", (8, 40, 40, 4), (3, 3, 4, 16), 1, "SAME", order=NHWC),
]
CHUNKED = [
    DENSE[2],
    C("chunks, strided", (2, 9, 10, 64), (3, 3, 64, 72), 2, ((1, 1), (1, 1)), order=NHWC),
    C("chunks, long", (4, 32, 32, 64), (1, 1, 64, 64), order=NHWC),
]
RUNS = [
    *(("cpu", "reference", case) for case in (DENSE[0], DENSE[3], GROUPED[3])),
    *(("cpu", "tiled", case) for case in (*DENSE, GROUPED[1], GROUPED[3])),
    *(("cpu", "tiled.plain", case) for case in (DENSE[2], DENSE[6])),
    *(("cpu", kernel, case) for kernel in ("dot", "dot.plain") for case in (DENSE[0], DENSE[5], DENSE[6])),
    *(("cpu", "grouped", case) for case in GROUPED),
    *(("cpu", "grouped.plain", case) for case in (GROUPED[0], GROUPED[5])),
    *((cuda_backend("reference"), "reference", case) for case in (DENSE[0], DENSE[3], GROUPED[0])),
    *((cuda_backend("tiled"), "tiled", case) for case in (*DENSE[:4], GROUPED[3])),
    *((cuda_backend("gemm"), "gemm", case) for case in (*DENSE, GROUPED[4])),
    *((cuda_backend("few_channels"), "few_channels", case) for case in THIN),
    *((cuda_backend("grouped"), "grouped", case) for case in GROUPED),
    *((cuda_backend("wgmma"), "wgmma", case) for case in CHUNKED),
]


@pytest.fixture
def kernel(backend, request):
    """Makes the backend's calls select this kernel."""
    ours = targets.backends["cpu"]
    targets.backends["cpu"] = targets.Backend(ours.module, ours.prefix, request.param)
    jax.clear_caches()
    yield request.param
    targets.backends["cpu"] = ours
    jax.clear_caches()


def contraction(op, case):
    """An op of a case as a function of x, w and dy, and its result's dtype if it differs from theirs."""
    spec, _ = layer_spec(
        case.x, case.w, ("x", "w"), case.stride, case.padding, case.input_dilation, case.filter_dilation,
        case.groups, case.specs, lax.Precision.HIGHEST,
    )  # fmt: skip
    function, a, b = OPS[op]

    def run(*arrays, result_dtype=FLOAT32):
        return function(arrays[a], arrays[b], spec.with_result_dtype(result_dtype))

    return run


def layer(case, **how):
    return functools.partial(
        jc.conv_general_dilated, **{**case.lax_arguments, "dimension_numbers": case.specs}, **how
    )


wide_layer = functools.partial(layer, preferred_element_type=jnp.float32)


@pytest.mark.small_groups
@pytest.mark.few_channels
@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize(
    ("backend", "kernel", "case"),
    RUNS,
    indirect=["backend", "kernel"],
    ids=lambda value: value.name if isinstance(value, C) else None,
)
def test_sums_are_stored_as_they_are(backend, kernel, case, dtype):
    arrays = [jnp.asarray(array) for array in case.arrays(dtype)]
    ops = OPS
    if kernel.startswith("dot"):
        ops = {"y", "dx"}
        with pytest.raises(ValueError, match="not wgrad"):
            jax.jit(contraction("dw", case))(*arrays)

    @jax.jit
    def run(*arrays):
        return {op: [contraction(op, case)(*arrays, result_dtype=to) for to in (FLOAT32, None)] for op in ops}

    exact, magnitude = exact_conv(case, dtype)
    for op, (result, rounded) in run(*arrays).items():
        assert result.dtype == jnp.float32
        bound = sum_bound("float32", case.sum_lengths[op], magnitude[op], exact[op])
        assert_within(result, exact[op], bound, op)
        # Rounded, they are the same call's result of the operands' dtype, bit by bit.
        assert rounded.dtype == dtype
        np.testing.assert_array_equal(np.asarray(result.astype(dtype)), np.asarray(rounded), op)


@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize("op", OPS)
def test_the_call_takes_the_operands_as_they_are(op, dtype):
    text = jax.jit(contraction(op, DENSE[0])).lower(*map(jnp.asarray, DENSE[0].arrays(dtype))).as_text()
    narrow = {"bfloat16": "bf16", "float16": "f16"}[dtype]
    (types,) = re.findall(r"custom_call @jax_convgrad_.* : \((.*?)\) -> (.*)", text)
    assert types[0].count(narrow) == 2
    assert "f32" not in types[0]
    assert "f32" in types[1]
    assert "stablehlo.convert" not in text


@pytest.mark.parametrize("function", ["conv", "transposed", "transposed_kernel"])
@pytest.mark.parametrize("dtype", NARROW)
def test_direct_functions_convert_no_operand(function, dtype):
    x, w, _ = map(jnp.asarray, DENSE[0].arrays(dtype))
    f = {
        "conv": wide_layer(DENSE[0]),
        "transposed": lambda x, w: jc.conv_transpose(
            x, w, (2, 2), "SAME", preferred_element_type=jnp.float32
        ),
        "transposed_kernel": lambda x, w: jc.conv_transpose(
            x, w.swapaxes(2, 3), (2, 2), "SAME", transpose_kernel=True, preferred_element_type=jnp.float32
        ),
    }[function]
    lowered = jax.jit(f).lower(x, w)
    assert "stablehlo.convert" not in lowered.as_text()
    y = lowered.compile()(x, w)
    exact = jax.jit(f)(x.astype(jnp.float32), w.astype(jnp.float32))
    assert y.dtype == jnp.float32
    np.testing.assert_allclose(y, exact, rtol=1e-5, atol=1e-5 * np.abs(exact).max())


def as_lax(case):
    arguments = {**case.lax_arguments, "dimension_numbers": case.specs}
    return lambda x, w: lax.conv_general_dilated(x, w, **arguments, preferred_element_type=jnp.float32)


CONVOLUTIONS = {
    "direct": wide_layer,
    "forward_mode": wide_layer,
    "replaced": lambda case: jc.replace_convolutions(as_lax(case)),
    "installed": as_lax,
}


@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize("way", ["direct", "forward_mode", "replaced", INSTALLED_WITH_GRADIENTS])
def test_gradients(way, dtype):
    """Gradients have the operands' dtype and are computed from an f32 cotangent that is not rounded."""
    case = DENSE[0]
    x, w, _ = map(jnp.asarray, case.arrays(dtype))
    dy = jnp.asarray(case.arrays("float32")[2])
    exact, magnitude = case.reference(x, w, dy), case.reference(x, w, dy, reduce_abs=True)
    with in_force(way):
        y, *gradients = jax.jit(lambda x, w, dy: _with_gradients(CONVOLUTIONS[way](case), x, w, dy))(x, w, dy)
    assert y.dtype == jnp.float32
    for name, gradient in zip(("dx", "dw"), gradients, strict=True):
        assert gradient.dtype == dtype
        bound = sum_bound(dtype, case.sum_lengths[name], magnitude[name], exact[name])
        assert_within(gradient, exact[name], bound, name)


def _with_gradients(f, x, w, dy):
    y, pull = jax.vjp(f, x, w)
    return y, *pull(dy)


@pytest.mark.parametrize("way", ["direct", "forward_mode", "replaced", INSTALLED_WITH_GRADIENTS])
def test_second_derivatives(way):
    """The gradient of a gradient's norm, compared with the same in float64 throughout."""
    case = DENSE[0]
    x, w, _ = map(jnp.asarray, case.arrays("bfloat16"))

    def norm(f, x, w):
        dx, dw = jax.grad(lambda x, w: jnp.sum(jnp.sin(f(x, w))), (0, 1))(x, w)
        return jnp.sum(dx.astype(jnp.float32) ** 2) + jnp.sum(dw.astype(jnp.float32) ** 2)

    with in_force(way):
        ours = jax.jit(jax.grad(functools.partial(norm, CONVOLUTIONS[way](case)), (0, 1)))(x, w)
    wide = jax.grad(functools.partial(norm, layer(case)), (0, 1))(
        x.astype(jnp.float64), w.astype(jnp.float64)
    )
    for gradient, exact in zip(ours, wide, strict=True):
        assert gradient.dtype == jnp.bfloat16
        # The inner gradients dx and dw are rounded to bf16.
        error = np.linalg.norm(gradient.astype(jnp.float64) - exact) / np.linalg.norm(exact)
        assert error < 2 * stored_eps("bfloat16")


def test_forward_mode():
    case = DENSE[0]
    x, w, _ = map(jnp.asarray, case.arrays("bfloat16"))
    with jc.forward_mode():
        y, t = jax.jvp(wide_layer(case), (x, w), (w.sum() * x, w))
    assert y.dtype == t.dtype == jnp.float32
    exact = case.reference(w.sum() * x, w, case.arrays("float64")[2])["y"]
    exact = exact + case.reference(x, w, case.arrays("float64")[2])["y"]
    np.testing.assert_allclose(t, exact, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("mapped", [(0, None), (None, 0), (0, 0)])
def test_vmap(mapped):
    case = DENSE[0]
    x, w, _ = map(jnp.asarray, case.arrays("bfloat16"))
    given = [a if at is None else jnp.stack([a, 2 * a]) for a, at in zip((x, w), mapped, strict=True)]
    y = jax.vmap(wide_layer(case), mapped)(*given)
    each = [wide_layer(case)(*(a if at is None else a[n] for a, at in zip(given, mapped, strict=True)))
            for n in range(2)]  # fmt: skip
    assert y.dtype == jnp.float32
    np.testing.assert_allclose(y, jnp.stack(each), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("given", NARROW)
def test_the_other_16_bits(given):
    """bfloat16 results of float16 operands, and the reverse, are the f32 sum, rounded once."""
    other = NARROW[1 - NARROW.index(given)]
    case = DENSE[0]
    x, w, _ = map(jnp.asarray, case.arrays(given))
    with jax.numpy_dtype_promotion("strict"):
        y = layer(case, preferred_element_type=other)(x, w)
    np.testing.assert_array_equal(np.asarray(y), np.asarray(wide_layer(case)(x, w).astype(other)))


@pytest.mark.parametrize("way", ["replaced", INSTALLED_WITH_GRADIENTS])
def test_dx_is_dgrad_through_the_conversion(way):
    """lax reverses the filter and then converts it; the program must contain no reversed copy in memory."""
    case = DENSE[0]
    x, w, _ = map(jnp.asarray, case.arrays("bfloat16"))
    dy = jnp.asarray(case.arrays("float32")[2])
    with in_force(way):
        f = jax.jit(lambda x, w, dy: _with_gradients(CONVOLUTIONS[way](case), x, w, dy))
        lowered = f.lower(x, w, dy)
        compiled = lowered.compile().as_text()
    targets = set(re.findall(r'custom_call_target="jax_convgrad_(\w+)"', compiled))
    assert targets == {"fprop", "dgrad", "wgrad"}
    assert " reverse(" not in compiled


@needs_lax_gradient
@pytest.mark.parametrize("way", ["replaced", "installed"])
def test_what_was_rounded_before_its_reversal_stays_rounded(way):
    case = DENSE[0]
    x, _, dy = map(jnp.asarray, case.arrays("float32"))
    w = jnp.asarray(case.arrays("float32")[1])

    def f(x, w, dy):
        _, pull = jax.vjp(lambda x: as_lax(case)(x, w.astype(jnp.bfloat16)), x.astype(jnp.bfloat16))
        return pull(dy)[0]

    theirs = jax.jit(f)(x, w, dy)
    with in_force(way):
        ours = jax.jit(jc.replace_convolutions(f) if way == "replaced" else f)(x, w, dy)
    exact = case.reference(x, w.astype(jnp.bfloat16), dy)["dx"]
    for result in (ours, theirs):
        np.testing.assert_allclose(
            result.astype(jnp.float64), exact, rtol=2**-8, atol=1e-5 * np.abs(exact).max()
        )


SPLITS = {
    "y": (((None, None, None, "a"), (None, None, "a"), ()), "all-reduce"),
    "dx": (((), (None, None, None, "a"), (None, None, None, "a")), "all-reduce"),
    "dw": ((("a",), (), ("a",)), "all-reduce"),
}


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("op", OPS)
def test_partial_sums_are_added_before_they_are_rounded(op, wide):
    """8 devices give the bits of one device, except for the order of a sum in f32."""
    case = C("split", (8, 6, 7, 16), (3, 3, 16, 24), 1, "SAME", order=NHWC)
    mesh = meshes.make("8")
    arrays = meshes.place(mesh, case.arrays("bfloat16"), SPLITS[op][0])
    run = jax.jit(functools.partial(contraction(op, case), **({} if wide else {"result_dtype": None})))
    compiled = run.lower(*arrays).compile()
    assert meshes.collectives(compiled) == {SPLITS[op][1]: 1}
    (summed,) = re.findall(r"= (\w+)\[[^=\n]* all-reduce(?:-start)?\(", compiled.as_text())
    assert summed == "f32"
    exact, magnitude = exact_conv(case, "bfloat16")
    dtype = "float32" if wide else "bfloat16"
    result = compiled(*arrays)
    assert result.dtype == dtype
    bound = sum_bound(dtype, case.sum_lengths[op], magnitude[op], exact[op])
    assert_within(result, exact[op], bound, op)


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("backend", ["cpu", cuda_backend("gemm")], indirect=True)
def test_a_split_layer_rounds_once(backend, relu):
    case = C("split", (8, 6, 7, 16), (3, 3, 16, 24), 1, "SAME", order=NHWC)
    mesh = meshes.make("8")
    x, w, dy = case.arrays("bfloat16")
    b = np.linspace(-8, 8, 24).astype(jnp.bfloat16)
    activation = "relu" if relu else None

    @jax.jit
    def f(x, w, b, dy):
        y, pull = jax.vjp(lambda *a: jc.conv(*a, padding="SAME", activation=activation), x, w, b)
        return y, *pull(dy)

    exact, magnitude = exact_conv(case, "bfloat16")
    y_exact = exact["y"] + np.asarray(b, np.float64)
    y_exact = np.maximum(y_exact, 0) if relu else y_exact
    split = meshes.place(mesh, (x, w, b), SPLITS["y"][0])
    y = f(*split, dy)[0]
    bound = sum_bound(
        "bfloat16", case.sum_lengths["y"], magnitude["y"] + np.abs(np.asarray(b, float)), y_exact
    )
    assert_within(y, y_exact, bound, "y")
    if not relu:
        dw = f(*meshes.place(mesh, (x, w, b, dy), (("a",), (), (), ("a",))))[2]
        bound = sum_bound("bfloat16", case.sum_lengths["dw"], magnitude["dw"], exact["dw"])
        assert_within(dw, exact["dw"], bound, "dw")


def test_a_result_of_two_dtypes_has_no_bias():
    """The bias and y have the operands' dtype: native code refuses another dtype."""
    case = DENSE[0]
    x, w, _ = map(jnp.asarray, case.arrays("bfloat16"))
    spec, _ = layer_spec(case.x, case.w, ("x", "w"), case.stride, case.padding, 1, 1, 1, case.specs)

    def f(x, w, b):
        return ffi.fprop("cpu", x, w, spec.with_result_dtype(FLOAT32), b)

    with pytest.raises(jax.errors.JaxRuntimeError, match="one dtype"):
        jax.block_until_ready(jax.jit(f)(x, w, jnp.zeros(7, jnp.bfloat16)))


assert not {case.name for case in DENSE + GROUPED + THIN + CHUNKED[1:]} & set(conv_cases.BY_NAME)
