"""Compares values and gradients of max_pool and avg_pool with the reference and with lax.reduce_window."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from jax import lax
from lax_answers import pool_window
from pool_layers import CASES, canonical, numbers
from tolerance import assert_within, sum_bound

import jax_convgrad as jc

pytestmark = pytest.mark.pooling

DTYPES = ["float32", "float64", "bfloat16", "float16"]


def by_lax(x, init, op, window, strides, padding):
    """lax.reduce_window over the axes before the last."""
    lead = x.ndim - len(window) - 1
    if not isinstance(padding, str):
        padding = ((0, 0),) * lead + tuple(padding) + ((0, 0),)
    strides = strides or (1,) * len(window)
    ones = (1,) * lead
    return lax.reduce_window(x, init, op, (*ones, *window, 1), (*ones, *strides, 1), padding)


def lax_max_pool(x, window, strides, padding):
    return by_lax(x, -jnp.inf, lax.max, window, strides, padding)


def lax_avg_pool(x, window, strides, padding, count_include_pad):
    total = by_lax(x, 0.0, lax.add, window, strides, padding)
    if count_include_pad:
        return total / np.prod(window)
    return total / by_lax(jnp.ones_like(x), 0.0, lax.add, window, strides, padding)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CASES)
def test_max_pool(backend, name, dtype):
    shape, window, strides, padding = CASES[name]
    # Rounded to a few values, so that windows contain ties and the kernel has to find the first of them.
    x = np.round(numbers(shape, dtype, 1)).astype(dtype)
    axes = pool_window(canonical(x, window).shape[1:-1], window, strides, padding)
    exact_y, position = reference.max_pool(canonical(x, window), axes)

    y, vjp = jax.vjp(jax.jit(lambda x: jc.max_pool(x, window, strides, padding)), x)
    lax_y, lax_vjp = jax.vjp(lambda x: lax_max_pool(x, window, strides, padding), x)
    assert y.dtype == dtype
    assert y.shape == lax_y.shape
    np.testing.assert_array_equal(canonical(y, window), exact_y.astype(dtype))
    np.testing.assert_array_equal(y, lax_y)

    dy = numbers(y.shape, dtype, 2)
    (dx,) = vjp(dy)
    dy = canonical(dy, window)
    exact = reference.max_pool_grad(dy, position, axes)
    bound = sum_bound(dtype, np.prod(window), reference.max_pool_grad(np.abs(dy), position, axes), exact)
    assert dx.dtype == dtype
    assert dx.shape == x.shape
    assert_within(canonical(dx, window), exact, bound, "dx")
    if dtype == "float64":  # lax sums bf16 and f16 gradients in bf16 and f16
        assert_within(dx, lax_vjp(dy.reshape(y.shape))[0], 2 * bound.reshape(x.shape), "dx against lax")


@pytest.mark.parametrize("include", [True, False], ids=["include_pad", "exclude_pad"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CASES)
def test_avg_pool(backend, name, dtype, include):
    shape, window, strides, padding = CASES[name]
    x = numbers(shape, dtype, 3)
    axes = pool_window(canonical(x, window).shape[1:-1], window, strides, padding)

    def ours(x):
        return jc.avg_pool(x, window, strides, padding, count_include_pad=include)

    y, vjp = jax.vjp(jax.jit(ours), x)
    dy = numbers(y.shape, dtype, 4)
    (dx,) = vjp(dy)
    lax_y, lax_vjp = jax.vjp(lambda x: lax_avg_pool(x, window, strides, padding, include), x)
    assert (y.dtype, y.shape, dx.dtype, dx.shape) == (dtype, lax_y.shape, dtype, x.shape)

    for what, actual, operand, f, by_lax in (
        ("y", y, x, reference.avg_pool, lax_y),
        ("dx", dx, dy, reference.avg_pool_grad, lax_vjp(dy)[0]),
    ):
        operand = canonical(operand, window)
        exact, magnitude = f(operand, axes, include), f(np.abs(operand), axes, include)
        # The division counts as one more term.
        bound = sum_bound(dtype, np.prod(window) + 1, magnitude, exact)
        assert_within(canonical(actual, window), exact, bound, what)
        if dtype == "float64":
            assert_within(actual, by_lax, 2 * bound.reshape(actual.shape), f"{what} against lax")


def test_first_of_equals(backend):
    """With a constant input, each window's gradient goes to its first position on the input (row-major)."""
    x = np.ones((1, 4, 4, 1), np.float32)
    dy = np.arange(1, 5, dtype=np.float32).reshape(1, 2, 2, 1)
    dx = jax.vjp(lambda x: jc.max_pool(x, (2, 2), (2, 2)), x)[1](dy)[0]
    expected = np.zeros((4, 4))
    expected[::2, ::2] = [[1, 2], [3, 4]]
    np.testing.assert_array_equal(dx[0, :, :, 0], expected)

    dx = jax.vjp(lambda x: jc.max_pool(x, (3, 3), (2, 2), ((1, 0), (1, 0))), x)[1](dy)[0]
    expected = np.zeros((4, 4))
    expected[0, 0], expected[0, 1], expected[1, 0], expected[1, 1] = 1, 2, 3, 4
    np.testing.assert_array_equal(dx[0, :, :, 0], expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_minus_infinity(backend, dtype):
    """The kernels treat -inf on the input like other numbers: they never choose padding instead."""
    x = np.full((1, 4, 4, 2), -np.inf, dtype)
    x[0, 1, 2, 1] = -3
    dy = numbers((1, 3, 3, 2), dtype, 5)
    same = {"window_shape": (2, 2), "strides": (2, 2), "padding": ((1, 1), (1, 1))}
    y, vjp = jax.vjp(lambda x: jc.max_pool(x, **same), x)
    axes = pool_window((4, 4), *same.values())
    exact, position = reference.max_pool(x, axes)
    np.testing.assert_array_equal(np.asarray(y, np.float64), exact)
    np.testing.assert_array_equal(
        np.asarray(vjp(dy)[0], np.float64), reference.max_pool_grad(dy, position, axes)
    )
    assert np.isneginf(y).sum() == y.size - 1


@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_is_the_maximum(backend, dtype):
    x = numbers((2, 6, 6, 3), dtype, 6)
    x[0, 2, 3, 1], x[1, 0, 0, 0], x[1, 5, 5, 2] = np.nan, np.nan, np.nan
    y = jc.max_pool(x, (3, 3), (2, 2), "SAME")
    expected = lax_max_pool(x, (3, 3), (2, 2), "SAME")
    assert np.isnan(expected).sum() >= 4
    np.testing.assert_array_equal(y.astype("float64"), expected.astype("float64"))
    # A sum is NaN in the same windows.
    mean = jc.avg_pool(x, (3, 3), (2, 2), "SAME")
    np.testing.assert_array_equal(np.isnan(mean), np.isnan(expected))


def test_windows_of_padding_alone(backend):
    """The maximum of padding is -inf without a gradient; its mean is 0 / 9, or 0 / 0 without padding."""
    x = numbers((1, 4, 4, 3), "float32", 7)
    window, strides, padding = (3, 3), (3, 3), ((4, 0), (3, 3))
    y, vjp = jax.vjp(lambda x: jc.max_pool(x, window, strides, padding), x)
    lax_y, lax_vjp = jax.vjp(lambda x: lax_max_pool(x, window, strides, padding), x)
    assert np.isneginf(lax_y).any()
    np.testing.assert_array_equal(y, lax_y)
    dy = numbers(y.shape, "float32", 8)
    np.testing.assert_array_equal(vjp(dy)[0], lax_vjp(dy)[0])

    for include in (True, False):
        y, vjp = jax.vjp(lambda x, i=include: jc.avg_pool(x, window, strides, padding, i), x)
        lax_y = lax_avg_pool(x, window, strides, padding, include)
        assert np.isnan(lax_y).any() != include
        np.testing.assert_allclose(y, lax_y, rtol=1e-5, atol=1e-6)
        exact = reference.avg_pool_grad(dy, pool_window((4, 4), window, strides, padding), include)
        np.testing.assert_allclose(vjp(dy)[0], exact, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["halves", "overlap_same", "1d", "3d", "two_batches"])
@pytest.mark.parametrize("pool", ["max", "avg", "avg_without_pad"])
def test_second_and_third_order(backend, pool, name):
    """Pooling is linear in dy with fixed positions, so higher derivatives pass through it."""
    shape, window, strides, padding = CASES[name]
    x = numbers(shape, "float64", 9)
    if pool == "max":
        ours, laxs = jc.max_pool, lax_max_pool
    else:
        include = pool == "avg"

        def ours(*args):
            return jc.avg_pool(*args, count_include_pad=include)

        def laxs(*args):
            return lax_avg_pool(*args, include)

    def derivatives(pool):
        def f(x):
            return jnp.sum(jnp.sin(pool(x**3, window, strides, padding)))

        def second(x):
            return jnp.sum(jax.grad(f)(x) ** 2)

        def third(x):
            return jnp.sum(jnp.cos(jax.grad(second)(x)))

        return jax.jit(lambda x: (jax.grad(second)(x), jax.grad(third)(x)))(x)

    for actual, expected in zip(derivatives(ours), derivatives(laxs), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-12 * np.abs(expected).max())


@pytest.mark.parametrize("shape", [(0, 4, 4, 3), (2, 4, 4, 0), (2, 1, 4, 3)], ids=str)
def test_empty(backend, shape):
    """Without a batch, channels or room for a window, shapes are lax's and the gradient is zeros."""
    x = np.ones(shape, np.float32)
    for ours, init, op in ((jc.max_pool, -np.inf, lax.max), (jc.avg_pool, 0.0, lax.add)):
        y, vjp = jax.vjp(jax.jit(lambda x, f=ours: f(x, (2, 2))), x)
        assert y.shape == by_lax(x, init, op, (2, 2), (1, 1), "VALID").shape
        assert y.size == 0
        np.testing.assert_array_equal(vjp(jnp.ones_like(y))[0], np.zeros(shape))


# name: inputs, window, strides, padding, window_dilation
DILATED = {
    "halves": ((2, 9, 8, 3), (2, 3), (2, 1), "VALID", (2, 3)),
    "same": ((1, 7, 9, 3), (3, 2), (2, 2), "SAME", (2, 1)),
    "same_lower": ((1, 7, 8, 2), (2, 2), (1, 3), "SAME_LOWER", (3, 2)),
    "pairs": ((2, 5, 6, 3), (3, 2), (2, 2), ((1, 2), (3, 1)), (2, 4)),
    "crops": ((2, 9, 3), (3,), (1,), ((-1, -2),), (2,)),
    "past_input": ((2, 4, 3), (3,), (1,), "VALID", (2,)),
    "3d": ((1, 4, 5, 4, 2), (2, 2, 2), None, "SAME", (2, 1, 3)),
    "no_batch": ((6, 7, 3), (2, 2), None, "VALID", (3, 2)),
}


@pytest.mark.parametrize("pool", ["max", "avg", "avg_without_pad"])
@pytest.mark.parametrize("name", DILATED)
def test_window_dilation(backend, name, pool):
    shape, window, strides, padding, dilation = DILATED[name]
    x = numbers(shape, "float64", 10)
    lead = len(shape) - len(window) - 1

    def reduce(x, init, op):
        pads = padding
        if not isinstance(padding, str):
            pads = ((0, 0),) * lead + tuple(padding) + ((0, 0),)
        ones = (1,) * lead
        steps = (*ones, *(strides or (1,) * len(window)), 1)
        return lax.reduce_window(
            x, init, op, (*ones, *window, 1), steps, pads, window_dilation=(*ones, *dilation, 1)
        )

    def ours(x):
        if pool == "max":
            return jc.max_pool(x, window, strides, padding, window_dilation=dilation)
        return jc.avg_pool(x, window, strides, padding, pool == "avg", dilation)

    def theirs(x):
        if pool == "max":
            return reduce(x, -jnp.inf, lax.max)
        count = np.prod(window) if pool == "avg" else reduce(jnp.ones_like(x), 0.0, lax.add)
        return reduce(x, 0.0, lax.add) / count

    y, vjp = jax.vjp(jax.jit(ours), x)
    dy = numbers(y.shape, "float64", 11)
    np.testing.assert_allclose(y, theirs(x), rtol=1e-12, atol=1e-12)
    # lax has no gradient of a dilated maximum.
    columns = zip(
        x.shape[-len(window) - 1 : -1],
        window,
        strides or (1,) * len(window),
        reference.padding_pairs(padding, x.shape[lead:-1], window, strides or (1,) * len(window), dilation),
        dilation,
        strict=True,
    )
    axes = [reference.Axis(i, r, s, lo, hi, 1, apart) for i, r, s, (lo, hi), apart in columns]
    if pool == "max":
        position = reference.max_pool(canonical(x, window), axes)[1]
        exact = reference.max_pool_grad(canonical(dy, window), position, axes)
    else:
        exact = reference.avg_pool_grad(canonical(dy, window), axes, pool == "avg")
    np.testing.assert_allclose(canonical(vjp(dy)[0], window), exact, rtol=1e-12, atol=1e-12)
    with jc.forward_mode():
        tangent = jax.jvp(ours, (x,), (np.cos(x),))[1]
    np.testing.assert_allclose(np.sum(tangent * dy), np.sum(vjp(dy)[0] * np.cos(x)), rtol=1e-10, atol=1e-12)


def test_forms_of_the_arguments():
    """Lists, arrays and generators mean the same as tuples."""
    x = numbers((2, 5, 6, 3), "float32", 12)
    for pool in (jc.max_pool, jc.avg_pool):
        expected = pool(x, (3, 2), (2, 1), ((1, 0), (0, 1)))
        for window, strides, padding in (
            ([3, 2], [2, 1], [[1, 0], [0, 1]]),
            (np.array([3, 2]), np.array([2, 1]), np.array([[1, 0], [0, 1]])),
            ((np.int32(3), 2), (np.int64(2), True), (pair for pair in [(1, 0), (0, 1)])),
        ):
            np.testing.assert_array_equal(pool(x, window, strides, padding), expected)
        np.testing.assert_array_equal(pool(x, (2, 2), None, "same"), pool(x, (2, 2), (1, 1), "SAME"))
        np.testing.assert_array_equal(
            pool(x, (2, 2), window_dilation=[1, 1]), pool(x, (2, 2), window_dilation=None)
        )


def test_where_the_gradient_goes_otherwise_than_in_lax(backend):
    """The two cases in max_pool's docstring; the test checks lax too, so that a change of lax is noticed."""
    x = np.array([1, np.nan, 2, np.nan, 3], np.float32).reshape(1, 5, 1)
    minus = np.full((1, 2, 1), -np.inf, np.float32)
    for array, window, padding, ours, theirs in (
        (x, (5,), ((0, 0),), [0, 1, 0, 0, 0], [0, 0, 0, 0, 1]),
        (minus, (2,), ((1, 0),), [2, 0], [1, 0]),
    ):
        for pool, expected in ((jc.max_pool, ours), (lax_max_pool, theirs)):
            y, vjp = jax.vjp(lambda x, f=pool, w=window, p=padding: f(x, w, (1,), p), array)
            np.testing.assert_array_equal(vjp(jnp.ones_like(y))[0].ravel(), expected)


def test_complex_average(backend):
    x = numbers((2, 5, 6, 3), "float64", 13) + 1j * numbers((2, 5, 6, 3), "float64", 14)
    arguments = ((3, 2), (2, 1), "SAME")
    for include in (True, False):
        y, vjp = jax.vjp(lambda x, i=include: jc.avg_pool(x, *arguments, i), x)
        parts = jc.avg_pool(x.real, *arguments, include) + 1j * jc.avg_pool(x.imag, *arguments, include)
        np.testing.assert_array_equal(y, parts)
        dy = y[::-1]
        pull = jax.vjp(lambda x, i=include: jc.avg_pool(x, *arguments, i), x.real)[1]
        np.testing.assert_array_equal(vjp(dy)[0], pull(dy.real)[0] + 1j * pull(dy.imag)[0])
        lax_y = by_lax(x, 0j, lax.add, *arguments)
        if include:
            np.testing.assert_allclose(y, lax_y / 6, rtol=1e-13, atol=1e-14)
