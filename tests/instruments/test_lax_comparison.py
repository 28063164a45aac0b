"""`compare_with_lax`: models on our layers and in Flax, planted differences, arguments."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jax_convgrad as jc
from jax_convgrad import GradientError, compare_with_lax
from jax_convgrad.instruments.lax_comparison import _row

RANDOM = np.random.default_rng(3)
IMAGES = RANDOM.standard_normal((3, 8, 8, 3)).astype(np.float32)
LABELS = np.array([0, 2, 1])
BATCH = (jnp.asarray(IMAGES), jnp.asarray(LABELS))


def cross_entropy(logits, labels):
    return -jax.nn.log_softmax(logits)[jnp.arange(len(labels)), labels].mean()


def our_params(dtype=jnp.float32):
    draw = np.random.default_rng(4).standard_normal
    return {
        "w": jnp.asarray(draw((3, 3, 3, 4)) * 0.3, dtype),
        "b": jnp.asarray(draw(4) * 0.1, dtype),
        "up": jnp.asarray(draw((2, 2, 4, 4)) * 0.3, dtype),
    }


def our_loss(params, batch):
    images, labels = batch
    x = jc.conv(images.astype(params["w"].dtype), params["w"], params["b"], padding="SAME", activation="relu")
    x = jc.conv_transpose(jc.max_pool(x, (2, 2), (2, 2)), params["up"], (2, 2), "VALID")
    return cross_entropy(x.mean((1, 2)), labels)


def rows_of(comparison):
    return {row.name: row for row in comparison.parameters}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "float64"])
def test_our_own_layers(dtype):
    params = our_params(dtype)
    comparison = compare_with_lax(our_loss, params, BATCH, repeats=2)
    assert comparison.ok, comparison
    # The numbers are those of the plain calls.
    loss, grads = jax.jit(jax.value_and_grad(our_loss))(params, BATCH)
    np.testing.assert_allclose(comparison.loss[0], loss, rtol=2 * float(jnp.finfo(dtype).eps))
    row = rows_of(comparison)["params['w']"]
    np.testing.assert_allclose(row.largest, np.abs(grads["w"].astype(float)).max(), rtol=0.05)
    assert row.shape == (3, 3, 3, 4) and row.dtype == dtype
    assert (row.our_error is None) == (dtype == "float64")
    texts = [(found.text, count, found.bias, found.relu) for found, count, _ in comparison.convolutions]
    assert texts == [
        ("3x8x8x3, 3x3, 4, pad 1", 1, True, True),
        ("3x4x4x4, 2x2, 4, stride 2, transposed", 1, False, False),
    ]
    for *_, times in comparison.convolutions:
        assert set(times) == {"forward", "dX", "dW"}
        assert all(0 < t.ours < 60 and 0 < t.lax < 60 and t.ratio > 0 for t in times.values())
    assert comparison.step.ours > 0


def test_a_difference_is_given_in_ulps(monkeypatch):
    """A planted factor in one entry of dW: its ulps, and wrong compared with float64."""
    params = our_params()
    exact = jax.grad(our_loss)({k: v.astype(jnp.float64) for k, v in params.items()}, BATCH)["w"]
    place = np.unravel_index(np.argmax(np.abs(exact)), exact.shape)
    from jax_convgrad import gradients

    right = gradients.wgrad_bgrad

    def off(*args):
        dw, db = right(*args)
        return dw.at[place].multiply(1 + 100 * jnp.finfo(jnp.float32).eps), db

    monkeypatch.setattr(gradients, "wgrad_bgrad", off)
    comparison = compare_with_lax(our_loss, params, BATCH, repeats=0)
    rows = rows_of(comparison)
    assert [row.verdict for row in rows.values()].count("WRONG") == 1
    row = rows["params['w']"]
    assert row.verdict == "WRONG"
    assert 90 < row.difference < 110 and 90 < row.our_error < 110 and row.lax_error < 8
    assert "1 of 3 gradients not ok" in str(comparison)
    with pytest.raises(GradientError, match=r"params\['w'\].*WRONG"):
        comparison.raise_if_wrong()
    with pytest.raises(TypeError, match=r"\.ok"):
        assert comparison


@pytest.mark.parametrize("library", ["linen", "nnx"])
def test_flax(library):
    if library == "linen":
        from flax import linen as nn

        class Model(nn.Module):
            @nn.compact
            def __call__(self, x):
                x = nn.relu(nn.Conv(6, (3, 3), strides=2)(x))
                x = nn.BatchNorm(use_running_average=False)(x)
                x = nn.relu(nn.Conv(6, (3, 3), feature_group_count=6)(x))
                return nn.Dense(4)(nn.ConvTranspose(5, (3, 3), strides=(2, 2))(x).mean((1, 2)))

        model = Model()
        variables = model.init(jax.random.key(0), IMAGES)
        params = variables["params"]

        def loss(params, batch):
            logits, state = model.apply({**variables, "params": params}, batch[0], mutable=["batch_stats"])
            return cross_entropy(logits, batch[1]), state

        has_aux = True
    else:
        from flax import nnx

        class Model(nnx.Module):
            def __init__(self, rngs):
                self.strided = nnx.Conv(3, 6, (3, 3), strides=2, rngs=rngs)
                self.depthwise = nnx.Conv(6, 6, (3, 3), feature_group_count=6, rngs=rngs)
                self.transposed = nnx.ConvTranspose(6, 5, (3, 3), strides=(2, 2), rngs=rngs)
                self.linear = nnx.Linear(5, 4, rngs=rngs)

            def __call__(self, x):
                x = nnx.relu(self.depthwise(nnx.relu(self.strided(x))))
                return self.linear(self.transposed(x).mean((1, 2)))

        graph, params = nnx.split(Model(nnx.Rngs(0)))

        def loss(params, batch):
            return cross_entropy(nnx.merge(graph, params)(batch[0]), batch[1])

        has_aux = False
    comparison = compare_with_lax(loss, params, BATCH, has_aux=has_aux, repeats=1)
    assert comparison.ok, comparison
    assert len(comparison.parameters) == len(jax.tree.leaves(params))
    assert [found.text for found, *_ in comparison.convolutions] == [
        "3x8x8x3, 3x3, 6, stride 2, pad 0:1",
        "3x4x4x6, 3x3, 6, pad 1, groups 6",
        "3x4x4x6, 3x3, 5, stride 2, pad 0:1, transposed",
    ]
    # A bias before a batch normalisation has a gradient of nothing but rounding: no error beside lax's own.
    for row in comparison.parameters:
        assert row.our_error is not None
        assert row.our_error < 1e-4 / np.finfo(np.float32).eps


def test_a_model_without_convolutions_says_so():
    def loss(params, batch):
        return jnp.sum((batch @ params) ** 2)

    comparison = compare_with_lax(loss, jnp.ones((3, 2)), jnp.ones((4, 3)))
    assert comparison.ok
    assert comparison.convolutions == ()
    assert "no convolution" in str(comparison)


def test_models_that_have_no_float64():
    params = our_params()
    key = jax.random.key(0)

    def fixed(params, batch):
        return our_loss({k: v.astype(jnp.bfloat16) for k, v in params.items()}, batch).astype(jnp.float32)

    def dropped(params, batch):
        noise = jax.random.normal(key, params["w"].shape, params["w"].dtype)
        return our_loss({**params, "w": params["w"] * noise}, batch)

    for loss, reason in ((fixed, "computes in a dtype with eps 0.0078"), (dropped, "another function")):
        comparison = compare_with_lax(loss, params, BATCH, repeats=0)
        assert comparison.ok, comparison
        assert reason in str(comparison)
        assert all(row.our_error is None for row in comparison.parameters)


def test_a_wrong_gradient_is_told_without_float64(monkeypatch):
    """Sums are exact to float32 in bf16 models too, so that their length excuses nothing."""
    from jax_convgrad import gradients

    right = gradients.wgrad_bgrad

    def fixed(params, batch):
        return our_loss({k: v.astype(jnp.bfloat16) for k, v in params.items()}, batch).astype(jnp.float32)

    for factor in (-1, 0, 0.7):

        def wrong(*args, by=factor):
            dw, db = right(*args)
            return dw * by, db

        monkeypatch.setattr(gradients, "wgrad_bgrad", wrong)
        comparison = compare_with_lax(fixed, our_params(), BATCH, repeats=0)
        verdicts = {name: row.verdict for name, row in rows_of(comparison).items()}
        assert verdicts == {"params['w']": "WRONG", "params['b']": "ok", "params['up']": "ok"}, comparison


def test_a_gradient_where_lax_has_none_is_wrong():
    row = partial(_row, "w", jnp.ones(3), np.full(3, 5.0), np.zeros(3), eps=1e-7, unrest=0.0, longest=9)
    assert row(exact=None).verdict == row(exact=np.zeros(3)).verdict == "WRONG"


def test_a_wrong_loss_is_told(monkeypatch):
    """A kernel whose y is too large by a hundredth. The mean over the batch has linear gradients alone."""
    from jax_convgrad.primitives import ffi

    right = ffi.fprop
    monkeypatch.setattr(ffi, "fprop", lambda *args, **how: right(*args, **how) * 1.01)
    jax.clear_caches()  # compiled programs keep the kernels that they were compiled with
    w, x = jnp.ones((3, 2, 2)), jnp.ones((1, 5, 2))
    try:
        comparison = compare_with_lax(lambda w, x: jc.conv(x, w).mean(), w, x, repeats=0)
    finally:
        jax.clear_caches()
    assert [row.verdict for row in comparison.parameters] == ["ok"]
    assert comparison.loss_verdict == "WRONG" and not comparison.ok
    assert "loss WRONG" in str(comparison)


def test_a_loss_that_cancels_is_right():
    def loss(w, x):
        return jc.conv(x, w).sum()

    for seed in range(5):
        draw = np.random.default_rng(seed).standard_normal
        w, x = jnp.asarray(draw((5, 8, 8)), jnp.float32), jnp.asarray(draw((4, 50, 8)), jnp.float32)
        comparison = compare_with_lax(loss, w, x, repeats=0)
        assert comparison.ok, comparison


def test_nan_never_passes():
    def loss(w, x):
        return jnp.sum(jnp.log(jc.conv(x, w)))

    comparison = compare_with_lax(loss, -jnp.ones((1, 1, 1)), jnp.ones((1, 2, 1)), repeats=0)
    assert comparison.parameters[0].verdict == "ok"  # log of a negative number has a gradient
    assert comparison.loss_verdict == "not finite" and not comparison.ok

    def divided(w, x):
        return jnp.sum(jc.conv(x, w) / (w - w))

    comparison = compare_with_lax(divided, jnp.ones((1, 1, 1)), jnp.ones((1, 2, 1)), repeats=0)
    assert not comparison.ok
    assert comparison.parameters[0].verdict == "not finite"


def test_html():
    page = compare_with_lax(our_loss, our_params(), BATCH, repeats=1)._repr_html_()
    assert page.count("<table>") == 2
    assert page.count("<tr>") == 1 + 3 + 1 + 2
    assert re.search(r"params\[&#x27;w&#x27;\]", page)


def test_installed_is_refused():
    jc.install()
    try:
        with pytest.raises(RuntimeError, match="uninstall"):
            compare_with_lax(our_loss, our_params(), BATCH)
    finally:
        jc.uninstall()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((lambda p, b: p, jnp.ones(2), None, {}), TypeError, "real scalar loss"),
        ((lambda p, b: jnp.sum(p) * 1j, jnp.ones(2), None, {}), TypeError, "real floating-point number"),
        ((lambda p, b: 1.0, jnp.arange(3), None, {}), TypeError, "params should hold"),
        ((lambda p, b: jnp.sum(p), jnp.ones(2), None, {"repeats": -1}), ValueError, "repeats"),
        ((lambda p, b: jnp.sum(p), jnp.ones(2), None, {"repeats": 1.5}), TypeError, "repeats"),
        ((4, jnp.ones(2), None, {}), TypeError, "model_fn must be a function"),
    ],
)
def test_bad_arguments_are_named(arguments, error, message):
    *args, named = arguments
    with pytest.raises(error, match=message):
        compare_with_lax(*args, **named)


def test_backends(backend):
    comparison = compare_with_lax(our_loss, our_params(), BATCH, repeats=0)
    assert comparison.ok, comparison


# -------------------------------------------------------------------------------------------- any arguments


def keyed(params, x, y, key, kind="mean", *, scale=1.0, activation=jnp.tanh):
    """Python's own decide what is computed: none of them may be an array here."""
    noise = jax.random.normal(key, (4,), params["w"].dtype)
    out = activation(jc.conv(x, params["w"]) + 0.1 * noise)
    if scale > 0.5:
        out = out * scale
    return (jnp.mean if kind == "mean" else jnp.sum)(out * out) + jnp.mean(y * 1.0) * 0


