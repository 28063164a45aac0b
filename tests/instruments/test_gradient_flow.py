"""``gradient_flow``: NumPy's numbers on gradients that are known beforehand, and what is made of them.

Where a loss is Σ p·g over the parameters p and the arrays g of the batch, its gradient is g to the bit.
"""

import gc
import math
import subprocess
import sys
import weakref

import equinox as eqx
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx
from jax.sharding import NamedSharding, PartitionSpec

from jax_convgrad import FlowReport, conv, gradient_flow

RNG = np.random.default_rng(0)


def dot(params, batch):
    """The loss whose gradient is the batch."""
    return sum(
        jnp.sum(p * g).real.astype(jnp.float32)
        for p, g in zip(jax.tree.leaves(params), jax.tree.leaves(batch), strict=True)
    )


def flow_of(*gradients, **options):
    """The report of a network whose layers, "0", "1" and so on, have these gradients, and weights of 2."""
    gradients = [np.asarray(g) for g in gradients]
    return gradient_flow(dot, [np.full_like(g, 2) for g in gradients], gradients, **options)


# ------------------------------------------------------------------------------------------- the numbers


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "float16", "complex64", "complex128"])
@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e30])
def test_numbers_are_numpys(dtype, scale):
    if dtype == "float16" and scale != 1:
        scale = 6e-8 if scale < 1 else 6e4 / 4  # the ends of its range
    values = RNG.uniform(-4, 4, (3, 50)) * scale
    if "complex" in dtype:
        values = values + 1j * RNG.uniform(-4, 4, (3, 50)) * scale
    values[0, :20] = 0
    weights = {"layer": {"a": jnp.ones((2, 5), dtype), "b": jnp.ones(140, dtype)}}
    flat = jnp.asarray(values.reshape(-1)).astype(dtype)
    batch = {"layer": {"a": flat[:10].reshape(2, 5), "b": flat[10:]}}

    report = gradient_flow(dot, weights, batch, learning_rate=0.25)

    exact = np.abs(np.asarray(flat).astype(np.complex128))
    (layer,) = report.layers
    tolerance = 1e-14 if dtype in ("float64", "complex128") else 3e-6
    np.testing.assert_allclose(layer.gradient_norm, np.linalg.norm(exact), rtol=tolerance)
    np.testing.assert_allclose(layer.gradient_mean, exact.mean(), rtol=tolerance)
    np.testing.assert_allclose(layer.gradient_max, exact.max(), rtol=tolerance)
    np.testing.assert_allclose(layer.weight_norm, math.sqrt(150), rtol=tolerance)
    np.testing.assert_allclose(
        layer.update_ratio, 0.25 * np.linalg.norm(exact) / math.sqrt(150), rtol=tolerance
    )
    assert layer.zeros == np.sum(exact == 0) >= 20
    assert layer.zero_share == layer.zeros / 150
    assert (layer.size, layer.nonfinite, layer.name) == (150, 0, "layer")
    first, second = report.parameters
    assert (first.name, first.layer, first.shape, first.dtype) == ("layer/a", "layer", (2, 5), dtype)
    assert (second.zeros, second.size) == (np.sum(exact[10:] == 0), 140)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_sums_that_the_dtype_cannot_hold(dtype):
    top = float(jnp.finfo(dtype).max)
    report = flow_of(np.full((100, 100), top, jnp.dtype(dtype)))
    assert report.layers[0].gradient_norm == pytest.approx(100 * top, rel=1e-6)
    assert report.layers[0].gradient_mean == pytest.approx(top, rel=1e-6)
    assert report.layers[0].nonfinite == 0


def test_a_long_array_is_summed_without_losing_its_end():
    # Added up one after the other in float32, ones come to no more than 2**24.
    report = flow_of(np.ones(2**24 + 2**22, np.float32))
    assert report.layers[0].gradient_norm == pytest.approx(math.sqrt(2**24 + 2**22), rel=1e-6)


def test_an_array_without_elements():
    report = flow_of(np.ones((0, 3), np.float32), np.ones(2, np.float32))
    assert (report.layers[0].gradient_norm, report.layers[0].gradient_mean) == (0, 0)
    assert (report.layers[0].zero_share, report.layers[0].verdict) == (0, "")


def test_the_loss_is_told():
    assert flow_of(np.array([1.5, 2], np.float32)).loss == 7.0


# ------------------------------------------------------------------------------------------ the update


def test_without_a_learning_rate_it_is_one():
    g = np.array([3.0, 4.0], np.float32)
    assert flow_of(g).layers[0].update_norm == 5
    assert flow_of(g, learning_rate=jnp.float32(0.5)).layers[0].update_norm == 2.5


