"""Derivatives of derivatives, compared with finite differences in float64, and with lax at third order."""

from functools import cache

import conv_cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from backends import runs
from jax import lax
from jax.test_util import check_grads

import jax_convgrad as jc

NAMES = [
    "1d_both_dilations",
    "1d_depthwise",
    "2d_stride_skips_inputs",
    "2d_same_even_filter",
    "2d_padding_past_filter",
    "2d_both_dilations",
    "2d_groups_first_order",
    "2d_depthwise_twice",
    "2d_batch_groups_first_order",
    "2d_permuted",
    "3d_all",
]
# The rules of differentiation are the same on every backend. These two call the kernels in every way.
FEW = ["2d_both_dilations", "2d_groups_first_order"]
few = pytest.mark.parametrize(("backend", "name"), runs(NAMES, FEW), indirect=["backend"])


def assert_equal_to_rounding(ours, laxs):
    """Asserts equality within the rounding of a few thousand additions, relative to the largest number."""
    ours, laxs = jax.tree.leaves(ours), jax.tree.leaves(laxs)
    for a, b in zip(ours, laxs, strict=True):
        assert np.abs(b).max() > 0, "nothing is compared"
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12 * np.abs(b).max())


@few
def test_second_order_by_finite_differences(backend, name):
    case = conv_cases.BY_NAME[name]
    x, w, _ = case.arrays("float64")

    def f(x, w):  # a square, so that the second derivative in x alone is not zero
        return jnp.sum(jc.conv_general_dilated(x, w, **case.lax_arguments) ** 2) / x.size

    check_grads(jax.jit(f), (x, w), order=2, modes=["rev"], atol=1e-3, rtol=1e-3)


def third(conv_general_dilated, name):
    """A third derivative of a function of a layer, along two directions."""
    case = conv_cases.BY_NAME[name]
    x, w, _ = case.arrays("float64")
    directions = [np.cos(np.arange(a.size).reshape(a.shape) + k) for k in range(2) for a in (x, w)]

    def f(x, w):
        return jnp.sum(jnp.sin(conv_general_dilated(x, w, **case.lax_arguments)))

    def along(g, vx, vw):
        def directional(x, w):
            gx, gw = jax.grad(g, (0, 1))(x, w)
            return jnp.vdot(gx, vx) + jnp.vdot(gw, vw)

        return directional

    once = along(f, *directions[:2])
    return jax.jit(jax.grad(along(once, *directions[2:]), (0, 1)))(x, w)


@cache
def lax_third(name):
    """lax's, once for all backends."""
    return [np.asarray(a) for a in third(lax.conv_general_dilated, name)]


@few
def test_third_order_is_lax(backend, name):
    assert_equal_to_rounding(third(jc.conv_general_dilated, name), lax_third(name))


@pytest.mark.parametrize(
    ("backend", "name"),
    runs(["1d_both_dilations", "2d_groups", "2d_permuted", "3d_all"], ["2d_groups"]),
    indirect=["backend"],
)
def test_gradients_of_the_gradient_functions(backend, name):
    """conv_input_grad and conv_filter_grad are differentiable in both arguments, to second order."""
    case = conv_cases.BY_NAME[name]
    x, w, dy = case.arrays("float64")

    def lax_vjp(x, w, dy):
        return jax.vjp(lambda x, w: lax.conv_general_dilated(x, w, **case.lax_arguments), x, w)[1](dy)

    def gradient_of(f, *arrays):
        def scalar(*arrays):
            return jnp.sum(jnp.sin(f(*arrays)))

        def squared(*arrays):
            return sum(jnp.sum(g**2) for g in jax.grad(scalar, (0, 1))(*arrays))

        return jax.jit(lambda *a: (jax.grad(scalar, (0, 1))(*a), jax.grad(squared, (0, 1))(*a)))(*arrays)

    ours = gradient_of(lambda dy, w: jc.conv_input_grad(dy, w, x.shape, **case.grad_arguments), dy, w)
    assert_equal_to_rounding(ours, gradient_of(lambda dy, w: lax_vjp(x, w, dy)[0], dy, w))
    ours = gradient_of(lambda x, dy: jc.conv_filter_grad(x, dy, w.shape, **case.grad_arguments), x, dy)
    assert_equal_to_rounding(ours, gradient_of(lambda x, dy: lax_vjp(x, w, dy)[1], x, dy))


@pytest.mark.parametrize("activation", [None, "relu", jnp.tanh], ids=["linear", "relu", "tanh"])
def test_second_order_of_the_layer(backend, activation):
    """A layer with bias and activation, compared with the same layer written with lax."""
    random = np.random.default_rng(5)
    x, w, b = (random.standard_normal(s) for s in ((2, 5, 6, 3), (3, 3, 3, 4), (4,)))
    act = {None: lambda y: y, "relu": jax.nn.relu}.get(activation, activation)

    def ours(x, w, b):
        return jc.conv(x, w, b, padding="SAME", stride=2, activation=activation)

    def laxs(x, w, b):
        return act(lax.conv_general_dilated(x, w, (2, 2), "SAME", dimension_numbers=conv_cases.NHWC) + b)

    def penalty(layer):  # a gradient penalty, which needs the second derivative
        def loss(x, w, b):
            return jnp.sum(layer(x, w, b) ** 3)

        def f(x, w, b):
            return sum(jnp.sum(g**2) for g in jax.grad(loss, (0, 1, 2))(x, w, b))

        return jax.jit(jax.value_and_grad(f, (0, 1, 2)))(x, w, b)

    assert_equal_to_rounding(penalty(ours), penalty(laxs))
