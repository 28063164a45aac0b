"""``gradient_flow``: which layers each library's parameters make, and their order in the forward pass."""

import equinox as eqx
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx
from flows import dot
from jax.sharding import NamedSharding, PartitionSpec

from jax_convgrad import conv, gradient_flow

RNG = np.random.default_rng(0)


IMAGES = RNG.standard_normal((4, 6, 6, 3)).astype(np.float32)
LABELS = np.array([0, 2, 1, 2])
BATCH = {"images": IMAGES, "labels": LABELS, "smoothing": 0.0}


def cross_entropy(logits, labels):
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def linen_model():
    class Model(linen.Module):
        @linen.compact
        def __call__(self, x):
            for _ in range(11):  # "Conv_10" is spelt before "Conv_2"
                x = linen.relu(linen.Conv(4, (3, 3))(x))
            return linen.Dense(3, name="Answer")(x.mean((1, 2)))

    model = Model()
    params = model.init(jax.random.key(0), IMAGES)
    names = [*(f"params/Conv_{i}" for i in range(11)), "params/Answer"]
    return (
        lambda params, batch: cross_entropy(model.apply(params, batch["images"]), batch["labels"]),
        params,
        names,
    )


def nnx_model():
    class Model(nnx.Module):
        def __init__(self, rngs):
            self.stem = nnx.Conv(3, 4, (3, 3), rngs=rngs)
            self.blocks = nnx.List([nnx.Conv(4, 4, (3, 3), rngs=rngs) for _ in range(2)])
            self.norm = nnx.BatchNorm(4, rngs=rngs)
            self.answer = nnx.Linear(4, 3, rngs=rngs)

        def __call__(self, x):
            x = self.stem(x)
            for block in self.blocks:
                x = nnx.relu(block(x))
            return self.answer(self.norm(x).mean((1, 2)))

    graph, params, rest = nnx.split(Model(nnx.Rngs(0)), nnx.Param, ...)

    def loss(params, batch):
        return cross_entropy(nnx.merge(graph, params, rest, copy=True)(batch["images"]), batch["labels"])

    return loss, params, ["stem", "blocks/0", "blocks/1", "norm", "answer"]


def equinox_model():
    class Model(eqx.Module):
        answer: eqx.nn.Linear
        convs: list
        activation: object
        dropout: eqx.nn.Dropout
        calls: jax.Array

        def __call__(self, x):
            x = jnp.moveaxis(x, -1, 0)
            for layer in self.convs:
                x = self.activation(layer(x))
            return self.answer(self.dropout(x, inference=True).mean((1, 2)))

    keys = jax.random.split(jax.random.key(0), 3)
    convs = [eqx.nn.Conv2d(3, 4, 3, key=keys[0]), eqx.nn.Conv2d(4, 4, 3, key=keys[1])]
    model = Model(eqx.nn.Linear(4, 3, key=keys[2]), convs, jax.nn.relu, eqx.nn.Dropout(0.5), jnp.array(3))
    model = jax.tree.map(lambda a: a.astype(jnp.float32) if eqx.is_inexact_array(a) else a, model)

    def loss(model, batch):
        return cross_entropy(jax.vmap(model)(batch["images"]), batch["labels"])

    return loss, model, ["convs/0", "convs/1", "answer"]


def haiku_model():
    def forward(x):
        x = jax.nn.relu(hk.Conv2D(4, 3, name="stem")(x))
        x = jax.nn.relu(hk.Conv2D(4, 3)(x))
        return hk.Linear(3, name="answer")(x.mean((1, 2)))

    model = hk.without_apply_rng(hk.transform(forward))
    params = model.init(jax.random.key(0), IMAGES)
    return (
        lambda params, batch: cross_entropy(model.apply(params, batch["images"]), batch["labels"]),
        params,
        ["stem", "conv2_d", "answer"],
    )


def flat_dict():
    params = {
        "w": jnp.asarray(RNG.standard_normal((3, 3, 3, 4)), jnp.float32),
        "b": jnp.zeros(4, jnp.float32),
        "answer": jnp.asarray(RNG.standard_normal((4, 3)), jnp.float32),
    }

    def loss(params, batch):
        x = conv(batch["images"], params["w"], params["b"], activation="relu")
        return cross_entropy(x.mean((1, 2)) @ params["answer"], batch["labels"])

    return loss, params, ["w", "b", "answer"]


MODELS = [flat_dict, linen_model, nnx_model, equinox_model, haiku_model]


@pytest.mark.parametrize("make", MODELS, ids=[make.__name__ for make in MODELS])
def test_layers_of_each_library(make):
    loss, params, names = make()
    report = gradient_flow(loss, params, BATCH, optimizer=optax.sgd(0.5, momentum=0.9))
    assert [layer.name for layer in report.layers] == names

    # Libraries agree that a gradient looks like the parameters; Equinox's takes a function for those.
    value, grads = (
        eqx.filter_value_and_grad(loss)(params, BATCH)
        if make is equinox_model
        else jax.value_and_grad(loss)(params, BATCH)
    )
    assert report.loss == pytest.approx(float(value), rel=1e-5)
    leaves = [np.float64(leaf) for leaf in jax.tree.leaves(grads)]
    assert sorted(row.size for row in report.parameters) == sorted(leaf.size for leaf in leaves)
    norms = sorted(np.linalg.norm(leaf) for leaf in leaves)
    assert sorted(row.gradient_norm for row in report.parameters) == pytest.approx(norms, rel=1e-4, abs=1e-7)
    for row in report.parameters:
        assert row.update_norm == pytest.approx(0.5 * row.gradient_norm, rel=1e-6)