def test_weights_of_zero():
    batch = [np.float32([3, 4]), np.float32([0, 0])]
    report = gradient_flow(dot, [np.zeros(2, np.float32)] * 2, batch)
    assert report.layers[0].update_ratio == math.inf
    assert math.isnan(report.layers[1].update_ratio)
    assert [row[7] for row in report.table().rows] == ["-", "-"]


@pytest.mark.parametrize("steps", [0, 3])
def test_the_step_is_the_optimizers(steps):
    optimizer = optax.adamw(1e-2, weight_decay=0.1)
    params = {"a": jnp.asarray(RNG.standard_normal(7), jnp.float32), "b": jnp.full((2, 2), 3.0, jnp.bfloat16)}
    batch = {"a": jnp.asarray(RNG.standard_normal(7), jnp.float32), "b": jnp.full((2, 2), 1e-3, jnp.bfloat16)}
    state = optimizer.init(params)
    for scale in range(steps):
        _, state = optimizer.update(jax.tree.map(lambda g, s=scale: g * s, batch), state, params)

    report = gradient_flow(dot, params, batch, optimizer=optimizer, opt_state=state if steps else None)

    updates, _ = optimizer.update(batch, state, params)
    for layer in report.layers:
        update = np.linalg.norm(np.float64(updates[layer.name]))
        assert layer.update_norm == pytest.approx(update, rel=1e-5)
        weight = np.linalg.norm(np.float64(params[layer.name]))
        assert layer.update_ratio == pytest.approx(update / weight, rel=1e-5)
    assert ("newly begun" in str(report)) == (steps == 0)


def test_any_object_with_init_and_update_is_an_optimizer():
    class Halve:
        def init(self, params):
            return jax.tree.map(lambda p: 0.5, params)

        def update(self, gradients, state, params=None):
            return jax.tree.map(lambda g, half: g * half, gradients, state), state

    assert flow_of(np.float32([3, 4]), optimizer=Halve()).layers[0].update_norm == 2.5


# ------------------------------------------------------------------------------------- layers, by library

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


# ---------------------------------------------------------------------------- the order of the forward pass


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


# ------------------------------------------------------------------------------------- what is made of them


def ones(*norms):
    return [np.full(1, norm, np.float32) for norm in norms]


@pytest.mark.parametrize(
    ("norms", "verdicts", "fall"),
    [
        ((1.0, 0.1, 10.0, 1.0), ["", "", "", ""], (1 / 10) ** (1 / 2)),
        ((0.9e-4, 1.1e-4, 0.1, 1e-3), ["vanishing", "", "", ""], (0.9e-3) ** (1 / 2)),
        ((0.9e-4, 1.1e-4, 1e-9, 0.1), ["vanishing", "", "vanishing", ""], (0.9e-3) ** (1 / 3)),
        ((1.1e4, 0.9e4, 1.0, 10.0), ["exploding", "", "", ""], 1.1e3 ** (1 / 3)),
        ((0.0, 1.0, 1.0), ["dead", "", ""], math.nan),
        ((1.0, 0.0, 0.0), ["", "dead", "dead"], math.nan),
        ((1.0, np.nan, 1.0), ["", "not finite", ""], 1.0),
        ((np.inf, 1e-5, 1.0), ["not finite", "vanishing", ""], math.nan),
        ((1.0, 1e-6, np.inf), ["exploding", "", "not finite"], 1e6),
        ((1.0, np.inf, np.nan), ["", "not finite", "not finite"], math.nan),
        ((3.0,), [""], math.nan),
    ],
)
def test_verdicts(norms, verdicts, fall):
    report = flow_of(*ones(*norms))
    assert [layer.verdict for layer in report.layers] == verdicts
    assert report.fall == pytest.approx(fall, rel=1e-5, nan_ok=True)
    text = report.summary()
    for verdict in ("dead", "vanishing", "exploding", "not finite"):
        assert (f"\n{verdict} (" in text) == (verdict in verdicts)


def test_dead_from_99_percent_of_zeros_on():
    gradients = [np.zeros(1000, np.float32) for _ in range(2)]
    gradients[0][:11], gradients[1][:10] = 1, 1
    report = flow_of(*gradients)
    assert [layer.zero_share for layer in report.layers] == [0.989, 0.99]
    assert [layer.verdict for layer in report.layers] == ["", "dead"]


