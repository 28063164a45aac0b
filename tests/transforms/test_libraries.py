"""A training step of a small model of each library gives the same parameters on lax and on our kernels.

The kernels are used in each possible way: passed to the layer (Flax), with `replace_convolutions` around the
step, and with `install()`. The libraries are the extra `libraries`, which `test` includes: if one is missing,
its tests fail.
"""

import os
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

import jax_convgrad as jc
from jax_convgrad.primitives import ffi

IMAGES = np.random.default_rng(0).standard_normal((4, 9, 8, 3)).astype(np.float32)
LABELS = np.array([0, 3, 1, 3])
OPTIMIZER = optax.sgd(0.1, momentum=0.9)


class Step(NamedTuple):
    """A function of the parameters that returns new parameters and the loss."""

    function: Callable[[Any], Any]
    params: Any


def training_step(loss, params):
    """A training step with momentum, from parameters to parameters."""

    def step(params):
        value, grads = jax.value_and_grad(loss)(params)
        updates, _ = OPTIMIZER.update(grads, OPTIMIZER.init(params))
        return optax.apply_updates(params, updates), value

    return Step(step, params)


def cross_entropy(logits):
    return optax.softmax_cross_entropy_with_integer_labels(logits, LABELS).mean()


# -------------------------------------------------------- the models: strided, depthwise, dilated, transposed


def flax_linen(conv=None):
    from flax import linen as nn

    inject = {} if conv is None else {"conv_general_dilated": conv}

    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.relu(nn.Conv(6, (3, 3), strides=2, **inject)(x))
            x = nn.relu(
                nn.Conv(6, (3, 2), feature_group_count=6, padding="VALID", use_bias=False, **inject)(x)
            )
            x = nn.relu(nn.Conv(5, (2, 2), kernel_dilation=2, padding=((2, 1), (0, 2)), **inject)(x))
            x = nn.Conv(5, (3, 3), padding="CIRCULAR", precision="highest", **inject)(x)
            if conv is None:  # this layer has no argument for it
                x = nn.ConvTranspose(4, (3, 3), strides=(2, 2))(nn.relu(x))
            return nn.Dense(4)(x.mean((1, 2)))

    model = Model()
    params = model.init(jax.random.key(0), IMAGES)
    return training_step(lambda params: cross_entropy(model.apply(params, IMAGES)), params)


def flax_nnx(conv=None):
    from flax import nnx

    inject = {} if conv is None else {"conv_general_dilated": conv}

    class Model(nnx.Module):
        def __init__(self, rngs):
            self.strided = nnx.Conv(3, 6, (3, 3), strides=2, rngs=rngs, **inject)
            self.depthwise = nnx.Conv(
                6, 6, (3, 2), feature_group_count=6, padding="VALID", rngs=rngs, **inject
            )
            self.dilated = nnx.Conv(
                6,
                5,
                (2, 2),
                kernel_dilation=2,
                padding=((2, 1), (0, 2)),
                preferred_element_type=jnp.float32,
                rngs=rngs,
                **inject,
            )
            if conv is None:
                self.transposed = nnx.ConvTranspose(5, 5, (3, 3), strides=(2, 2), rngs=rngs)
            self.linear = nnx.Linear(5, 4, rngs=rngs)

        def __call__(self, x):
            x = nnx.relu(self.depthwise(nnx.relu(self.strided(x))))
            x = nnx.relu(self.dilated(x))
            if conv is None:
                x = self.transposed(x)
            return self.linear(x.mean((1, 2)))

    graph, params = nnx.split(Model(nnx.Rngs(0)))
    return training_step(lambda params: cross_entropy(nnx.merge(graph, params)(IMAGES)), params)


def equinox():
    import equinox as eqx

    class Model(eqx.Module):
        layers: list

        def __init__(self, key):
            keys = jax.random.split(key, 5)
            self.layers = [
                eqx.nn.Conv2d(3, 6, 3, stride=2, padding=1, dtype=jnp.float32, key=keys[0]),
                jax.nn.relu,
                eqx.nn.Conv2d(6, 6, (3, 2), groups=6, dtype=jnp.float32, key=keys[1]),
                jax.nn.relu,
                eqx.nn.Conv2d(6, 5, 2, dilation=2, padding=2, dtype=jnp.float32, key=keys[2]),
                eqx.nn.ConvTranspose2d(5, 4, 3, stride=2, dtype=jnp.float32, key=keys[3]),
                lambda x: x.mean((1, 2)),
                eqx.nn.Linear(4, 4, dtype=jnp.float32, key=keys[4]),
            ]

        def __call__(self, x):
            for layer in self.layers:
                x = layer(x)
            return x

    params, rest = eqx.partition(Model(jax.random.key(0)), eqx.is_inexact_array)

    def loss(params):
        return cross_entropy(jax.vmap(eqx.combine(params, rest))(IMAGES.transpose(0, 3, 1, 2)))

    return training_step(loss, params)


