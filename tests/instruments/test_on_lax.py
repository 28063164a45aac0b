"""`on_lax`, the inverse of `replace_convolutions`: equal values and gradients, no primitive of ours left."""

import jax
import jax.numpy as jnp
import lax_functions
import numpy as np
import pytest
from calls import CALLS
from lax_functions import FUNCTIONS, NO_SUCH_DERIVATIVE, WAYS, W, X, assert_same, scalar
from lowered_programs import primitives

import jax_convgrad as jc
from jax_convgrad.instruments.on_lax import on_lax


def our_conv(x, w, stride=(1, 1)):
    return jc.conv(x, w, stride=stride, padding="SAME")


def assert_on_lax(f, *args):
    names = set(primitives(jax.make_jaxpr(f)(*args).jaxpr))
    assert not [name for name in names if name.startswith("jax_convgrad")]
    assert "jax_convgrad" not in jax.jit(f).lower(*args).as_text()


@pytest.mark.parametrize("way", ["value", "gradient", "jitted_gradient"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_deep_inside(name, way, monkeypatch):
    """Each function on our layers, put on lax, is the same function on lax's own."""
    if name in NO_SUCH_DERIVATIVE.get(way, ()):
        pytest.skip("has no such derivative")
    f, transform = FUNCTIONS[name], WAYS[way]
    expected = jax.jit(transform(f))(X, W)
    jax.clear_caches()  # of jitted functions inside
    monkeypatch.setattr(lax_functions, "conv", our_conv)
    with jc.forward_mode():  # without which JAX has no gradient of a custom_jvp with our layers inside
        assert "jax_convgrad" in str(jax.make_jaxpr(transform(f))(X, W))
    put = transform(on_lax(f))
    assert_on_lax(put, X, W)
    assert_same(jax.jit(put)(X, W), expected)
    jax.clear_caches()


@pytest.mark.parametrize("name", CALLS)
def test_every_layer(name):
    f, args = CALLS[name]
    args = [jnp.asarray(arg, jnp.float64) for arg in args]

    def gradients(f):
        return jax.grad(lambda args: jnp.sum(jnp.sin(f(*args))))

    for put, own in ((on_lax(f)(*args), f(*args)), (gradients(on_lax(f))(args), gradients(f)(args))):
        assert_same(put, own)
    assert_on_lax(gradients(on_lax(f)), args)
    assert_on_lax(on_lax(gradients(f)), args)


def test_our_rules_have_no_part_in_it(monkeypatch):
    """A mistake in our layers' own backward pass is not in the gradient on lax."""
    from jax_convgrad.primitives import contractions as ours

    x, w, b = X, W, jnp.ones(3)

    def loss(w):
        return jnp.sum(jnp.sin(jc.conv(x, w, b, activation="relu")))

    right = jax.grad(loss)(w)
    monkeypatch.setattr(ours, "dgrad", lambda *args, **kwargs: 1 / 0)
    monkeypatch.setattr(ours, "wgrad", lambda *args, **kwargs: 1 / 0)
    np.testing.assert_allclose(jax.grad(on_lax(loss))(w), right, rtol=1e-12)


def test_a_result_that_is_an_operand():
    """`spread` of a bias over no more than itself is that bias on lax: still an equation of its own."""
    from jax_convgrad.primitives.contractions import bgrad, spread

    def f(b):
        return spread(b, b.shape, 0), bgrad(b, 0), b

    b = jnp.arange(3.0)
    for result in on_lax(f)(b):
        np.testing.assert_array_equal(result, b)


def test_inverse_of_replace_convolutions():
    f = scalar(lax_functions.layer)
    there_and_back = on_lax(jc.replace_convolutions(f))
    assert_on_lax(jax.grad(there_and_back), X, W)
    assert_same(jax.grad(there_and_back, (0, 1))(X, W), jax.grad(f, (0, 1))(X, W))
