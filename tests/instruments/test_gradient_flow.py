"""``gradient_flow``: NumPy's numbers on gradients that are known beforehand; its step and its arguments."""

import gc
import math
import subprocess
import sys
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flows import dot, flow_of

from jax_convgrad import gradient_flow

RNG = np.random.default_rng(0)


# ------------------------------------------------------------------------------------------ the numbers


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
    # XLA adds 10,000 numbers in float32, in jax 0.9 one after the other.
    assert report.layers[0].gradient_norm == pytest.approx(100 * top, rel=1e-5)
    assert report.layers[0].gradient_mean == pytest.approx(top, rel=1e-5)
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


# ------------------------------------------------------------------------------------------ compiling


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


# ------------------------------------------------------------------------------------------ arguments


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
        (
            dot,
            {"learning_rate": lambda step: 0.1},
            TypeError,
            "if it is a schedule, pass its value at this step",
        ),
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
