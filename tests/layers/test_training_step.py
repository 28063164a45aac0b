"""Compares a jitted Adam step of a small CNN with lax, and with itself under JAX's transformations."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

import jax_convgrad as jc

NHWC = ("NHWC", "HWIO", "NHWC")
STEPS = 5
OPTIMIZER = optax.adam(3e-3)

IMAGES = np.random.default_rng(0).standard_normal((8, 8, 8, 3)).astype(np.float32)
LABELS = np.arange(8) % 5


def lax_conv(x, w, b, stride=1):
    y = lax.conv_general_dilated(
        x, w, (stride, stride), "SAME", dimension_numbers=NHWC, precision=lax.Precision.HIGHEST
    )
    return jax.nn.relu(y + b)


def lax_pool(x):
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")


def our_conv(x, w, b, stride=1):
    return jc.conv(x, w, b, stride=stride, padding="SAME", activation="relu", precision=lax.Precision.HIGHEST)


def our_pool(x):
    return jc.max_pool(x, (2, 2), (2, 2))


def new_params():
    random = np.random.default_rng(1)

    def layer(*shape):
        scale = np.sqrt(2 / np.prod(shape[:-1]))
        return {
            "w": jnp.asarray(scale * random.standard_normal(shape), jnp.float32),
            "b": jnp.zeros(shape[-1], jnp.float32),
        }

    return {"first": layer(3, 3, 3, 8), "second": layer(3, 3, 8, 10), "last": layer(10, 5)}


def loss_of(conv, pool, params, images, labels):
    x = pool(conv(images, **params["first"]))
    x = conv(x, **params["second"], stride=2)
    logits = jnp.mean(x, (1, 2)) @ params["last"]["w"] + params["last"]["b"]
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))


our_loss = partial(loss_of, our_conv, our_pool)
lax_loss = partial(loss_of, lax_conv, lax_pool)


def step_of(loss):
    def step(params, state):
        value, gradient = jax.value_and_grad(loss)(params, IMAGES, LABELS)
        updates, state = OPTIMIZER.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, value

    return step


def train(step):
    params = new_params()
    state, losses = OPTIMIZER.init(params), []
    for _ in range(STEPS):
        params, state, loss = step(params, state)
        losses.append(float(loss))
    return params, np.array(losses)


def assert_trees_close(ours, others, **tolerance):
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(others), strict=True):
        np.testing.assert_allclose(a, b, **tolerance)


def test_losses_are_lax_losses(backend):
    params, losses = train(jax.jit(step_of(our_loss)))
    lax_params, lax_losses = train(jax.jit(step_of(lax_loss)))
    assert lax_losses[-1] < lax_losses[0] - 0.02, "the steps teach nothing"
    np.testing.assert_allclose(losses, lax_losses, rtol=2e-6)
    # Adam divides by the gradient's size, so it does not reduce the rounding of a gradient near 0.
    assert_trees_close(params, lax_params, rtol=0, atol=1e-4)


def test_gradient_is_lax_gradient(backend):
    params = new_params()
    ours = jax.jit(jax.grad(our_loss))(params, IMAGES, LABELS)
    laxs = jax.jit(jax.grad(lax_loss))(params, IMAGES, LABELS)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(laxs), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=4e-6 * np.abs(b).max())


@pytest.fixture(scope="module")
def plain(backend):
    return train(jax.jit(step_of(our_loss)))


def test_donated_arguments(plain):
    params, losses = train(jax.jit(step_of(our_loss), donate_argnums=(0, 1)))
    np.testing.assert_array_equal(losses, plain[1])
    assert_trees_close(params, plain[0], rtol=0, atol=0)


def test_scan_over_steps(plain):
    @jax.jit
    def run(params, state):
        def body(carry, _):
            params, state, loss = step_of(our_loss)(*carry)
            return (params, state), loss

        return lax.scan(body, (params, state), length=STEPS)

    params = new_params()
    (params, _), losses = run(params, OPTIMIZER.init(params))
    np.testing.assert_allclose(losses, plain[1], rtol=2e-6)
    assert_trees_close(params, plain[0], rtol=0, atol=1e-4)


def test_checkpoint(plain):
    _, losses = train(jax.jit(step_of(jax.checkpoint(our_loss))))
    np.testing.assert_allclose(losses, plain[1], rtol=2e-6)

    def conv(x, w, b, stride=1):
        return jax.checkpoint(partial(our_conv, stride=stride))(x, w, b)

    layer_by_layer = partial(loss_of, conv, jax.checkpoint(our_pool))
    _, losses = train(jax.jit(step_of(layer_by_layer)))
    np.testing.assert_allclose(losses, plain[1], rtol=2e-6)
