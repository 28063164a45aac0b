"""A layer's bias and relu in fprop's call: the float64 sums, every kernel, and every transformation."""

import functools
import itertools
import re

import conv_cases
import gemm_cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from backends import cuda_backend
from biased_layer import HIGHEST, B, W, X, by_lax, close, layer, mapped, of_all
from cpu_by_name import has_code_of_its_own, kernels, spec_of
from lax_answers import exact_conv
from tolerance import assert_within, sum_bound
from vmap_loop import loop

import jax_convgrad as jc
from jax_convgrad.primitives import ffi
from jax_convgrad.primitives.epilogue import fprop_epilogue

DTYPES = ("float32", "float64", "bfloat16", "float16")
KINDS = {"bias": (True, False), "relu": (False, True), "bias and relu": (True, True)}

ALL = tuple(case for case in conv_cases.CASES if case.batch_groups == 1)
FEW = tuple(case for case in conv_cases.FEW if case.batch_groups == 1)


def bias_of(case, dtype):
    channels = case.w[case.to_canonical[1][-1]]
    return np.random.default_rng(11).standard_normal(channels).astype(dtype)


def along_channels(case, b):
    """The bias b in float64, in a shape that broadcasts to the case's y."""
    channel = case.to_canonical[2][-1]
    return np.asarray(b, np.float64).reshape([-1 if d == channel else 1 for d in range(case.rank + 2)])


def check(case, dtype, actual, has_bias, relu, what):
    exact, magnitude = exact_conv(case, dtype)
    z, size = exact["y"], magnitude["y"]
    if has_bias:
        b = along_channels(case, bias_of(case, dtype))
        z, size = z + b, size + np.abs(b)
    z = np.maximum(z, 0) if relu else z
    assert actual.dtype == dtype
    # The bound allows one rounding: a second rounding of bfloat16 would use up half of it.
    assert_within(actual, z, sum_bound(dtype, case.sum_lengths["y"] + 1, size, z), what)


def check_case(case, dtypes):

    @jax.jit
    def run(arrays):
        return {
            (dtype, kind): fprop_epilogue(x, w, b if has_bias else None, relu, spec_of(case, HIGHEST))
            for dtype, (x, w, b) in arrays.items()
            for kind, (has_bias, relu) in KINDS.items()
        }

    arrays = {dtype: (*case.arrays(dtype)[:2], bias_of(case, dtype)) for dtype in dtypes}
    for (dtype, kind), y in run(arrays).items():
        check(case, dtype, y, *KINDS[kind], f"{kind} in {dtype}")


@pytest.mark.parametrize("case", FEW, ids=lambda case: case.name)
def test_sums(backend, case):
    check_case(case, DTYPES)


@pytest.mark.parametrize("backend", [cuda_backend("gemm")], indirect=True)
@pytest.mark.parametrize("case", gemm_cases.CASES, ids=lambda case: case.name)
def test_gemm_tiles(backend, case):
    """Tails of tiles, whose columns are not all channels; odd numbers of channels; groups."""
    check_case(case, DTYPES)


@pytest.mark.small_groups
@pytest.mark.parametrize("backend", [cuda_backend("grouped")], indirect=True)
@pytest.mark.parametrize("case", conv_cases.GROUPS, ids=lambda case: case.name)
def test_grouped_lanes(backend, case):
    check_case(case, DTYPES)


@pytest.mark.parametrize("case", ALL + conv_cases.GROUPS, ids=lambda case: case.name)
def test_cpu_kernels(case, platforms):
    """Every CPU kernel by name, on every instruction set."""

    @jax.jit
    def run(arrays):
        return {
            (dtype, name): ffi.fprop(platforms(name), x, w, spec_of(case, HIGHEST), b, relu=True)
            for dtype, (x, w, b) in arrays.items()
            for name in kernels(case)
            if has_code_of_its_own(name, dtype)
        }

    arrays = {dtype: (*case.arrays(dtype)[:2], bias_of(case, dtype)) for dtype in DTYPES}
    for (dtype, name), y in run(arrays).items():
        check(case, dtype, y, True, True, f"{name} in {dtype}")


# ------------------------------------------------------------------------------------------- exact bits

ORDER = conv_cases.NHWC