def test_not_finite_numbers_stay_visible():
    g = [np.float32([1, np.inf, -np.inf, 0]), np.float32([np.nan, np.inf, 1, 1]), np.float32([1, 1, 1, 1])]
    report = gradient_flow(dot, {"l": g, "m": g[2]}, {"l": g, "m": g[2]})
    a, b, c, _ = report.parameters
    assert (a.nonfinite, a.zeros, a.gradient_norm, a.gradient_max) == (2, 1, math.inf, math.inf)
    assert b.nonfinite == 2 and math.isnan(b.gradient_norm) and math.isnan(b.gradient_max)
    assert (c.nonfinite, c.gradient_norm) == (0, 2)
    layer = report.layers[0]
    assert layer.nonfinite == 4 and math.isnan(layer.gradient_norm) and math.isnan(layer.gradient_max)
    assert report.table().rows[0][2] == "nan"


def test_by_parameter_each_array_is_a_row():
    g = {"conv": {"w": np.float32([3, 4]), "b": np.float32([12])}, "end": np.float32([1])}
    report = gradient_flow(dot, g, g)
    assert [(row.name, row.gradient_norm) for row in report.layers] == [("conv", 13), ("end", 1)]
    rows = report.by_parameter().layers
    assert [(row.name, row.gradient_norm) for row in rows] == [("conv/b", 12), ("conv/w", 5), ("end", 1)]


def test_the_text():
    gradients = ones(2e-5, 0.5, 1.0)
    gradients[1] = np.float32([0.3, 0, 0.4])
    lines = str(flow_of(*gradients, learning_rate=0.1)).splitlines()
    assert lines == [
        "layer  size       ‖g‖  mean |g|   max |g|   zeros       ‖w‖  ‖Δw‖/‖w‖  verdict",
        "0         1  2.00e-05  2.00e-05  2.00e-05     0 %  2.00e+00  1.00e-06  vanishing",
        "1         3  5.00e-01  2.33e-01  4.00e-01  33.3 %  3.46e+00  1.44e-02",
        "2         1  1.00e+00  1.00e+00  1.00e+00     0 %  2.00e+00  5.00e-02",
        "",
        "loss 3.40004; Δw is the step of gradient descent with learning rate 0.1",
        "‖g‖ goes from 1.00e+00 in 2 back to 2.00e-05 in 0, by a factor of 0.00447 a layer",
        "vanishing (‖g‖ below a thousandth of 2's): 0",
    ]


def test_at_a_prompt_and_in_a_notebook():
    report = flow_of(*ones(1e-9, 1))
    assert repr(report) == str(report)
    html = report._repr_html_()
    assert html.startswith("<table>") and html.count("<tr>") == 3
    assert "<p>vanishing (‖g‖ below a thousandth of 1&#x27;s): 0</p>" in html


def test_one_zero_among_many_is_not_rounded_away():
    g = np.ones(10**5, np.float32)
    g[0] = 0
    assert flow_of(g).table().rows[0][5] == "0.1 %"
    assert flow_of(1 - g).table().rows[0][5] == "99.9 %"


# ------------------------------------------------------------------------------------------------ compiling


def test_a_function_that_is_not_jitted_is_read_anew():
    scale = {"now": 1.0}

    def loss(params, batch):
        return dot(params, batch) * scale["now"]

    params, batch = [np.ones(2, np.float32)], [np.float32([3, 4])]
    assert gradient_flow(loss, params, batch).layers[0].gradient_norm == 5
    scale["now"] = 2.0
    assert gradient_flow(loss, params, batch).layers[0].gradient_norm == 10


def test_a_jitted_function_is_compiled_once_and_not_kept_alive():
    traces = []

    @jax.jit
    def loss(params, batch):
        traces.append(1)
        return dot(params, batch)

    params = [np.ones(3, np.float32)]
    optimizer = optax.adam(1e-3)
    for value in (1, 2, 3):
        for options in ({}, {"optimizer": optimizer}):
            report = gradient_flow(loss, params, [np.full(3, value, np.float32)], **options)
            assert report.layers[0].gradient_max == value
    assert len(traces) == 1
    with jax.log_compiles():
        gradient_flow(loss, [np.ones(4, np.float32)], [np.ones(4, np.float32)])
    assert len(traces) == 2  # another shape

    kept = weakref.ref(loss)
    del loss, report
    jax.clear_caches()
    gc.collect()
    assert kept() is None


