"""Compares the reference with lax in float64, so that neither can be wrong alone."""

import conv_cases
import jax
import numpy as np
import pytest
import reference
from jax import lax
from lax_answers import exact_conv, lax_conv, pool_window
from tolerance import assert_within, sum_bound


@pytest.mark.parametrize("case", conv_cases.CASES, ids=lambda case: case.name)
def test_conv_sums_are_lax_sums(case):
    x, w, _ = case.arrays("float64")
    assert lax.conv_general_dilated(x, w, **case.lax_arguments).shape == case.y
    exact, magnitude = exact_conv(case, "float64")
    for name, from_lax in lax_conv(case, "float64").items():
        bound = 2 * sum_bound("float64", case.sum_lengths[name], magnitude[name], exact[name])
        assert_within(from_lax, exact[name], bound, name)


def test_cases_are_distinct_small_and_many():
    assert len({case.name for case in conv_cases.CASES}) == len(conv_cases.CASES) >= 45
    for case in conv_cases.CASES:
        assert 0 < case.multiply_adds <= 200_000, case.name


def test_bias_sum():
    dy = np.arange(24.0).reshape(2, 4, 3)
    np.testing.assert_array_equal(reference.bgrad(dy), [84, 92, 100])


@pytest.mark.parametrize("padding", ["VALID", "SAME", ((1, 2), (2, 0))])
@pytest.mark.parametrize("window, strides", [((2, 2), (2, 2)), ((3, 2), (1, 2)), ((3, 3), (2, 3))])
def test_pooling_is_lax_reduce_window(window, strides, padding):
    x = np.random.default_rng(1).integers(-3, 3, (2, 7, 6, 3)).astype("float64")  # small integers: many ties
    axes = pool_window(x.shape[1:-1], window, strides, padding)
    pads = [(axis.pad_lo, axis.pad_hi) for axis in axes]

    def reduce(init, op, x):
        def pool(x):
            return lax.reduce_window(x, init, op, (1, *window, 1), (1, *strides, 1), ((0, 0), *pads, (0, 0)))

        return jax.vjp(pool, x)

    y, position = reference.max_pool(x, axes)
    lax_y, lax_vjp = reduce(-np.inf, lax.max, x)
    dy = np.random.default_rng(2).standard_normal(y.shape)
    np.testing.assert_array_equal(lax_y, y)
    np.testing.assert_allclose(
        lax_vjp(dy)[0], reference.max_pool_grad(dy, position, axes), rtol=1e-14, atol=1e-14
    )

    ones = np.ones((1, *x.shape[1:-1], 1))
    for include in (True, False):
        count = np.prod(window) if include else reduce(0.0, lax.add, ones)[0]
        total, vjp = reduce(0.0, lax.add, x)
        np.testing.assert_allclose(
            reference.avg_pool(x, axes, include), total / count, rtol=1e-14, atol=1e-14
        )
        dx = reference.avg_pool_grad(dy, axes, include)
        np.testing.assert_allclose(vjp(dy / count)[0], dx, rtol=1e-14, atol=1e-14)
