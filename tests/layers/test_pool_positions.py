"""Positions of maxima, `max_unpool`, and pooling of integers, bool and 8-bit floats, as in NumPy and flax."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from flax import linen as nn
from jax import lax
from lax_answers import pool_window
from pool_layers import CASES, canonical, numbers

import jax_convgrad as jc

pytestmark = pytest.mark.pooling

SOME = ("overlap_same", "gaps", "1d", "3d", "no_batch", "two_batches")


def scattered(y, positions, spatial):
    """An array to which each number is added at its position, one after another."""
    rank = len(spatial)
    y, positions = np.asarray(y), np.asarray(positions)
    leading = y.shape[: y.ndim - rank - 1]
    x = np.zeros((int(np.prod(leading)), int(np.prod(spatial)), y.shape[-1]))
    for n, image in enumerate(y.reshape(x.shape[0], -1, y.shape[-1])):
        where = positions.reshape(x.shape[0], -1, y.shape[-1])[n]
        for o in range(image.shape[0]):
            for c in range(image.shape[1]):
                if 0 <= where[o, c] < x.shape[1]:
                    x[n, where[o, c], c] += image[o, c]
    return x.reshape(*leading, *spatial, y.shape[-1])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int32", "uint8", "bool"])
@pytest.mark.parametrize("name", SOME)
def test_positions(backend, name, dtype):
    shape, window, strides, padding = CASES[name]
    x = np.round(2 * numbers(shape, "float32", 1)).astype(dtype)
    axes = pool_window(canonical(x, window).shape[1:-1], window, strides, padding)
    exact, position = reference.max_pool(canonical(x, window).astype(np.float64), axes)
    y, positions = jax.jit(lambda x: jc.max_pool(x, window, strides, padding, return_positions=True))(x)
    assert (y.dtype, positions.dtype) == (x.dtype, np.int32)
    np.testing.assert_array_equal(np.asarray(y).astype(np.float64).reshape(exact.shape), exact)
    np.testing.assert_array_equal(positions.reshape(exact.shape), position)


def test_no_position_on_padding_only():
    x = jnp.ones((1, 2, 1))
    for dtype in ("float32", "int32"):
        y, positions = jc.max_pool(x.astype(dtype), (1,), (1,), [(1, 2)], return_positions=True)
        np.testing.assert_array_equal(positions.ravel(), [-1, 0, 1, -1, -1])
        assert y.dtype == dtype


@pytest.mark.parametrize("dtype", ["float64", "bfloat16", "int32", "complex128"])
@pytest.mark.parametrize("name", SOME)
def test_unpool(backend, name, dtype):
    """With the window that the positions are of, which a kernel serves, and with positions anywhere."""
    shape, window, strides, padding = CASES[name]
    rank = len(window)
    x = np.round(2 * numbers(shape, "float32", 1)).astype("float32" if dtype == "complex128" else dtype)
    spatial = shape[-rank - 1 : -1]

    @jax.jit
    def run(x):
        y, positions = jc.max_pool(x, window, strides, padding, return_positions=True)
        ways = ((window, strides, padding), ())
        return y, positions, [jc.max_unpool(y.astype(dtype), positions, spatial, *way) for way in ways]

    y, positions, results = run(x)
    expected = scattered(np.asarray(y).astype(np.float64), positions, spatial)
    for out in results:
        assert out.shape == shape
        assert out.dtype == dtype
        np.testing.assert_array_equal(np.asarray(out).astype(np.complex128), expected)


@pytest.mark.parametrize("with_window", [True, False], ids=["window", "anywhere"])
def test_unpool_is_the_gradient_and_linear(with_window):
    shape, window, strides, padding = CASES["overlap_same"]
    x = numbers(shape, "float64", 3)
    y, positions = jc.max_pool(x, window, strides, padding, return_positions=True)
    dy = numbers(y.shape, "float64", 4)
    extra = (window, strides, padding) if with_window else ()

    def unpool(y):
        return jc.max_unpool(y, positions, shape[1:-1], *extra)

    pull = jax.vjp(lambda x: jc.max_pool(x, window, strides, padding), x)[1]
    np.testing.assert_allclose(unpool(dy), pull(dy)[0], rtol=1e-12)
    t = numbers(shape, "float64", 5)
    tangent = jax.jvp(unpool, (dy,), (dy,))[1]
    np.testing.assert_allclose(tangent, unpool(dy), rtol=1e-12)
    back = jax.vjp(unpool, dy)[1](jnp.asarray(t))[0]
    np.testing.assert_allclose(jnp.sum(back * dy), jnp.sum(unpool(dy) * t), rtol=1e-12)
    hessian = jax.grad(lambda v: jnp.sum(jax.grad(lambda y: jnp.sum(unpool(y) ** 3))(v) ** 2))(dy)
    by_lax = jax.grad(
        lambda v: jnp.sum(jax.grad(lambda y: jnp.sum(jc.max_unpool(y, positions, shape[1:-1]) ** 3))(v) ** 2)
    )(dy)
    np.testing.assert_allclose(hessian, by_lax, rtol=1e-12)
    mapped = jax.vmap(unpool)(jnp.stack([dy, 2 * dy]))
    np.testing.assert_allclose(mapped, jnp.stack([unpool(dy), 2 * unpool(dy)]), rtol=1e-12)


def test_the_gradient_with_positions_is_max_pool_s():
    x = numbers((2, 6, 7, 3), "float64", 6)

    def both(x):
        y, positions = jc.max_pool(x, (3, 2), (2, 2), "SAME", return_positions=True)
        return jnp.sum(jnp.sin(y)), positions

    ours, _ = jax.grad(both, has_aux=True)(x)
    alone = jax.grad(lambda x: jnp.sum(jnp.sin(jc.max_pool(x, (3, 2), (2, 2), "SAME"))))(x)
    np.testing.assert_array_equal(ours, alone)
    np.testing.assert_allclose(
        jax.jvp(lambda x: both(x)[0], (x,), (jnp.cos(x),))[1], jnp.sum(alone * jnp.cos(x)), rtol=1e-12
    )


@pytest.mark.parametrize("with_window", [True, False], ids=["window", "anywhere"])
def test_positions_off_the_output_give_nothing(backend, with_window):
    y = jnp.ones((1, 2, 2, 1), jnp.float32)
    positions = jnp.array([-1, 16, 2**31 - 1, -(2**31)], jnp.int32).reshape(y.shape)
    extra = ((2, 2), (2, 2)) if with_window else ()
    out, pull = jax.vjp(lambda y: jc.max_unpool(y, positions, (4, 4), *extra), y)
    np.testing.assert_array_equal(out, np.zeros((1, 4, 4, 1)))
    np.testing.assert_array_equal(pull(jnp.ones_like(out))[0], np.zeros(y.shape))


@pytest.mark.parametrize("dtype", ["float32", "int32"])
def test_a_position_outside_of_its_own_window_gives_nothing(backend, dtype):
    """Its gradient does not read there either, otherwise it would not be the transpose."""
    positions = jnp.asarray(np.random.default_rng(0).integers(0, 6 * 5, (2, 4, 5, 3)), jnp.int32)
    y = jnp.asarray(np.random.default_rng(1).integers(1, 9, positions.shape).astype(dtype))
    expected = np.zeros((2, 6, 5, 3), dtype)
    inside = np.zeros(y.shape, bool)
    for n, o, p, c in np.ndindex(y.shape):
        i, j = divmod(int(positions[n, o, p, c]), 5)
        inside[n, o, p, c] = i in (o * 2 - 2, o * 2, o * 2 + 2) and j == p
        expected[n, i, j, c] += y[n, o, p, c] * inside[n, o, p, c]
    assert 5 < inside.sum() < inside.size / 2

    def unpool(y):
        return jc.max_unpool(y, positions, (6, 5), (3, 1), (2, 1), ((2, 3), (0, 0)), (2, 1))

    np.testing.assert_array_equal(unpool(y), expected)
    if dtype == "float32":
        (ones,) = jax.vjp(unpool, y)[1](jnp.ones_like(expected))
        np.testing.assert_array_equal(ones, inside)


def test_repeated_positions_add_up_anywhere():
    y = jnp.arange(1.0, 5.0).reshape(1, 4, 1)
    positions = jnp.array([7, 7, 0, 7], jnp.int32).reshape(1, 4, 1)
    np.testing.assert_array_equal(jc.max_unpool(y, positions, (8,)).ravel(), [3, 0, 0, 0, 0, 0, 0, 7])


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"positions": jnp.zeros((1, 2, 2, 1))}, TypeError, "positions"),
        ({"positions": jnp.zeros((1, 2, 2, 1), jnp.int64)}, TypeError, "positions"),
        ({"positions": jnp.zeros((1, 2, 1, 1), jnp.int32)}, ValueError, "positions"),
        ({"inputs": jnp.zeros((1, 2, 2, 1), bool)}, TypeError, "inputs"),
        ({"output_shape": 4}, TypeError, "output_shape"),
        ({"output_shape": (4, -1)}, ValueError, "output_shape"),
        ({"output_shape": (4, 4, 4, 4)}, ValueError, "output_shape"),
        ({"output_shape": (2**20, 2**20)}, ValueError, "output_shape"),
        ({"window_shape": (4, 4)}, ValueError, "inputs"),
        ({"window_shape": (2,)}, ValueError, "window_shape"),
        ({"window_shape": (2, 2), "strides": (1, 0)}, ValueError, "strides"),
        ({"window_shape": (2, 2), "padding": "ALL"}, ValueError, "padding"),
        ({"strides": (2, 2)}, ValueError, "^strides .* window_shape"),
        ({"padding": "SAME"}, ValueError, "^padding .* window_shape"),
        ({"window_dilation": (1, 1)}, ValueError, "^window_dilation .* window_shape"),
    ],
)
def test_bad_arguments(change, error, said):
    fitting = {
        "inputs": jnp.zeros((1, 2, 2, 1)),
        "positions": jnp.zeros((1, 2, 2, 1), jnp.int32),
        "output_shape": (4, 4),
    }
    with pytest.raises(error, match=said):
        jax.jit(lambda: jc.max_unpool(**fitting | change))()


@pytest.mark.parametrize(
    ("shape", "window", "padding"),
    [
        ((2, 0, 6, 3), (1, 1), "VALID"),
        ((2, 0, 6, 3), (2, 2), ((1, 1), (0, 0))),
        ((0, 6, 6, 3), (2, 2), "SAME"),
        ((2, 3, 3, 0), (2, 2), "VALID"),
    ],
)
def test_empty_arrays(shape, window, padding):
    """Windows over nothing give -inf and no position, and max_unpool of them gives zeros."""
    y, positions = jc.max_pool(jnp.ones(shape), window, None, padding, return_positions=True)
    np.testing.assert_array_equal(positions, np.full(y.shape, -1))
    for extra in ((), (window, None, padding)):
        out, pull = jax.vjp(lambda y: jc.max_unpool(y, positions, shape[1:-1], *extra), y)  # noqa: B023  # called in this round
        assert out.shape == shape
        np.testing.assert_array_equal(pull(out)[0], np.zeros(y.shape))


# ----------------------------------------------------------------------------- integers, bool, 8-bit floats

FEW_BITS = ["int32", "int8", "uint8", "int16", "bool", "float8_e4m3fn", "float8_e5m2"]
PADDINGS = ["VALID", "SAME", ((1, 1), (0, 1)), ((3, 3), (0, 1))]  # the last has windows of padding alone


@pytest.mark.parametrize("dtype", FEW_BITS)
def test_max_pool_of_few_bits_is_flax_s(dtype):
    x = jnp.asarray(np.random.default_rng(0).integers(-9, 9, (2, 5, 6, 3))).astype(dtype)

    def run(x, padding):
        ours = jc.max_pool(x, (2, 3), (2, 1), padding)
        with_positions, _ = jc.max_pool(x, (2, 3), (2, 1), padding, return_positions=True)
        return ours, with_positions, nn.max_pool(x, (2, 3), (2, 1), padding)

    results = jax.jit(lambda x: [run(x, padding) for padding in PADDINGS])(x)
    for padding, (ours, with_positions, theirs) in zip(PADDINGS, results, strict=True):
        assert ours.dtype == theirs.dtype == dtype
        np.testing.assert_array_equal(ours.astype(float), theirs.astype(float), f"{padding}")
        np.testing.assert_array_equal(with_positions.astype(float), theirs.astype(float), f"{padding}")


@pytest.mark.parametrize("x64", [True, False], ids=["x64", "x32"])
@pytest.mark.parametrize("include", [True, False], ids=["include_pad", "exclude_pad"])
@pytest.mark.parametrize("dtype", [d for d in FEW_BITS if d != "bool"])
def test_avg_pool_of_few_bits_is_flax_s(dtype, include, x64):
    if dtype.startswith("float8") and not include:
        with pytest.raises(TypeError, match="count_include_pad"):
            jc.avg_pool(jnp.ones((1, 4, 1), dtype), (2,), count_include_pad=False)
        return
    with jax.enable_x64(x64):
        x = jnp.asarray(np.random.default_rng(0).integers(-9, 9, (2, 5, 6, 3))).astype(dtype)

        def run(x, padding):
            return [library.avg_pool(x, (2, 3), (2, 1), padding, include) for library in (jc, nn)]

        results = jax.jit(lambda x: [run(x, padding) for padding in PADDINGS])(x)
        for padding, (ours, theirs) in zip(PADDINGS, results, strict=True):
            assert ours.dtype == theirs.dtype
            np.testing.assert_array_equal(ours.astype(float), theirs.astype(float), f"{padding}")


def test_what_has_no_mean_is_refused():
    for dtype in (bool, "int4"):
        with pytest.raises(TypeError, match="inputs"):
            jc.avg_pool(jnp.ones((1, 4, 1), dtype), (2,))
    with pytest.raises(TypeError, match="inputs"):
        jc.max_pool(jnp.ones((1, 4, 1), jnp.complex64), (2,))


def test_int8_products_in_int32():
    x = jnp.full((1, 9, 9, 8), 127, jnp.int8)
    w = jnp.full((3, 3, 8, 2), 127, jnp.int8)

    def f(conv):
        return conv(
            x,
            w,
            (1, 1),
            "VALID",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            preferred_element_type=jnp.int32,
        )

    exact = np.full((1, 7, 7, 2), 72 * 127 * 127, np.int32)
    np.testing.assert_array_equal(f(jc.conv_general_dilated), exact, strict=True)
    jc.install()
    try:
        np.testing.assert_array_equal(f(lax.conv_general_dilated), exact, strict=True)
    finally:
        jc.uninstall()