@pytest.mark.small_groups
@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_rounded_once(backend, dtype, groups):
    """Sums and bias have few bits and are exact in f32, so y is their sum, rounded once to nearest."""
    if backend == cuda_backend("grouped") and groups == 1:
        pytest.skip("it serves several groups")
    random = np.random.default_rng(5)
    x = random.integers(-30, 31, (2, 6, 7, 24)).astype(dtype)
    w = random.integers(-30, 31, (3, 3, 24 // groups, 24)).astype(dtype)
    b = (random.integers(-255, 256, 24) / 64).astype(dtype)
    y = jax.jit(lambda x, w, b: jc.conv(x, w, b, groups=groups, activation="relu"))(x, w, b)
    sums = np.asarray(jc.conv(*(a.astype(np.float64) for a in (x, w)), groups=groups))
    exact = np.maximum(sums + b.astype(np.float64), 0)
    once = jnp.asarray(exact, jnp.float32).astype(dtype)
    np.testing.assert_array_equal(y, once)
    twice = jnp.maximum(jnp.asarray(sums, jnp.float32).astype(dtype) + b, 0)
    assert np.any(np.asarray(twice) != np.asarray(once)), "these numbers tell nothing"


@pytest.mark.small_groups
@pytest.mark.parametrize("channels", [4, 5])
@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_and_signed_zero(backend, dtype, channels):
    """As in jax.nn.relu, NaN stays NaN, and numbers that are not above 0 become +0."""
    tiny = float(jnp.finfo(dtype).tiny)
    values = np.array([np.nan, 1, -1, -0.0, 0, np.inf, -np.inf, -tiny], np.float64)
    x = np.repeat(values, channels).reshape(1, len(values), channels).astype(dtype)
    w = np.full((1, 1, channels), 0.5, dtype)  # depthwise

    def layer(x, w, b):
        return jc.conv(x, w, b, groups=channels, activation="relu", dimension_numbers=conv_cases.NWC)

    for b in (None, np.full(channels, -0.0, dtype)):
        y = np.asarray(jax.jit(layer)(x, w, b), np.float64)
        expected = np.array([np.nan, 0.5, 0, 0, 0, np.inf, 0, 0])
        np.testing.assert_array_equal(y[0], np.repeat(expected, channels).reshape(len(values), channels))
        assert not np.signbit(y[~np.isnan(y)]).any()
    for poison in (np.nan, np.inf, -np.inf):
        b = np.array([poison, *[0.25] * (channels - 1)], dtype)
        y = np.asarray(jax.jit(layer)(np.ones_like(x), w, b), np.float64)
        assert np.all(y[..., 1:] == 0.75)
        np.testing.assert_array_equal(y[0, :, 0], np.full(len(values), np.maximum(poison, 0)))


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("empty", ["batch", "features", "channels", "positions"])
def test_empty(backend, empty, relu):
    """A sum over nothing is 0, so y is the bias; without features or a batch y is empty."""
    x = np.ones(
        {"batch": (0, 5, 4, 3), "channels": (2, 5, 4, 0), "positions": (2, 0, 4, 3)}.get(empty, (2, 5, 4, 3))
    )
    w = np.ones((2, 2, x.shape[-1], 0 if empty == "features" else 4))
    b = np.array([1.5, -2, 0, 3])[: w.shape[-1]]
    y, vjp = jax.vjp(
        jax.jit(lambda *args: jc.conv(*args, padding=((2, 0), (1, 0)), activation="relu" if relu else None)),
        x,
        w,
        b,
    )
    expected = (x.shape[0], x.shape[1] + 1, 4, w.shape[-1])
    if empty in ("channels", "positions"):
        np.testing.assert_array_equal(y, np.broadcast_to(np.maximum(b, 0) if relu else b, expected))
    assert y.shape == expected
    dx, dw, db = vjp(jnp.ones_like(y))
    assert not dx.any() and not dw.any()
    rows = y.size // max(len(b), 1)
    np.testing.assert_array_equal(db, rows * (b > 0) if relu else np.full(len(b), rows))


# ---------------------------------------------------------------------------------------- one call, no pass


@pytest.mark.small_groups
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_one_call(backend, kind, dtype):
    """The compiled forward pass is the kernel's call; no other operation reads y again."""
    has_bias, relu = KINDS[kind]
    x, w, b = (a.astype(dtype) for a in (X, W, B))

    def forward(x, w, b):
        return layer(x, w, b if has_bias else None, "relu" if relu else None)

    text = jax.jit(forward).lower(x, w, b).compile().as_text()
    targets = re.findall(r'custom_call_target="([^"]+)"', text)
    assert [target.endswith("_fprop") for target in targets] == [True]
    assert not re.findall(r"\b(add|maximum|select|compare|fusion|convert)\(", text)
    # In a training step too, where y is kept for the backward pass as the call returns it.
    step = jax.jit(lambda dy, *args: (lambda y, vjp: (y, *vjp(dy)))(*jax.vjp(forward, *args)))
    text = step.lower(np.ones((2, 6, 7, 6), dtype), x, w, b).as_text()
    assert "stablehlo.custom_call" in text
    assert not re.findall(r"stablehlo\.(add|maximum)\b", text)


# ---------------------------------------------------------------------------------------------- derivatives


ORDERS = {
    "jvp": lambda f, args: jax.jvp(f, args, tuple(jnp.cos(a) for a in args)),
    "jacfwd of b": lambda f, args: jax.jacfwd(f, 2)(*args),
    "grad": lambda f, args: jax.grad(of_all(f), (0, 1, 2))(*args),
    "forward over reverse": lambda f, args: jax.jvp(
        jax.grad(of_all(f), (0, 1, 2)), args, tuple(jnp.cos(a) for a in args)
    ),
    "reverse over forward": lambda f, args: jax.grad(
        lambda *args: jax.jvp(of_all(f), args, tuple(jnp.cos(a) for a in args))[1], (0, 1, 2)
    )(*args),
    "hessian": lambda f, args: jax.hessian(lambda b: of_all(f)(*args[:2], b))(args[2]),
    "linearize": lambda f, args: jax.linearize(f, *args)[1](*(np.cos(a) for a in args)),
}


@pytest.mark.parametrize("activation", [None, "relu"])
@pytest.mark.parametrize("order", ORDERS)
def test_orders(order, activation):
    ours, laxs = (functools.partial(f, activation=activation) for f in (layer, by_lax))
    with jc.forward_mode():
        close(ORDERS[order](ours, (X, W, B)), ORDERS[order](laxs, (X, W, B)))
    if order in ("grad", "forward over reverse"):
        close(ORDERS[order](ours, (X, W, B)), ORDERS[order](laxs, (X, W, B)))


def test_third_order():
    def third(f):
        def g(x, w, b):
            first = jax.grad(of_all(f), (0, 1, 2))
            second = jax.grad(lambda *args: sum(jnp.sum(a**3) for a in first(*args)), (0, 1, 2))
            return jax.grad(lambda *args: sum(jnp.sum(jnp.cos(a)) for a in second(*args)), (0, 1, 2))(x, w, b)

        return jax.jit(g)(X, W, B)

    ours, laxs = third(layer), third(by_lax)
    for a, b in zip(ours, laxs, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-10 * np.abs(b).max())


@pytest.mark.parametrize("of", [(0,), (1,), (0, 2), (1, 2), (2,)], ids=str)
def test_linear_transpose(of):
    """Without relu, a layer is linear in x and b, and in w and b."""
    args = [X, W, np.zeros_like(B)]
    t = np.random.default_rng(9).standard_normal(by_lax(*args, None).shape)

    def transposed(f):
        def linear(*given):
            operands = dict(zip(of, given, strict=True))
            return f(*(operands.get(at, a) for at, a in enumerate(args)), None)

        return jax.linear_transpose(linear, *(args[at] for at in of))(t)

    with jc.forward_mode():
        ours = transposed(layer)
        with pytest.raises(NotImplementedError, match="no transpose"):
            jax.linear_transpose(lambda x: layer(x, W, B), X)(t)
    close(ours, jax.vjp(lambda *args: by_lax(*args, None), *args)[1](t)[of[0] : of[0] + 1] + tuple(
        jax.vjp(lambda *args: by_lax(*args, None), *args)[1](t)[at] for at in of[1:]
    ))  # fmt: skip


# --------------------------------------------------------------------------------------------------- vmap

MAPPED = [axes for axes in itertools.product([None, 0, -1], repeat=3) if axes != (None,) * 3]


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("activation", [None, "relu"])
@pytest.mark.parametrize("in_axes", MAPPED, ids=str)
def test_vmap(in_axes, activation, groups):
    f = functools.partial(layer, activation=activation, groups=groups)
    w = np.random.default_rng(6).standard_normal((3, 3, 4 // groups, 6))
    args = mapped((X, w, B), in_axes)
    together = jax.jit(jax.vmap(f, in_axes))(*args)
    close(together, loop(f, args, in_axes))


@pytest.mark.parametrize("in_axes", [(None, 0, None), (0, 0, None), (0, None, 0), (None, 0, 0)], ids=str)
def test_vmap_of_gradients(backend, in_axes):
    if backend == cuda_backend("grouped"):
        pytest.skip("channels of vmapped filters are more than it serves")
    f = jax.grad(of_all(layer), (0, 1, 2))
    args = mapped((X, W, B), in_axes)
    close(jax.jit(jax.vmap(f, in_axes))(*args), loop(f, args, in_axes))


def test_nested_vmap():
    inner, outer = (0, None, 0), (None, 1, 0)
    args = mapped(mapped((X, W, B), inner), outer)
    together = jax.jit(jax.vmap(jax.vmap(layer, inner), outer))(*args)
    close(together, loop(lambda *args: loop(layer, args, inner), args, outer))


def test_vmap_without_bias():
    for in_axes in [(0, None), (None, 0), (0, 0)]:
        args = mapped((X, W), in_axes)
        f = functools.partial(layer, b=None)
        close(jax.jit(jax.vmap(f, in_axes))(*args), loop(f, args, in_axes))


def test_vmap_keeps_one_call():
    """If every number of b belongs to one channel of y, folding leaves one call and no pass over y."""
    for in_axes in [(0, None, None), (None, 0, None), (None, 0, 0), (0, 0, 0)]:
        args = mapped((X, W, B), in_axes)
        text = jax.jit(jax.vmap(layer, in_axes)).lower(*args).as_text()
        assert not re.findall(r"stablehlo\.(add|maximum)\b", text), in_axes
        assert len(re.findall(r"@jax_convgrad_fprop\b", text)) == 1


def test_vmap_over_nothing():
    y = jax.vmap(layer, (0, None, 0))(np.zeros((0, *X.shape)), W, np.zeros((0, 6)))
    assert y.shape == (0, *layer(X, W, B).shape)


# ------------------------------------------------------------------------------------------ dtypes, fallback


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_complex(backend, dtype):
    if backend == cuda_backend("grouped"):
        pytest.skip("these are more channels than it serves in f64")
    x, w, b = ((a + 1j * np.cos(a)).astype(dtype) for a in (X, W, B))
    y = jax.jit(lambda *args: layer(*args, activation=None))(x, w, b)
    exact = by_lax(*(a.astype("complex128") for a in (x, w, b)), activation=None)
    assert y.dtype == dtype
    np.testing.assert_allclose(y, exact, rtol=0, atol=1e2 * np.finfo(dtype).eps)


def test_four_spatial_axes():
    """With more axes than the kernels support, the layer is lax's convolution and the same steps after it."""
    random = np.random.default_rng(2)
    x, w = random.standard_normal((2, 3, 4, 3, 4, 2)), random.standard_normal((2, 2, 2, 2, 2, 3))
    b = random.standard_normal(3)
    specs = ("NABDEC", "ABDEIO", "NABDEC")
    y = jax.jit(lambda *args: jc.conv(*args, activation="relu", dimension_numbers=specs))(x, w, b)
    z = jax.lax.conv_general_dilated(x, w, (1,) * 4, "VALID", dimension_numbers=specs)
    close(y, jnp.maximum(z + b, 0))


def test_other_platforms():
    """On a TPU, the layer is lax's convolution, an addition and a maximum."""
    text = jax.jit(layer).trace(X, W, B).lower(lowering_platforms=("tpu",)).as_text()
    assert "stablehlo.convolution" in text
    assert "custom_call" not in text
