"""Control flow, rematerialisation, donation and ahead-of-time compilation keep a program's numbers."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.ad_checkpoint import checkpoint_name

import jax_convgrad as jc

RANDOM = np.random.default_rng(9)
X = RANDOM.standard_normal((2, 6, 7, 4))
W = RANDOM.standard_normal((3, 3, 4, 4)) / 6  # as many channels out as in, so that a layer may follow itself
B = RANDOM.standard_normal(4)


def layer(x, w, b):
    return jc.conv(x, w, b, padding="SAME", activation="relu")


def loss(x, w, b):
    y = jc.max_pool(layer(layer(x, w, b), w, b), (2, 2), (2, 2))
    return jnp.sum(jnp.sin(y))


gradients = jax.grad(loss, (0, 1, 2))


def assert_close(actual, expected, eps=1e-12):
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=0, atol=eps * max(1, np.abs(b).max()))


# --------------------------------------------------------------------------------------- rematerialisation


def named(x, w, b):
    # The name is before the relu, because its derivative needs its argument.
    y = jax.nn.relu(checkpoint_name(jc.conv(x, w, b, padding="SAME"), "first"))
    return jnp.sum(jnp.sin(jc.max_pool(layer(y, w, b), (2, 2), (2, 2))))


def save_fprop(primitive, *_, **__):
    return primitive.name.startswith("jax_convgrad_fprop")


POLICIES = jax.checkpoint_policies


@pytest.mark.parametrize(
    ("policy", "fprops"),
    [
        (POLICIES.everything_saveable, 2),
        (POLICIES.nothing_saveable, 4),
        (POLICIES.dots_saveable, 4),  # it saves lax's convolution with the dots, but does not know ours
        (POLICIES.save_from_both_policies(POLICIES.dots_saveable, save_fprop), 2),
        (POLICIES.save_only_these_names("first"), 3),
    ],
    ids=["everything", "nothing", "dots", "dots_and_fprop", "the_first"],
)
def test_checkpoint_policies(policy, fprops):
    """The number of forward convolutions follows from the policy, and the gradients are the same."""
    f = jax.jit(jax.value_and_grad(jax.checkpoint(named, policy=policy), (0, 1, 2)))
    assert_close(f(X, W, B)[1], gradients(X, W, B))
    assert f.lower(X, W, B).as_text().count("@jax_convgrad_fprop") == fprops


# -------------------------------------------------------------------------------------------- control flow


def test_while_loop():
    """A loop of gradient steps until the loss is low enough."""

    def step(x):
        return x - 0.01 * jax.grad(loss)(x, W, B)

    def descend(x):
        goal = loss(x, W, B) - 5
        return lax.while_loop(
            lambda state: (loss(state[0], W, B) > goal) & (state[1] < 50),
            lambda state: (step(state[0]), state[1] + 1),
            (x, 0),
        )

    x, count = jax.jit(descend)(X)
    assert 3 < count < 50
    expected = X
    for _ in range(int(count)):
        expected = step(expected)
    assert_close(x, expected, 1e-10)


def test_forward_mode_through_while_loop():
    def f(w):
        return lax.while_loop(
            lambda s: s[1] < 3, lambda s: (layer(s[0], w, B), s[1] + 1), (jnp.asarray(X), 0)
        )[0]

    def unrolled(w):
        x = jnp.asarray(X)
        for _ in range(3):
            x = layer(x, w, B)
        return x

    tangent = np.cos(W)
    with jc.forward_mode():
        ours = jax.jit(lambda w, t: jax.jvp(f, (w,), (t,)))(W, tangent)
        assert_close(ours, jax.jvp(unrolled, (W,), (tangent,)))
    step = 1e-6
    difference = (unrolled(W + step * tangent) - unrolled(W - step * tangent)) / (2 * step)
    assert_close(ours[1], difference, 1e-6)


def test_gradient_through_fori_loop_and_scan():
    weights = np.stack([W, W * 0.5, np.flip(W, 0)])

    def looped(x, weights):
        return jnp.sum(jnp.sin(lax.fori_loop(0, 3, lambda i, x: layer(x, weights[i], B), x)))

    def scanned(x, weights):
        return jnp.sum(jnp.sin(lax.scan(lambda x, w: (layer(x, w, B), None), x, weights)[0]))

    def unrolled(x, weights):
        for w in weights:
            x = layer(x, w, B)
        return jnp.sum(jnp.sin(x))

    expected = jax.grad(unrolled, (0, 1))(jnp.asarray(X), jnp.asarray(weights))
    assert_close(jax.jit(jax.grad(looped, (0, 1)))(X, weights), expected)
    assert_close(jax.jit(jax.grad(scanned, (0, 1)))(X, weights), expected)


BRANCHES = (
    lambda x, w: jc.conv(x, w, padding="SAME"),
    lambda x, w: jc.conv(x, w, padding="SAME", dilation=2),
    lambda x, w: jc.max_pool(x, (3, 3), padding="SAME") * jnp.sum(w),
)


@pytest.mark.parametrize("branch", range(3))
def test_gradient_through_switch(branch):
    def f(x, w, index):
        return jnp.sum(jnp.sin(lax.switch(index, BRANCHES, x, w)))

    expected = jax.grad(lambda x, w: jnp.sum(jnp.sin(BRANCHES[branch](x, w))), (0, 1))(X, W)
    assert_close(jax.jit(jax.grad(f, (0, 1)))(X, W, branch), expected)


def test_cond_under_vmap():
    """A mapped predicate runs both branches and selects."""

    def f(x, sharp):
        y = lax.cond(sharp, lambda x: layer(x, W, B), lambda x: jc.avg_pool(x, (3, 3), padding="SAME"), x)
        return jnp.sum(jnp.sin(y))

    sharp = np.array([True, False])
    ours = jax.jit(jax.vmap(jax.grad(f)))(X[:, None], sharp)
    assert_close(ours, np.stack([jax.grad(f)(X[i, None], sharp[i]) for i in range(2)]))


# ------------------------------------------------------------------------------- compiling and its options


@pytest.mark.parametrize("shapes_only", [True, False])
def test_compiled_ahead_of_time(shapes_only):
    arguments = [jax.ShapeDtypeStruct(a.shape, a.dtype) if shapes_only else a for a in (X, W, B)]
    program = jax.jit(gradients).lower(*arguments).compile()
    assert_close(program(X, W, B), gradients(X, W, B))
    with pytest.raises(TypeError, match=r"float64\[1,6,7,4\]"):
        program(X[:1], W, B)


def test_a_donated_input_is_not_written_over_while_it_is_read():
    """A kernel reads neighbours of the elements that it writes, so y must not overwrite x too early."""
    f = jax.jit(partial(jax.lax.fori_loop, 0, 4, lambda _, x: layer(x, W, B)), donate_argnums=0)
    assert "input_output_alias" in f.lower(X).compile().as_text()
    x = jnp.asarray(X)
    expected = X
    for _ in range(4):
        expected = layer(expected, W, B)
    assert_close(f(x), expected)
    assert x.is_deleted()


def test_shapes_without_numbers():
    dx, dw, db = jax.eval_shape(gradients, X, W, B)
    assert [(a.shape, a.dtype) for a in (dx, dw, db)] == [(a.shape, a.dtype) for a in (X, W, B)]
