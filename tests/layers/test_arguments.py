"""Every form in which lax accepts an argument, and every dtype: the same result, or the same error."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from lax_answers import lax_conv_widened
from lowered_programs import foreign

import jax_convgrad as jc

RANDOM = np.random.default_rng(21)
X = RANDOM.standard_normal((2, 4, 6, 5)).astype(np.float32)
W = RANDOM.standard_normal((6, 4, 3, 2)).astype(np.float32)
NHWC = ("NHWC", "HWIO", "NHWC")


def both(x, w, window_strides=(1, 1), padding="VALID", **rest):
    """Our result and lax's result of one call."""
    for conv in (jc.conv_general_dilated, lax.conv_general_dilated):
        yield conv(x, w, window_strides, padding, **rest)


def same(x, w, *arguments, tolerance=1e-5, **rest):
    ours, theirs = both(x, w, *arguments, **rest)
    assert (ours.shape, ours.dtype, ours.weak_type) == (theirs.shape, theirs.dtype, theirs.weak_type)
    ours, theirs = np.asarray(ours, np.complex128), np.asarray(theirs, np.complex128)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance * np.abs(theirs).max())


PRECISIONS = [
    None, "highest", "float32", "high", "bfloat16_3x", "tensorfloat32", "default", "bfloat16", "fastest",
    lax.Precision.HIGH, (lax.Precision.HIGH, lax.Precision.DEFAULT), ("highest", "fastest"), ["high", "high"],
    "F32_F32_F32", "DEFAULT", lax.DotAlgorithmPreset.BF16_BF16_F32,
    lax.DotAlgorithm(np.float32, np.float32, np.float32),
]  # fmt: skip


@pytest.mark.parametrize("precision", PRECISIONS, ids=str)
def test_precision(precision):
    same(X, W, precision=precision)
    dx = jax.grad(lambda x: jnp.sum(next(both(x, W, precision=precision))))(X)
    assert dx.shape == X.shape


PADDINGS = [
    "SAME", "same_lower", "VALID", ((1, 2), (0, 3)), [(1, 2), [-1, 3]], [[2, 2]] * 2,
    np.array([[1, 0], [2, 1]]),
    ((np.int64(1), np.int32(0)), (True, 2)),
]  # fmt: skip


@pytest.mark.parametrize("padding", PADDINGS, ids=str)
def test_padding(padding):
    same(X, W, (2, 1), padding)


def test_padding_read_once():
    ours = jc.conv_general_dilated(X, W, (1, 1), (pair for pair in [(1, 2), (0, 1)]))
    np.testing.assert_array_equal(ours, jc.conv_general_dilated(X, W, (1, 1), [(1, 2), (0, 1)]))


NUMBERS = [
    None, ("NCHW", "OIHW", "NCHW"), ["NCHW", "OIHW", "NHWC"], ("NCAB", "OIBA", "ABCN"),
    lax.ConvDimensionNumbers((0, 1, 2, 3), (0, 1, 3, 2), (3, 0, 2, 1)),
    lax.conv_dimension_numbers(X.shape, W.shape, ("NCHW", "OIHW", "CHWN")),
]  # fmt: skip


@pytest.mark.parametrize("numbers", NUMBERS, ids=str)
def test_dimension_numbers(numbers):
    same(X, W, (2, 1), "SAME", dimension_numbers=numbers)