def test_one_array_is_a_layer_too():
    report = gradient_flow(lambda w, x: jnp.sum(w * x), np.float32([1, 1]), np.float32([3, 4]))
    assert [(layer.name, layer.gradient_norm) for layer in report.layers] == [("params", 5)]


def test_what_is_no_parameter_reaches_the_loss_as_it_is():
    def loss(params, batch):
        assert params["times"] == 3 and isinstance(params["times"], int) and params["name"] == "x"
        noise = jax.random.uniform(params["key"], (2,), jnp.float32)
        return jnp.sum(params["w"] * (params["index"] + noise)) * params["times"]

    key = jax.random.key(5)
    params = {"w": np.float32([1, 1]), "index": np.array([1, 2]), "key": key, "times": 3, "name": "x"}
    report = gradient_flow(loss, params, None, optimizer=optax.adam(1e-3))
    assert [layer.name for layer in report.layers] == ["w"]
    expected = 3 * (np.array([1, 2]) + np.asarray(jax.random.uniform(key, (2,), jnp.float32)))
    assert report.layers[0].gradient_norm == pytest.approx(np.linalg.norm(expected), rel=1e-6)


def test_aux_is_dropped():
    report = gradient_flow(
        lambda p, b: (dot(p, b), {"logits": b}), [np.ones(2, np.float32)], [np.float32([3, 4])], has_aux=True
    )
    assert report.layers[0].gradient_norm == 5


def test_parameters_spread_over_devices():
    mesh = jax.make_mesh((8,), ("x",))
    g = RNG.standard_normal((16, 4)).astype(np.float32)
    p = jax.device_put(np.ones_like(g), NamedSharding(mesh, PartitionSpec("x")))
    report = gradient_flow(dot, [p], [g])
    assert report.layers[0].gradient_norm == pytest.approx(np.linalg.norm(g), rel=1e-6)


# ------------------------------------------------------------------------- the order of the forward pass


TWO = np.float32(2.0)


def in_order(loss, params, batch=TWO):
    return [layer.name for layer in gradient_flow(loss, params, batch).layers]


ABC = {"a": np.float32(0.5), "b": np.float32(0.25), "c": np.float32(2.0)}


def chain(p, x):
    return p["b"] * jnp.sin(p["a"] * jnp.sin(p["c"] * x))


@pytest.mark.parametrize(
    "transform", [lambda f: f, jax.jit, jax.checkpoint], ids=["plain", "jit", "checkpoint"]
)
def test_order_is_that_of_use(transform):
    assert in_order(transform(chain), ABC) == ["c", "a", "b"]


def test_what_parameters_do_among_themselves_does_not_count():
    def loss(p, x):
        penalty = sum(jnp.sum(value**2) for value in p.values())
        p = {name: p[name].astype(jnp.bfloat16) for name in "abc"}
        p["c"] = p["c"] / (1 + p["a"])
        return chain({**p, "a": jnp.bfloat16(1)}, x).astype(jnp.float32) + 1e-3 * penalty

    # a is in c's place: it meets the data through it.
    assert in_order(loss, ABC) == ["a", "c", "b"]


def test_what_never_meets_the_data_comes_last():
    assert in_order(lambda p, x: p["c"] * x + 0 * p["a"], ABC) == ["c", "a", "b"]


def test_order_through_custom_derivatives_and_branches():
    @jax.custom_vjp
    def double(w, x):
        return w * x * 2

    double.defvjp(lambda w, x: (double(w, x), (w, x)), lambda kept, dy: (dy * 2 * kept[1], dy * 2 * kept[0]))

    def loss(p, x):
        x = jax.lax.cond(x > 0, lambda p, x: double(p["c"], x), lambda p, x: x * p["b"], p, x)
        return p["a"] * x

    assert in_order(loss, ABC) == ["b", "c", "a"]  # the branches in JAX's order, then what follows


def test_stacked_layers_come_in_the_stacks_order():
    blocks = [{"first": {"w": np.float32(i)}, "second": {"w": np.float32(1)}} for i in range(12)]
    params = {"blocks": blocks, "end": np.float32(1)}

    def loss(params, x):
        def turn(x, block):
            return block["second"]["w"] * jnp.sin(block["first"]["w"] * x), None

        x, _ = jax.lax.scan(turn, x, jax.tree.map(lambda *leaves: jnp.stack(leaves), *params["blocks"]))
        return params["end"] * x

    names = [f"blocks/{i}/{name}" for i in range(12) for name in ("first", "second")]
    assert in_order(loss, params) == [*names, "end"]


def test_order_in_the_turns_of_a_loop():
    def loss(p, x):
        return jax.lax.fori_loop(0, 3, lambda _, x: chain(p, x), x)  # a scan, since its bounds are known

    assert in_order(loss, ABC) == ["c", "a", "b"]
