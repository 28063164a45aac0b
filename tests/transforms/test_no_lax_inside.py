"""Values and gradients of any order contain no convolution or pooling of lax or XLA."""

from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from calls import CALLS, NHWC, B, W, X, gradient
from jax import lax
from lowered_programs import foreign, primitives

import jax_convgrad as jc


def value(f):
    return f


def gradient_of_gradient(f):
    def g(*args):
        inner = gradient(f)
        return jax.grad(lambda args: sum(jnp.sum(a**3) for a in inner(*args)))(args)

    return g


@pytest.mark.parametrize("of", [value, gradient, gradient_of_gradient], ids=lambda f: f.__name__)
@pytest.mark.parametrize("name", CALLS)
def test_only_our_kernels(backend, name, of):
    f, args = CALLS[name]
    found, targets = foreign(of(f), args)
    assert not found
    assert targets, "no kernel of ours is called either"


def test_every_order_of_the_bias_gradient_is_ours():
    """b is added with a broadcast whose transpose is bgrad, not with one whose transpose is lax's sum."""
    f = lambda b: jnp.sum(jnp.sin(jc.conv(X, W, b, padding="SAME")))  # noqa: E731  # a def would be longer
    of = {
        "first": jax.grad(f),
        "second": jax.grad(lambda b: jnp.sum(jax.grad(f)(b) ** 2)),
    }
    for order, g in of.items():
        counts = Counter(primitives(jax.make_jaxpr(g)(B).jaxpr))
        assert counts["jax_convgrad_bgrad"] + counts["jax_convgrad_wgrad_bgrad"] >= 1, order
    with jc.forward_mode():
        counts = Counter(primitives(jax.make_jaxpr(jax.grad(f))(B).jaxpr))
    assert counts["jax_convgrad_bgrad"] == 1


def test_lax_would_be_found():
    """The search finds such operations, also inside jit, custom_vjp and scan."""
    specs = lax.conv_dimension_numbers(X.shape, W.shape, NHWC)

    @jax.custom_vjp
    def hidden(x, w):
        return lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=specs)

    hidden.defvjp(lambda x, w: (hidden(x, w), None), lambda _, dy: (dy, dy))

    def scanned(x, w):
        return lax.scan(lambda c, _: (c + jnp.sum(jax.jit(hidden)(x, w)), None), 0.0, length=2)[0]

    found, _ = foreign(scanned, (X, W))
    assert found >= {"conv_general_dilated", "stablehlo.convolution"}
    assert found & {"convolution(", "dot("}

    def pool(x):
        return jnp.sum(lax.reduce_window(x, -np.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID"))

    found, _ = foreign(jax.grad(pool), (X,))
    assert found >= {"reduce_window_max", "select_and_scatter_add", "stablehlo.select_and_scatter"}
