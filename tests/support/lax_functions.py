"""Functions with one of lax's convolutions deep inside, and ways to transform them."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

RANDOM = np.random.default_rng(4)
X = jnp.asarray(RANDOM.standard_normal((2, 5, 4, 3)))
W = jnp.asarray(RANDOM.standard_normal((3, 2, 3, 3)))


def conv(x, w, stride=(1, 1)):
    return lax.conv_general_dilated(x, w, stride, "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def layer(x, w):
    return conv(x, w, (2, 1))


def jitted(x, w):
    return jax.jit(lambda x: jax.jit(partial(conv, stride=(1, 2)))(x, w))(x) + conv(x, w)[:, :, ::2]


def scanned(x, w):
    return lax.scan(lambda x, s: (jnp.tanh(conv(x, s * w)), jnp.sum(x)), x, jnp.arange(1.0, 4.0))


def in_while(x, w):
    """A function without a reverse-mode gradient, because a while loop has none."""
    return lax.while_loop(
        lambda c: jnp.sum(conv(c[1], w)) < 1e3 * c[0], lambda c: (c[0] - 1, conv(c[1], w)), (3.0, x)
    )


def in_fori(x, w):
    return lax.fori_loop(0, 3, lambda i, x: jnp.sin(conv(x, w)), x)


def in_cond(x, w):
    return lax.cond(jnp.sum(x) > 0, lambda x: conv(x, w), lambda x: 2 * conv(conv(x, w), w), x)


def in_switch(x, w):
    branches = [lambda x: x, lambda x: conv(x, w), lambda x: conv(x, w**2)]
    return lax.switch(jnp.argmax(jnp.array([0.0, 3.0, jnp.sum(w)])), branches, x)


def checkpointed(x, w):
    return jax.checkpoint(lambda x: jnp.sin(conv(jnp.sin(conv(x, w)), w)))(x)


def checkpointed_by_policy(x, w):
    policy = jax.checkpoint_policies.nothing_saveable
    return jax.checkpoint(lambda x: jnp.sin(conv(jnp.sin(conv(x, w)), w)), policy=policy)(x)


@jax.custom_vjp
def scaled(x, w):
    return conv(x, w)


def _scaled_fwd(x, w):
    return conv(x, 2 * w), (x, w)


def _scaled_bwd(kept, dy):
    x, w = kept
    return 3 * conv(dy, jnp.flip(w, (0, 1)).swapaxes(2, 3)), jnp.sum(conv(x, w) * dy) * w


scaled.defvjp(_scaled_fwd, _scaled_bwd)


def with_custom_vjp(x, w):
    return scaled(x, w) + jax.jit(scaled)(conv(x, w), w)


def scanned_custom_vjp(x, w):
    return lax.scan(lambda x, _: (jnp.tanh(scaled(x, w)), None), x, length=2)[0]


@jax.custom_jvp
def bent(x, w):
    return jnp.sin(conv(x, w))


@bent.defjvp
def _bent_jvp(primals, tangents):
    (x, w), (dx, dw) = primals, tangents
    return bent(x, w), 2 * conv(dx, w) + conv(x, dw) * conv(x, w)


def with_custom_jvp(x, w):
    return bent(x, w) + jax.jit(bent)(conv(x, w), w)


def mapped(x, w):
    """A function with vmap over x, over w and over both."""
    ws = jnp.stack([w, 2 * w])
    xs = jnp.stack([x, x**2])
    return (
        jax.vmap(conv, (1, None))(xs.swapaxes(0, 1), w),
        jax.vmap(conv, (None, 0))(x, ws),
        jax.vmap(conv)(xs, ws),
    )


def with_gradient_inside(x, w):
    """A function that contains lax's own gradients already, like a whole training step."""
    return jax.grad(lambda w: jnp.sum(jnp.sin(conv(jnp.tanh(conv(x, w, (2, 1))), w))))(w)


def per_example_gradients(x, w):
    return jax.vmap(jax.grad(lambda w, x: jnp.sum(jnp.sin(conv(x[None], w)))), (None, 0))(w, x)


def with_hessian_inside(x, w):
    return jax.hessian(lambda w: jnp.sum(jnp.sin(conv(x[:1, :2, :2], w[:2]))))(w)


FUNCTIONS = {
    f.__name__: f
    for f in (
        layer,
        jitted,
        scanned,
        in_while,
        in_fori,
        in_cond,
        in_switch,
        checkpointed,
        checkpointed_by_policy,
        with_custom_vjp,
        scanned_custom_vjp,
        with_custom_jvp,
        mapped,
        with_gradient_inside,
        per_example_gradients,
        with_hessian_inside,
    )
}


def scalar(f):
    return lambda x, w: sum(jnp.sum(jnp.sin(leaf)) for leaf in jax.tree.leaves(f(x, w)))


def value(f):
    return f


def gradient(f):
    return jax.grad(scalar(f), (0, 1))


def jitted_gradient(f):
    """The gradient under `jit`, so that custom rules run long after the function itself."""
    return jax.grad(jax.jit(scalar(f)), (0, 1))


def directional(f):
    return lambda x, w: jax.jvp(f, (x, w), (jnp.cos(x), jnp.sin(w)))


def mapped_gradient(f):
    return lambda x, w: jax.vmap(gradient(f))(jnp.stack([x, 2 * x]), jnp.stack([w, -w]))


WAYS = {f.__name__: f for f in (value, gradient, jitted_gradient, directional, mapped_gradient)}
NO_SUCH_DERIVATIVE = {
    # As in JAX, a while loop has no reverse-mode derivative and a function with a custom_vjp no forward mode.
    "gradient": {"in_while"},
    "jitted_gradient": {"in_while"},
    "mapped_gradient": {"in_while"},
    "directional": {"with_custom_vjp", "scanned_custom_vjp"},
}


def assert_same(ours, theirs):
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        scale = max(1, np.abs(b).max())
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10 * scale)