def haiku():
    import haiku as hk

    @hk.without_apply_rng
    @hk.transform
    def model(x):
        x = jax.nn.relu(hk.Conv2D(6, 3, stride=2)(x))
        x = jax.nn.relu(hk.DepthwiseConv2D(1, (3, 2), padding="VALID")(x))
        x = jax.nn.relu(hk.Conv2D(5, 2, rate=2)(x))
        x = hk.Conv2DTranspose(4, 3, stride=2)(x)
        return hk.Linear(4)(x.mean((1, 2)))

    params = model.init(jax.random.key(0), IMAGES)
    return training_step(lambda params: cross_entropy(model.apply(params, IMAGES)), params)


@pytest.fixture(scope="session")
def keras(tmp_path_factory):
    """The module Keras, which reads its backend once, when it is imported, and writes into its own folder."""
    os.environ["KERAS_BACKEND"] = "jax"
    os.environ["KERAS_HOME"] = str(tmp_path_factory.mktemp("keras"))
    import keras

    assert keras.backend.backend() == "jax"
    return keras


def keras_model(keras):
    keras.utils.set_random_seed(0)
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input(IMAGES.shape[1:]),
            layers.Conv2D(6, 3, strides=2, padding="same", activation="relu"),
            layers.DepthwiseConv2D((3, 2), activation="relu"),
            layers.SeparableConv2D(5, 2, dilation_rate=2, padding="same"),
            layers.Conv2DTranspose(4, 3, strides=2, padding="same"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(4),
        ]
    )


def keras_step(keras):
    model = keras_model(keras)

    def loss(params):
        return cross_entropy(model.stateless_call(params, [], IMAGES)[0])

    return training_step(loss, [variable.value for variable in model.trainable_variables])


# -------------------------------------------------------------------------------------------------- the tests


def run(step, ours):
    """Parameters and loss after the step, which contains either our convolutions or lax's, never both."""
    lowered = jax.jit(step.function).lower(step.params)
    text = lowered.as_text()
    assert ("stablehlo.convolution" in text) is not ours
    for name in ("fprop", "dgrad", "wgrad"):
        assert (f"@jax_convgrad_{name}" in text) is ours
    return lowered.compile()(step.params)


def assert_same_step(ours, theirs, params):
    """Asserts that parameters are equal within float32's rounding, and that every one has changed."""
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6)
    for before, after in zip(jax.tree.leaves(params), jax.tree.leaves(ours[0]), strict=True):
        assert np.abs(np.asarray(after) - np.asarray(before)).max() > 1e-5


@pytest.fixture(autouse=True)
def _uninstalled():
    yield
    jc.uninstall()


@pytest.fixture(params=[flax_linen, flax_nnx, equinox, haiku, keras_step], ids=lambda f: f.__name__)
def step(request):
    if request.param is keras_step:
        return keras_step(request.getfixturevalue("keras"))
    return request.param()


def test_replaced(step):
    ours = run(Step(jc.replace_convolutions(step.function), step.params), ours=True)
    assert_same_step(ours, run(step, ours=False), step.params)


def test_installed(step):
    theirs = run(step, ours=False)
    jc.install()
    assert_same_step(run(step, ours=True), theirs, step.params)


@pytest.mark.parametrize("model", [flax_linen, flax_nnx], ids=lambda f: f.__name__)
def test_handed_to_the_layer(model):
    step = model(jc.conv_general_dilated)
    theirs = model(lax.conv_general_dilated)
    assert_same_step(run(step, ours=True), run(theirs, ours=False), step.params)


def test_keras_trains_unchanged_where_installed(keras, monkeypatch):
    """Keras compiles its own step, which only `install()` can change."""
    calls = []
    wgrad = ffi.wgrad
    monkeypatch.setattr(ffi, "wgrad", lambda *args: calls.append(args) or wgrad(*args))

    def trained():
        model = keras_model(keras)
        before = model.get_weights()
        model.compile(
            optimizer=keras.optimizers.SGD(0.1, momentum=0.9),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )
        losses = [model.train_on_batch(IMAGES, LABELS) for _ in range(2)]
        return (model.get_weights(), losses), before

    theirs, before = trained()
    assert not calls
    jc.install()
    ours, _ = trained()
    assert len(calls) == 5  # one for each filter, when the step is compiled
    assert_same_step(
        jax.tree.map(np.asarray, ours), jax.tree.map(np.asarray, theirs), jax.tree.map(np.asarray, before)
    )