@pytest.mark.parametrize(
    "dtype", ["bool", "int8", "uint8", "int16", "int32", "uint32", "int64", "int4", "float8_e4m3fn"]
)
def test_dtypes_that_lax_computes(dtype):
    """Integers, bool and 8-bit floats give lax's results; lax's pullback has no gradient for integers."""
    x, w = (jnp.asarray(np.round(2 * a)).astype(dtype) for a in (X, W))
    same(x, w, (2, 1), "SAME", rhs_dilation=(1, 2), tolerance=0)
    same(x, w[:, :2], feature_group_count=2, tolerance=0)
    order = ("NCHW", "OIHW", "NCHW")
    np.testing.assert_array_equal(
        *(
            f(x, w.swapaxes(0, 1), (2, 1), "SAME", dimension_numbers=order, transpose_kernel=True)
            for f in (jc.conv_transpose, lax.conv_transpose)
        )
    )
    layer = jc.conv(x, w, jnp.ones(6, dtype), dimension_numbers=order)
    np.testing.assert_array_equal(layer, lax.conv(x, w, (1, 1), "VALID") + jnp.ones((6, 1, 1), dtype))
    if jnp.issubdtype(dtype, jnp.integer):
        y, vjp = jax.vjp(lambda x: jc.conv_general_dilated(x, w, (1, 1), "VALID"), x)
        assert vjp(np.zeros(y.shape, jax.dtypes.float0))[0].dtype == jax.dtypes.float0
        with pytest.raises(TypeError, match="real- or complex-valued"):
            jax.grad(lambda x: jnp.sum(jc.conv_general_dilated(x, w, (1, 1), "VALID")))(x)


@pytest.mark.parametrize(
    "given, preferred",
    [
        ("float32", "float64"), ("float32", np.float32), ("bfloat16", jnp.float32), ("float16", "bfloat16"),
        ("bfloat16", "float16"), ("complex64", "complex128"), ("int8", "int32"), ("int8", "float32"),
        ("bool", "int32"), ("float64", "float64"),
    ],
    ids=str,
)  # fmt: skip
def test_preferred_element_type(given, preferred):
    x, w = (jnp.asarray(np.round(2 * a)).astype(given) for a in (X, W))
    same(x, w, preferred_element_type=preferred, tolerance=1e-2)
    if jnp.issubdtype(given, jnp.inexact):
        dy = jnp.ones((2, 6, 4, 4), preferred)
        ours, theirs = (
            jax.vjp(lambda x, w, f=f: f(x, w, (1, 1), "VALID", preferred_element_type=preferred), x, w)[1](dy)
            for f in (jc.conv_general_dilated, lax_conv_widened)
        )
        for a, b in zip(ours, theirs, strict=True):
            assert a.dtype == b.dtype == given
            a, b = np.asarray(a, np.complex128), np.asarray(b, np.complex128)
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-2 * np.abs(b).max())


def test_weak_types_stay_weak():
    """The dtype of Python numbers yields to other dtypes, also after a convolution of such numbers."""
    x, w = jnp.broadcast_to(jnp.asarray(2.0), X.shape), jnp.broadcast_to(jnp.asarray(3.0), W.shape)
    assert x.weak_type
    same(x, w)
    same(x, jnp.asarray(w, jnp.float64))
    assert (jc.max_pool(x, (2, 2)) + jnp.ones((), jnp.bfloat16)).dtype == jnp.bfloat16
    assert (jc.conv_general_dilated(x, w, (1, 1), "VALID") + jnp.ones((), jnp.bfloat16)).dtype == jnp.bfloat16


def test_four_spatial_dimensions():
    """lax computes the forward and backward passes of every function."""
    x, w = RANDOM.standard_normal((2, 3, 4, 3, 4, 4)), RANDOM.standard_normal((2, 2, 1, 2, 4, 4))
    order = ("NABDEC", "ABDEIO", "NABDEC")
    b = RANDOM.standard_normal(4)

    def ours(x, w, b):
        return jc.conv(x, w, b, padding="SAME", stride=(1, 2, 1, 1), activation="relu")

    def theirs(x, w, b):
        y = lax.conv_general_dilated(x, w, (1, 2, 1, 1), "SAME", dimension_numbers=order)
        return jax.nn.relu(y + b)

    y, vjp = jax.vjp(ours, x, w, b)
    lax_y, lax_vjp = jax.vjp(theirs, x, w, b)
    for a, b_ in zip((y, *vjp(y)), (lax_y, *lax_vjp(y)), strict=True):
        np.testing.assert_allclose(a, b_, rtol=1e-12, atol=1e-12)
    linear = jax.vjp(lambda x, w: theirs(x, w, 1e6), x, w)[1](y)
    same_geometry = {"padding": "SAME", "stride": (1, 2, 1, 1)}
    np.testing.assert_allclose(
        jc.conv_input_grad(y, w, x.shape, **same_geometry), linear[0], rtol=1e-12, atol=1e-12
    )
    np.testing.assert_allclose(
        jc.conv_filter_grad(x, y, w.shape, **same_geometry), linear[1], rtol=1e-12, atol=1e-12
    )
    np.testing.assert_allclose(jc.conv_bias_grad(y), y.sum((0, 1, 2, 3, 4)), rtol=1e-12)

    window = (2, 1, 2, 2)
    for pool, init, op, scale in ((jc.max_pool, -np.inf, lax.max, 1), (jc.avg_pool, 0.0, lax.add, 8)):
        y, vjp = jax.vjp(lambda x, p=pool: p(x, window), x)
        lax_y, lax_vjp = jax.vjp(
            lambda x, i=init, o=op, s=scale: (
                lax.reduce_window(x, i, o, (1, *window, 1), (1,) * 6, "VALID") / s
            ),
            x,
        )
        for a, b_ in zip((y, *vjp(y)), (lax_y, *lax_vjp(y)), strict=True):
            np.testing.assert_allclose(a, b_, rtol=1e-12, atol=1e-12)