def test_neither_optax_nor_matplotlib_is_imported():
    code = (
        "import sys, jax.numpy as jnp, jax_convgrad as jc\n"
        "print(jc.gradient_flow(lambda w, x: jnp.sum(w * x), jnp.ones(2), jnp.ones(2), learning_rate=0.1))\n"
        "sys.exit(sum(name in sys.modules for name in ('optax', 'matplotlib', 'flax')))"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("layer ")


# ----------------------------------------------------------------------------------------------- bad input

W, X = [np.ones(2, np.float32)], [np.ones(2, np.float32)]


@pytest.mark.parametrize(
    ("loss", "options", "error", "message"),
    [
        (3, {}, TypeError, r"loss_fn must be a function \(params, \.\.\.\) -> loss, not 3"),
        (lambda p, b: p[0], {}, ValueError, r"must return a scalar, but returned an array of shape \(2,\)"),
        (lambda p, b: p[0].sum() * 1j, {}, TypeError, "real floating-point number, but returned complex"),
        (lambda p, b: jnp.argmax(p[0]), {}, TypeError, "real floating-point number, but returned int"),
        (lambda p, b: None, {}, TypeError, "loss_fn must return a scalar array, not None"),
        (lambda p, b: {"loss": 1.0}, {}, TypeError, "must return a scalar array, not a value of type dict"),
        (lambda p, b: (p[0].sum(), b), {}, TypeError, "pass has_aux=True"),
        (
            lambda p, b: p[0].sum(),
            {"has_aux": True},
            TypeError,
            r"\(loss, aux\) with has_aux, not an array of shape",
        ),
        (dot, {"learning_rate": -1}, ValueError, "learning_rate must be finite and not negative, but is -1"),
        (dot, {"learning_rate": math.nan}, ValueError, "learning_rate must be finite"),
        (dot, {"learning_rate": "fast"}, TypeError, "learning_rate must be a number, not 'fast'"),
        (dot, {"learning_rate": lambda step: 0.1}, TypeError, "of a schedule, pass its value at this step"),
        (dot, {"learning_rate": 1.0, "optimizer": optax.sgd(1.0)}, ValueError, "learning_rate and optimizer"),
        (dot, {"optimizer": "adam"}, TypeError, "optimizer must have the methods init and update"),
        (dot, {"opt_state": 1}, ValueError, "opt_state is given without the optimizer"),
    ],
)
def test_bad_arguments_are_named(loss, options, error, message):
    with pytest.raises(error, match=message):
        gradient_flow(loss, W, X, **options)


@pytest.mark.parametrize("params", [[], None, {"n": 3, "scale": 2.0}, [np.arange(3)]])
def test_no_parameters(params):
    with pytest.raises(ValueError, match="params holds no floating-point or complex array"):
        gradient_flow(lambda p, b: 1.0, params, X)


def test_a_state_of_other_parameters_is_told():
    optimizer = optax.adam(1e-3)
    with pytest.raises((TypeError, ValueError)) as caught:  # the optimizer's own error, with a note
        gradient_flow(dot, W, X, optimizer=optimizer, opt_state=optimizer.init({"other": W[0], "more": W[0]}))
    assert any(
        "opt_state that is passed must come from the same params" in note for note in caught.value.__notes__
    )


# ---------------------------------------------------------------------------------------------- the picture


def lines_by_label(axes):
    return {line.get_label(): line for line in axes.get_lines()}


def test_the_picture_holds_the_numbers(tmp_path):
    report = flow_of(*ones(1e-9, 1e-3, 1), learning_rate=0.5)
    figure = report.plot(tmp_path / "flow.svg")
    (axes,) = figure.axes
    assert axes.get_yscale() == "log"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "1", "2"]
    lines = lines_by_label(axes)
    norms = [layer.gradient_norm for layer in report.layers]
    np.testing.assert_array_equal(lines["‖g‖, gradient norm"].get_ydata(), norms)
    np.testing.assert_array_equal(lines["mean |g|"].get_ydata(), [row.gradient_mean for row in report.layers])
    ratios = [layer.update_ratio for layer in report.layers]
    np.testing.assert_array_equal(lines["‖Δw‖/‖w‖, update to weight"].get_ydata(), ratios)
    np.testing.assert_array_equal(lines["mean |g|"].get_xdata(), [0, 1, 2])
    assert not {"zero", "NaN or infinite"} & set(lines)
    assert (tmp_path / "flow.svg").read_text().lstrip().startswith("<?xml")


def test_zero_nan_and_infinity_are_drawn_on_the_edges(tmp_path):
    report = flow_of(*ones(0, 1e-3, np.nan, np.inf, 0, 1))
    figure = report.plot(tmp_path / "flow.png")
    (axes,) = figure.axes
    lines = lines_by_label(axes)
    for label, at, edge in (("zero", [0, 4], 0), ("NaN or infinite", [2, 3], 1)):
        np.testing.assert_array_equal(lines[label].get_xdata(), at)
        inside = axes.transAxes.inverted().transform(
            lines[label].get_transform().transform(lines[label].get_xydata())
        )
        np.testing.assert_allclose(inside[:, 1], edge, atol=1e-9)  # of the axes, whatever their limits
        assert label in [text.get_text() for text in axes.get_legend().get_texts()]
    shown = lines["‖g‖, gradient norm"].get_ydata()
    np.testing.assert_array_equal(np.isfinite(shown), [False, True, False, False, False, True])


