"""Nothing of lax's or XLA's own convolution or pooling is left, in a value or in a gradient of any order."""

import re
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.extend import core

import jax_convgrad as jc

FOREIGN_PRIMITIVES = re.compile(
    r"conv_general_dilated|dot_general|reduce_window|select_and_scatter|select_and_gather|cumulative_"
)
# Before and after XLA's passes. Those may write any large sum as a reduce-window, so it is missing after.
FOREIGN_STABLEHLO = re.compile(r"stablehlo\.(convolution|dot_general|reduce_window|select_and_scatter)\b")
FOREIGN_HLO = re.compile(r"\b(convolution|dot|select-and-scatter)\(")

X = np.random.default_rng(0).standard_normal((2, 6, 7, 4)).astype(np.float32)
W = np.random.default_rng(1).standard_normal((3, 3, 4, 6)).astype(np.float32)
B = np.ones(6, np.float32)
NHWC = ("NHWC", "HWIO", "NHWC")
DEPTHWISE = np.random.default_rng(2).standard_normal((3, 3, 1, 4)).astype(np.float32)

CALLS = {
    "conv_general_dilated": (
        lambda x, w: jc.conv_general_dilated(
            x, w, (2, 1), "SAME", rhs_dilation=(1, 2), dimension_numbers=NHWC
        ),
        (X, W),
    ),
    "features_first": (
        lambda x, w: jc.conv_general_dilated(x, w, (1, 1), "VALID"),
        (X.transpose(0, 3, 1, 2), W.transpose(3, 2, 0, 1)),
    ),
    "conv_transpose": (lambda x, w: jc.conv_transpose(x, w, (2, 2), "SAME"), (X, W)),
    "depthwise": (lambda x, w: jc.conv(x, w, groups=4), (X, DEPTHWISE)),
    "conv": (lambda x, w, b: jc.conv(x, w, b, padding="SAME", activation="relu"), (X, W, B)),
    "conv_input_grad": (
        lambda dy, w: jc.conv_input_grad(dy, w, X.shape, padding="SAME"),
        (np.ones((2, 6, 7, 6), np.float32), W),
    ),
    "conv_filter_grad": (
        lambda x, dy: jc.conv_filter_grad(x, dy, W.shape, padding="SAME"),
        (X, np.ones((2, 6, 7, 6), np.float32)),
    ),
    "conv_bias_grad": (jc.conv_bias_grad, (X,)),
    "max_pool": (lambda x: jc.max_pool(x, (3, 3), (2, 2), "SAME"), (X,)),
    "avg_pool": (lambda x: jc.avg_pool(x, (2, 3), (1, 2), "SAME", count_include_pad=False), (X,)),
}


def value(f):
    return f


def gradient(f):
    def g(*args):
        return jax.grad(lambda args: jnp.sum(jnp.sin(f(*args))))(args)

    return g


def gradient_of_gradient(f):
    def g(*args):
        inner = gradient(f)
        return jax.grad(lambda args: sum(jnp.sum(a**3) for a in inner(*args)))(args)

    return g


def primitives(jaxpr):
    """The names of all primitives of a jaxpr, and of every jaxpr within its equations' parameters."""
    for equation in jaxpr.eqns:
        yield equation.primitive.name
        for parameter in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda p: isinstance(p, core.Jaxpr | core.ClosedJaxpr)
        ):
            if isinstance(parameter, core.ClosedJaxpr):
                yield from primitives(parameter.jaxpr)
            elif isinstance(parameter, core.Jaxpr):
                yield from primitives(parameter)


def foreign(f, args):
    """What a traced and compiled f holds that is not ours, and the custom calls that it makes."""
    found = {p for p in primitives(jax.make_jaxpr(f)(*args).jaxpr) if FOREIGN_PRIMITIVES.search(p)}
    lowered = jax.jit(f).lower(*args)
    found |= {match.group() for match in FOREIGN_STABLEHLO.finditer(lowered.as_text())}
    text = lowered.compile().as_text()
    targets = set(re.findall(r'custom_call_target="([^"]+)"', text))
    found |= {match.group() for match in FOREIGN_HLO.finditer(text)}
    return found | {t for t in targets if not t.startswith("jax_convgrad_")}, targets


@pytest.mark.parametrize("of", [value, gradient, gradient_of_gradient], ids=lambda f: f.__name__)
@pytest.mark.parametrize("name", CALLS)
def test_only_our_kernels(backend, name, of):
    f, args = CALLS[name]
    found, targets = foreign(of(f), args)
    assert not found
    assert targets, "no kernel of ours is called either"


def test_every_order_of_the_bias_gradient_is_ours():
    """b is added by a broadcast whose transpose is bgrad, and not by one whose transpose is lax's sum."""
    f = lambda b: jnp.sum(jnp.sin(jc.conv(X, W, b, padding="SAME")))  # noqa: E731
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
    """The search sees what it looks for, also behind jit, custom_vjp and scan."""
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