def complex_numbers(*shape):
    return RANDOM.standard_normal(shape) + 1j * RANDOM.standard_normal(shape)


def test_complex_gradient_functions(backend):
    """The gradient functions give the results of lax's pullback: sums of products, without conjugation."""
    x, w = complex_numbers(2, 5, 4, 6), complex_numbers(3, 2, 2, 9)
    geometry = {"stride": (2, 1), "padding": "SAME", "groups": 3}

    def theirs(x, w):
        return lax.conv_general_dilated(x, w, (2, 1), "SAME", dimension_numbers=NHWC, feature_group_count=3)

    y, vjp = jax.vjp(theirs, x, w)
    dy = complex_numbers(*y.shape)
    dx, dw = vjp(dy)
    for ours, exact in (
        (jc.conv(x, w, **geometry), y),
        (jc.conv_input_grad(dy, w, x.shape, **geometry), dx),
        (jc.conv_filter_grad(x, dy, w.shape, **geometry), dw),
        (jc.conv_bias_grad(dy), dy.sum((0, 1, 2))),
    ):
        assert ours.dtype == np.complex128
        np.testing.assert_allclose(ours, exact, rtol=0, atol=1e-13 * np.abs(exact).max())


def test_complex_runs_on_our_kernels(backend):
    x, w, b = complex_numbers(2, 5, 4, 3), complex_numbers(3, 2, 3, 4), complex_numbers(4)

    def loss(x, w, b):
        y = jc.avg_pool(jc.conv(x, w, b, padding="SAME"), (2, 2), (1, 2))
        return jnp.sum(jnp.abs(jc.conv_transpose(y, w, (1, 1), "SAME", transpose_kernel=True)) ** 2)

    found, targets = foreign(jax.grad(loss, (0, 1, 2)), (x, w, b))
    assert not found
    assert len(targets) >= 4


@pytest.mark.parametrize("transpose_kernel", [False, True])
def test_complex_conv_transpose(transpose_kernel):
    x, w = complex_numbers(2, 4, 3), complex_numbers(3, 3, 3)
    results = []
    for f in (jc.conv_transpose, lax.conv_transpose):
        y, vjp = jax.vjp(lambda x, w, f=f: f(x, w, (2,), "SAME", transpose_kernel=transpose_kernel), x, w)
        results.append((y, *vjp(y)))
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-13 * np.abs(b).max())


def test_complex_parts_of_different_size():
    """A part that is much smaller than the other keeps its accuracy, which a formula of 3 products loses."""
    x, w = complex_numbers(2, 6, 5, 4), complex_numbers(3, 2, 4, 3)
    x, w = (1e6 * x.real + 1j * x.imag).astype("complex64"), (w.real + 1e-6j * w.imag).astype("complex64")
    exact = lax.conv_general_dilated(
        x.astype("complex128"), w.astype("complex128"), (1, 1), "SAME", dimension_numbers=NHWC
    )
    error = np.abs(jc.conv(x, w, padding="SAME").imag - exact.imag).max()
    assert error < 1e-5 * np.abs(exact.imag).max()
