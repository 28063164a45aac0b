"""`replace_convolutions` keeps a function's values and leaves no convolution of lax in it."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from lax_functions import (
    FUNCTIONS,
    NO_SUCH_DERIVATIVE,
    WAYS,
    W,
    X,
    assert_same,
    conv,
    gradient,
    in_fori,
    in_while,
    layer,
    scalar,
)
from lowered_programs import FOREIGN_HLO, FOREIGN_STABLEHLO, primitives

import jax_convgrad as jc
from jax_convgrad import replace_convolutions

OURS = {"jax_convgrad_fprop", "jax_convgrad_dgrad", "jax_convgrad_wgrad"}


def assert_on_our_kernels(f, *args):
    """Asserts that the traced and the compiled program call our kernels; returns the compiled program."""
    found = set(primitives(jax.make_jaxpr(f)(*args).jaxpr))
    assert "conv_general_dilated" not in found
    assert found & OURS
    lowered = jax.jit(f).lower(*args)
    assert not FOREIGN_STABLEHLO.search(lowered.as_text())
    compiled = lowered.compile()
    text = compiled.as_text()
    assert not FOREIGN_HLO.search(text)
    assert "jax_convgrad_" in text
    return compiled


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_same_values_on_our_kernels(name, way):
    f, transform = FUNCTIONS[name], WAYS[way]
    ours, theirs = jax.jit(transform(replace_convolutions(f))), jax.jit(transform(f))
    if name in NO_SUCH_DERIVATIVE.get(way, ()):
        for g in (theirs, ours):
            with pytest.raises((TypeError, ValueError), match=r"forward-mode|[Rr]everse-mode"):
                g(X, W)
        return
    assert_same(assert_on_our_kernels(transform(replace_convolutions(f)), X, W)(X, W), theirs(X, W))


@pytest.mark.parametrize("name", ["jitted", "scanned", "with_custom_vjp", "with_gradient_inside"])
def test_from_the_outside(name):
    """The replacement is outermost: the function is a gradient that contains lax's own gradients."""
    g = gradient(FUNCTIONS[name])
    assert_same(assert_on_our_kernels(replace_convolutions(g), X, W)(X, W), jax.jit(g)(X, W))


@pytest.mark.parametrize("inside", [True, False])
def test_hessian(inside):
    x, w = X[:1, :2, :2], W[:2]

    def hessian(f):
        return jax.hessian(scalar(f), (0, 1))

    ours = hessian(replace_convolutions(layer)) if inside else replace_convolutions(hessian(layer))
    assert_same(assert_on_our_kernels(ours, x, w)(x, w), jax.jit(hessian(layer))(x, w))


def test_a_gradient_is_the_layers_three_contractions(backend):
    def counted(f):
        names = list(primitives(jax.make_jaxpr(f)(X, W).jaxpr))
        return {name: names.count(name) for name in OURS}

    once = {name: 1 for name in OURS}
    f = scalar(layer)
    assert counted(jax.grad(replace_convolutions(f), (0, 1))) == once
    assert counted(replace_convolutions(jax.grad(f, (0, 1)))) == once
    assert_same(jax.jit(replace_convolutions(jax.grad(f, (0, 1))))(X, W), jax.jit(jax.grad(f, (0, 1)))(X, W))


# ------------------------------------------------------------------------------------ everything else stays


def test_a_function_without_convolutions_keeps_its_jaxpr():
    def f(x, w):
        x = jax.nn.relu(lax.scan(lambda c, _: (jnp.sin(c), None), x, length=3)[0])
        return jax.jit(jax.nn.softmax)(x) + jnp.sum(w)

    assert str(jax.make_jaxpr(replace_convolutions(f))(X, W)) == str(jax.make_jaxpr(f)(X, W))


@pytest.mark.parametrize(
    "args",
    [
        (jnp.ones((1, 2, 5), jnp.int32), jnp.ones((2, 2, 3), jnp.int32)),
        (jnp.ones((1, 2, 3, 3, 3, 3)), jnp.ones((2, 2, 2, 2, 2, 2))),
    ],
    ids=["integers", "four_axes"],
)
def test_what_the_kernels_have_not_stays_with_lax(args):
    f = partial(lax.conv_general_dilated, window_strides=(1,) * (args[0].ndim - 2), padding="VALID")
    ours = replace_convolutions(f)
    assert "conv_general_dilated" in primitives(jax.make_jaxpr(ours)(*args).jaxpr)
    np.testing.assert_array_equal(ours(*args), f(*args))


@pytest.mark.parametrize("narrow", [jnp.bfloat16, jnp.float16])
def test_preferred_element_type(narrow):
    def f(x, w):
        return lax.conv(x, w, (1, 1), "SAME", preferred_element_type=jnp.float32)

    x, w = X.astype(narrow), W.astype(narrow).transpose(3, 1, 2, 0)[:, :4]
    x = x.transpose(0, 3, 1, 2)
    w = jnp.concatenate([w, w], 1)[:, :3]
    ours = replace_convolutions(f)
    assert_on_our_kernels(ours, x, w)
    y = ours(x, w)
    assert y.dtype == jnp.float32
    exact = lax.conv(x.astype(jnp.float64), w.astype(jnp.float64), (1, 1), "SAME")
    np.testing.assert_allclose(y, exact, rtol=1e-5, atol=1e-5)
    gradients = jax.grad(lambda x, w: jnp.sum(jnp.sin(ours(x, w))), (0, 1))(x, w)
    assert [g.dtype for g in gradients] == [narrow, narrow]


def test_any_arguments_and_results():
    """Arguments and results may be trees with JAX arrays, NumPy arrays and other objects."""

    def f(model, x, *, stride, name=None):
        assert isinstance(stride, int)
        y = model["activation"](conv(x, model["w"], (stride, stride)))
        return {"y": y, "name": name, "activation": model["activation"], "none": None, "pair": (stride, 2.5)}

    model = {"w": np.asarray(W), "activation": jnp.tanh, "unused": None}
    ours = replace_convolutions(f)(model, X, stride=2, name="layer")
    theirs = f(model, X, stride=2, name="layer")
    np.testing.assert_allclose(ours.pop("y"), theirs.pop("y"), rtol=1e-12)
    assert ours == theirs


def test_a_closure_over_what_is_being_differentiated():
    def f(x, w):
        return jnp.sum(replace_convolutions(lambda x: conv(x, w))(x) ** 2)

    assert_same(jax.grad(f, (0, 1))(X, W), jax.grad(lambda x, w: jnp.sum(conv(x, w) ** 2), (0, 1))(X, W))
    assert_on_our_kernels(jax.grad(f, (0, 1)), X, W)


def test_twice_is_once_and_our_own_layers_pass():
    def f(x, w):
        return conv(jc.conv(x, w, padding="SAME"), w)

    ours = replace_convolutions(replace_convolutions(f))
    assert_same(jax.grad(scalar(ours), (0, 1))(X, W), jax.grad(scalar(f), (0, 1))(X, W))
    assert_on_our_kernels(jax.grad(scalar(ours), (0, 1)), X, W)


def test_name_and_documentation_stay():
    assert replace_convolutions(in_fori).__name__ == "in_fori"
    assert replace_convolutions(in_while).__doc__ == in_while.__doc__