@pytest.mark.parametrize("norms", [(0, 0), (np.nan, np.inf)], ids=["zero", "not finite"])
@pytest.mark.filterwarnings("error")
def test_a_picture_of_nothing_else(norms, tmp_path):
    flow_of(*ones(*norms)).plot(tmp_path / "flow.png")
    assert (tmp_path / "flow.png").stat().st_size > 1000


def test_the_picture_goes_into_axes_that_are_given(tmp_path):
    from matplotlib.figure import Figure

    figure = Figure()
    left, right = figure.subplots(1, 2)
    assert flow_of(*ones(1, 2)).plot(tmp_path / "both.png", ax=right) is figure
    assert not left.get_lines() and right.get_yscale() == "log"
    assert (tmp_path / "both.png").exists()


@pytest.mark.parametrize(
    "count, name, rotation", [(3, "conv1", 0), (12, "conv1", 90), (3, "encoder" * 5, 90)]
)
def test_names_are_turned_where_they_do_not_fit_beside_each_other(count, name, rotation):
    weights = {f"{name}_{i:02}": np.ones(3, np.float32) for i in range(count)}
    report = gradient_flow(dot, weights, weights)
    (axes,) = report.plot().axes
    assert {label.get_rotation() for label in axes.get_xticklabels()} == {rotation}


def test_of_very_many_layers_some_are_named():
    figure = flow_of(*ones(*range(1, 101))).plot()
    (axes,) = figure.axes
    assert len(lines_by_label(axes)["mean |g|"].get_xdata()) == 100
    names = [label.get_text() for label in axes.get_xticklabels()]
    assert names == [str(i) for i in range(0, 100, 3)]


def test_without_matplotlib_the_extra_is_named(monkeypatch):
    report = flow_of(*ones(1, 2))
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r'pip install "jax_convgrad\[plot\]"'):
        report.plot()


def test_the_reports_type_is_public():
    assert isinstance(flow_of(*ones(1)), FlowReport)


# -------------------------------------------------------------------------------------------- any arguments


def keyed(params, x, y, key, kind="mean", *, scale=1.0, activation=jnp.tanh):
    """Python's own decide what is computed: none of them may be an array here."""
    noise = jax.random.normal(key, (4,), params["w"].dtype)
    out = activation(x @ params["w"] + 0.1 * noise)
    if scale > 0.5:
        out = out * scale
    return (jnp.mean if kind == "mean" else jnp.sum)(out * out) + jnp.mean(y * 1.0) * 0


@pytest.mark.parametrize("new_style", [True, False])
@pytest.mark.parametrize("jitted", [True, False])
def test_a_loss_of_any_arguments(new_style, jitted):
    key = jax.random.key(3) if new_style else jax.random.PRNGKey(3)
    params = {"w": jnp.asarray(np.random.default_rng(0).standard_normal((2, 4)))}
    x, y = jnp.ones((5, 2)), jnp.arange(3)
    given, options = (x, y, key, "sum"), {"scale": 2.0, "activation": jax.nn.silu}
    loss = jax.jit(keyed, static_argnames=("kind", "scale", "activation")) if jitted else keyed
    report = gradient_flow(loss, params, *given, **options)
    expected, gradient = jax.value_and_grad(keyed)(params, *given, **options)
    assert report.loss == pytest.approx(float(expected))
    assert report.layers[0].gradient_norm == pytest.approx(float(jnp.linalg.norm(gradient["w"])), rel=1e-5)


def test_a_loss_of_params_alone_and_a_batch_by_name():
    w = jnp.ones((2, 4))
    for report in (
        gradient_flow(lambda w: jnp.sum(w**2), w),
        gradient_flow(lambda w, power: jnp.sum(w**power), w, batch=2),
        gradient_flow(lambda w, batch: jnp.sum(w**batch), w, batch=2),
    ):
        assert report.loss == 8
        assert report.layers[0].gradient_norm == pytest.approx(np.sqrt(32))


def test_a_list_with_the_loss_asks_for_has_aux():
    with pytest.raises(TypeError, match=r"loss_fn.*not a list.*pass has_aux=True"):
        gradient_flow(lambda w: [jnp.sum(w), w], jnp.ones(3))
