"""Compares values and gradients of max_pool and avg_pool with the reference and with lax.reduce_window."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from backends import runs
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


def with_gradient(f, x, dy):
    """f(x), and what its gradient makes of dy, in one program: compiling takes most of the time."""

    def run(x, dy):
        y, vjp = jax.vjp(f, x)
        return y, vjp(dy)[0]

    return jax.jit(run)(x, dy)


def operands(name, dtype, seed):
    """x and dy of a layer. With seed 1, for max_pool, x has few values: windows hold ties."""
    shape, window, strides, padding = CASES[name]
    x = numbers(shape, dtype, seed)
    y = jax.eval_shape(lambda x: lax_max_pool(x, window, strides, padding), x)
    return np.round(x).astype(dtype) if seed == 1 else x, numbers(y.shape, dtype, seed + 1)


@cache
def lax_answers(pool, name):
    """lax's y and dx in float64, once for all backends: compiling lax takes longest in a test."""
    _, window, strides, padding = CASES[name]
    x, dy = operands(name, "float64", 1 if pool is lax_max_pool else 3)
    return [np.asarray(a) for a in with_gradient(lambda x: pool(x, window, strides, padding), x, dy)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CASES)
def test_max_pool(backend, name, dtype):
    shape, window, strides, padding = CASES[name]
    x, dy = operands(name, dtype, 1)
    axes = pool_window(canonical(x, window).shape[1:-1], window, strides, padding)
    exact_y, position = reference.max_pool(canonical(x, window), axes)

    y, dx = with_gradient(lambda x: jc.max_pool(x, window, strides, padding), x, dy)
    assert (y.dtype, y.shape, dx.dtype, dx.shape) == (dtype, dy.shape, dtype, shape)
    np.testing.assert_array_equal(canonical(y, window), exact_y.astype(dtype))
    rows = canonical(dy, window)
    exact = reference.max_pool_grad(rows, position, axes)
    bound = sum_bound(dtype, np.prod(window), reference.max_pool_grad(np.abs(rows), position, axes), exact)
    assert_within(canonical(dx, window), exact, bound, "dx")
    if dtype == "float64":  # lax adds bf16 and f16 gradients up in bf16 and f16
        lax_y, lax_dx = lax_answers(lax_max_pool, name)
        np.testing.assert_array_equal(y, lax_y)
        assert_within(dx, lax_dx, 2 * bound.reshape(shape), "dx against lax")


LAX_AVG_POOL = {include: partial(lax_avg_pool, count_include_pad=include) for include in (True, False)}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CASES)
def test_avg_pool(backend, name, dtype):
    shape, window, strides, padding = CASES[name]
    x, dy = operands(name, dtype, 3)
    axes = pool_window(canonical(x, window).shape[1:-1], window, strides, padding)

    def run(x, dy, include):
        y, vjp = jax.vjp(lambda x: jc.avg_pool(x, window, strides, padding, count_include_pad=include), x)
        return y, vjp(dy)[0]

    both = jax.jit(lambda x, dy: [run(x, dy, include) for include in LAX_AVG_POOL])(x, dy)
    for include, (y, dx) in zip(LAX_AVG_POOL, both, strict=True):
        assert (y.dtype, y.shape, dx.dtype, dx.shape) == (dtype, dy.shape, dtype, shape)
        for at, (what, actual, operand, f) in enumerate(
            (("y", y, x, reference.avg_pool), ("dx", dx, dy, reference.avg_pool_grad))
        ):
            what = f"{what}, count_include_pad={include}"
            operand = canonical(operand, window)
            exact, magnitude = f(operand, axes, include), f(np.abs(operand), axes, include)
            # One more term for the division.
            bound = sum_bound(dtype, np.prod(window) + 1, magnitude, exact)
            assert_within(canonical(actual, window), exact, bound, what)
            if dtype == "float64":
                by_lax = lax_answers(LAX_AVG_POOL[include], name)[at]
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


def higher_derivatives(pool, name):
    """Those of a function whose gradient depends on x; of the second and third order."""
    shape, window, strides, padding = CASES[name]

    def f(x):
        return jnp.sum(jnp.sin(pool(x**3, window, strides, padding)))

    def second(x):
        return jnp.sum(jax.grad(f)(x) ** 2)

    def third(x):
        return jnp.sum(jnp.cos(jax.grad(second)(x)))

    return jax.jit(lambda x: (jax.grad(second)(x), jax.grad(third)(x)))(numbers(shape, "float64", 9))


@cache
def lax_higher_derivatives(pool, name):
    """lax's, once for all backends."""
    return [np.asarray(derivative) for derivative in higher_derivatives(pool, name)]


POOLS = {
    "max": (jc.max_pool, lax_max_pool),
    "avg": (jc.avg_pool, LAX_AVG_POOL[True]),
    "avg_without_pad": (partial(jc.avg_pool, count_include_pad=False), LAX_AVG_POOL[False]),
}


@pytest.mark.parametrize(
    ("backend", "name"),
    runs(["halves", "overlap_same", "1d", "3d", "two_batches"], ["overlap_same"]),
    indirect=["backend"],
)
@pytest.mark.parametrize("pool", POOLS)
def test_second_and_third_order(backend, pool, name):
    """Pooling is linear in dy once the positions are chosen: higher derivatives pass through it unbroken."""
    ours, laxs = POOLS[pool]
    expected = lax_higher_derivatives(laxs, name)
    for one, other in zip(higher_derivatives(ours, name), expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-12 * np.abs(other).max())


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


@cache
def lax_dilated(name, pool):
    """lax's pooling, once for all backends."""
    shape, window, strides, padding, dilation = DILATED[name]
    x = numbers(shape, "float64", 10)
    ones = (1,) * (len(shape) - len(window) - 1)
    steps = (*ones, *(strides or (1,) * len(window)), 1)
    pads = padding if isinstance(padding, str) else ((0, 0),) * len(ones) + tuple(padding) + ((0, 0),)

    def reduce(x, init, op):
        return lax.reduce_window(
            x, init, op, (*ones, *window, 1), steps, pads, window_dilation=(*ones, *dilation, 1)
        )

    if pool == "max":
        return np.asarray(reduce(x, -jnp.inf, lax.max))
    count = np.prod(window) if pool == "avg" else reduce(jnp.ones_like(x), 0.0, lax.add)
    return np.asarray(reduce(x, 0.0, lax.add) / count)


@pytest.mark.parametrize("pool", ["max", "avg", "avg_without_pad"])
@pytest.mark.parametrize("name", DILATED)
def test_window_dilation(backend, name, pool):
    shape, window, strides, padding, dilation = DILATED[name]
    x = numbers(shape, "float64", 10)
    lead = len(shape) - len(window) - 1

    def ours(x):
        if pool == "max":
            return jc.max_pool(x, window, strides, padding, window_dilation=dilation)
        return jc.avg_pool(x, window, strides, padding, pool == "avg", dilation)

    y, vjp = jax.vjp(jax.jit(ours), x)
    dy = numbers(y.shape, "float64", 11)
    np.testing.assert_allclose(y, lax_dilated(name, pool), rtol=1e-12, atol=1e-12)
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