@pytest.mark.parametrize("new_style", [True, False])
def test_a_loss_of_any_arguments(new_style):
    key = jax.random.key(3) if new_style else jax.random.PRNGKey(3)
    params = {"w": jnp.asarray(np.random.default_rng(0).standard_normal((3, 3, 2, 4)))}
    x, y = jnp.ones((2, 5, 5, 2)), jnp.arange(3)
    report = compare_with_lax(keyed, params, x, y, key, "sum", scale=2.0, activation=jax.nn.silu, repeats=0)
    assert report.ok
    expected = keyed(params, x, y, key, "sum", scale=2.0, activation=jax.nn.silu)
    np.testing.assert_allclose(report.loss, [float(expected)] * 2, rtol=1e-9)
    assert [row.name for row in report.parameters] == ["params['w']"]


def test_a_loss_of_params_alone_and_a_batch_by_name():
    w = jnp.ones((3, 2, 4))
    x = jnp.ones((1, 6, 2))
    assert compare_with_lax(lambda w: jnp.tanh(jc.conv(x, w)).sum(), w, repeats=0).ok
    assert compare_with_lax(lambda w, images: jnp.tanh(jc.conv(images, w)).sum(), w, batch=x, repeats=0).ok
    assert compare_with_lax(lambda w, batch: jnp.tanh(jc.conv(batch, w)).sum(), w, batch=x, repeats=0).ok


@pytest.mark.parametrize(
    ("loss", "has_aux", "message"),
    [
        (lambda w, x: (jnp.sum(w * x), {"accuracy": 1.0}), False, "model_fn.*pass has_aux=True"),
        (lambda w, x: [jnp.sum(w * x), x], False, "not a list.*pass has_aux=True"),
        (lambda w, x: jnp.sum(w * x), True, r"model_fn must return \(loss, aux\) with has_aux, not an array"),
        (lambda w, x: None, False, "model_fn must return a scalar array, not None"),
        (
            lambda w, x: {"loss": jnp.sum(w)},
            False,
            "model_fn must return a scalar array, not a value of type dict",
        ),
        (lambda w, x: jnp.sum(w).astype(int), False, "model_fn must return a real floating-point number"),
    ],
)
def test_what_a_loss_may_not_return_is_told(loss, has_aux, message):
    with pytest.raises(TypeError, match=message):
        compare_with_lax(loss, jnp.ones(3), jnp.ones(3), has_aux=has_aux, repeats=0)
