"""Pooling of channels-first arrays between convolutions adds no copies."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jax_convgrad as jc

pytestmark = pytest.mark.pooling

NUMBERS = np.random.default_rng(7)


def random(*shape):
    return jnp.asarray(NUMBERS.standard_normal(shape))


@pytest.fixture(autouse=True)
def _uninstalled():
    jc.uninstall()
    yield
    jc.uninstall()


def convolution(x, w, order):
    dimensions = (order, "OI" + order.replace("N", "").replace("C", ""), order)
    return lax.conv_general_dilated(x, w, (1,) * (x.ndim - 2), "SAME", dimension_numbers=dimensions)


def pooling(kind, order):
    """A pooling with windows of 3 along the first spatial dimension, of 2 along others, and steps of 2."""
    spatial = order.replace("N", "").replace("C", "")

    def per_dimension(first, others, none):
        return tuple(none if d in "NC" else first if d == spatial[0] else others for d in order)

    window, strides = per_dimension(3, 2, 1), per_dimension(2, 2, 1)
    pads = per_dimension((2, 1), (0, 0), (0, 0))
    if kind == "gaps":
        strides = per_dimension(4, 3, 1)
    if kind == "steps of 1":
        strides = (1,) * len(order)
    op, init = {"max": (lax.max, -jnp.inf), "min": (lax.min, jnp.inf)}.get(kind, (lax.add, 0.0))
    return lambda x: lax.reduce_window(x, init, op, window, strides, pads)


def chain(pool, order):
    def f(x, w1, w2):
        return convolution(pool(jax.nn.relu(convolution(x, w1, order))), w2, order)

    return f


def gradients(f):
    return jax.grad(lambda *arrays: jnp.sum(jnp.sin(f(*arrays))), (0, 1, 2))


def copies(f, *arrays):
    """The number of instructions in the compiled program that move an array of 3 dimensions or more."""
    text = jax.jit(f).lower(*arrays).compile().as_text()
    assert "jax_convgrad" in text
    moved = re.findall(r" = \w+\[(\d+(?:,\d+){2,})\]\S* (?:copy|transpose)\(", text)
    return len(moved)


def operands(order):
    sizes = {"N": 2, "C": 3, "D": 6, "H": 8, "W": 7}
    taps = (3,) * (len(order) - 2)
    return random(*(sizes[d] for d in order)), random(4, 3, *taps), random(5, 4, *taps)


def assert_close(ours, theirs):
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12 * float(jnp.abs(b).max()))


def installed(f):
    jc.install()
    return f


def value(f):
    return f


WAYS = [("NCHW", "max", value, installed), ("NCHW", "sum", value, jc.replace_convolutions)]
WAYS += [("NCHW", kind, gradients, installed) for kind in ("max", "min", "sum", "gaps", "steps of 1")]
WAYS += [("NCHW", "max", gradients, jc.replace_convolutions)]
WAYS += [(order, "max", gradients, installed) for order in ("NCW", "NCDHW", "NHWC")]


@functools.cache
def copies_without_pooling(order, of, by):
    return copies(by(of(chain(lambda x: x, order))), *operands(order))


@pytest.mark.parametrize(("order", "kind", "of", "by"), WAYS)
def test_nothing_is_copied_between_convolutions(order, kind, of, by):
    """The copies are those of the chain without a pooling (filters and ends), and the numbers are lax's."""
    arrays = operands(order)
    f = of(chain(pooling(kind, order), order))
    expected = jax.jit(f)(*arrays)
    ours = by(f)
    assert copies(ours, *arrays) <= copies_without_pooling(order, of, by)
    assert_close(jax.jit(ours)(*arrays), expected)


def test_nothing_is_copied_under_vmap():
    """An additional dimension in front, as lax's own vmap rule adds it, needs no copies."""
    x, w1, w2 = operands("NCHW")
    x = jnp.stack([x, 1 - x, x * 2])
    f, without = (
        gradients(jax.vmap(chain(pool, "NCHW"), (0, None, None)))
        for pool in (pooling("max", "NCHW"), lambda x: x)
    )
    expected = jax.jit(f)(x, w1, w2)
    jc.install()
    assert copies(f, x, w1, w2) <= copies(without, x, w1, w2)
    assert_close(jax.jit(f)(x, w1, w2), expected)


def test_alone_each_array_is_copied_once():
    """A program's arguments and results are row-major, so each needs one copy."""
    pool = pooling("max", "NCHW")
    x = random(2, 3, 8, 8)
    jc.install()
    assert copies(pool, x) == 2
    assert copies(lambda x, dy: jax.vjp(pool, x)[1](dy), x, pool(x)) == 3


@pytest.mark.parametrize("order", ["NCHW", "NHWC", "CHWN"])
def test_windows_over_no_numbers(order):
    """XLA must not copy empty arrays, because for some of them it divides by zero."""
    sizes = {"N": 2, "C": 3, "H": 0, "W": 4}
    x = jnp.zeros([sizes[d] for d in order])
    for kind in ("max", "min", "sum"):
        f = pooling(kind, order)
        expected = jax.jit(f)(x), jax.jit(jax.grad(lambda x, f=f: jnp.sum(f(x))))(x)
        assert expected[0].size
        for wrapped in (jc.replace_convolutions, lambda f: f):
            if wrapped is not jc.replace_convolutions:
                jc.install()
            got = jax.jit(wrapped(f))(x), jax.jit(wrapped(jax.grad(lambda x, f=f: jnp.sum(f(x)))))(x)
            for a, b in zip(got, expected, strict=True):
                np.testing.assert_array_equal(a, b)
        jc.uninstall()


@pytest.mark.parametrize("kind", ["max", "sum"])
def test_one_operand_mapped(kind):
    """Positions of one image with many dy, and of many images with one dy, whose gradient sums over them."""
    f = pooling(kind, "NCHW")
    x = random(2, 3, 5, 6)
    xs, dys = jnp.stack([x, -x, x * x]), random(4, *f(x).shape)

    def ways(f):
        def pulled(dy):
            return jax.vmap(lambda x: jax.vjp(f, x)[1](dy)[0])(xs)

        of_many = jax.vmap(lambda dy: jax.vjp(f, x)[1](dy)[0])(dys)
        return of_many, pulled(dys[0]), jax.grad(lambda dy: jnp.sum(jnp.sin(pulled(dy))))(dys[0])

    assert_close(jax.jit(lambda: ways(jc.replace_convolutions(f)))(), jax.jit(lambda: ways(f))())
