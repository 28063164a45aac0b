"""The example of a layer of one's own: its gradients, what computes them, training, the command line."""

import re

import custom_layer
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from examples_run import run_example
from jax.test_util import check_grads

RNG = np.random.default_rng(0)
X = RNG.normal(size=(2, 6, 5, 3))
W = RNG.normal(0.4, 2.0, size=(3, 2, 3, 4))


def test_standardised_filters_have_mean_0_and_variance_1():
    w_hat, sigma = custom_layer.standardise(jnp.array(W))
    np.testing.assert_allclose(np.mean(w_hat, (0, 1, 2)), 0, atol=1e-14)
    np.testing.assert_allclose(np.var(w_hat, (0, 1, 2)), 1, rtol=custom_layer.EPSILON)
    np.testing.assert_allclose(sigma.ravel(), W.std((0, 1, 2)), rtol=custom_layer.EPSILON)


@pytest.mark.parametrize(("stride", "padding"), [(1, "SAME"), (2, "VALID")])
def test_value_and_gradients_are_those_of_the_plain_composition(stride, padding):
    def both(layer):
        # Not linear in y, so that dE/dy varies with y, and w enters twice.
        return jax.value_and_grad(lambda x, w: jnp.sin(layer(x, w, stride, padding)).sum(), (0, 1))(X, W)

    value, grads = both(custom_layer.standardised_conv)
    expected_value, expected = both(custom_layer.plain_composition)
    assert value == pytest.approx(float(expected_value), rel=1e-13)
    for grad, other in zip(grads, expected, strict=True):
        np.testing.assert_allclose(grad, other, rtol=0, atol=1e-12 * np.abs(other).max())


def test_gradients_are_those_of_finite_differences():
    check_grads(custom_layer.standardised_conv, (X, W), order=2, modes=["rev"], eps=1e-5, rtol=1e-6)


def test_epsilon_is_in_the_gradient():
    """Filters so flat that their variance is about ε, where leaving it out of ∂σ/∂w would show."""
    flat = 3 + 3e-3 * W
    grads = [
        jax.grad(lambda w, layer=layer: (layer(X, w) ** 3).sum())(flat)
        for layer in (custom_layer.standardised_conv, custom_layer.plain_composition)
    ]
    np.testing.assert_allclose(grads[0], grads[1], rtol=0, atol=1e-11 * np.abs(grads[1]).max())


def test_differences_converge_as_h_squared():
    """Those of x³ are 3x² + h²."""
    x = jnp.array([0.5, -2.0, 1.0])
    found = custom_layer.finite_differences(lambda x: (x**3).sum(), x, step=1e-2)
    np.testing.assert_allclose(found, 3 * x**2 + 1e-4, rtol=1e-10)


def test_a_wrong_rule_is_told(monkeypatch, capsys):
    """A thousandth too much in ∂E/∂w, and the check ends the program."""

    def exaggerating(stride, padding, kept, dy):
        dx, dw = custom_layer._backward(stride, padding, kept, dy)
        return dx, dw * 1.001

    right = custom_layer.standardised_conv
    wrong = jax.custom_vjp(right.fun, nondiff_argnums=(2, 3))
    wrong.defvjp(custom_layer._forward, exaggerating)
    monkeypatch.setattr(custom_layer, "standardised_conv", wrong)
    with pytest.raises(SystemExit, match="the gradient of w is wrong"):
        custom_layer.check_gradients(seed=0)
    assert "1.0e-03" in capsys.readouterr().out


def test_the_backward_pass_is_on_the_kernels():
    images, labels = np.zeros((4, 8, 8, 1), np.float32), np.zeros(4, np.int32)
    params = custom_layer.init_params(jax.random.key(0), images.shape[1:])
    optimizer = optax.sgd(0.1)
    step = custom_layer.make_train_step(custom_layer.RUNS["standardised"], optimizer)
    text = step.lower(params, optimizer.init(params), images, labels).as_text()
    counts = {
        op: len(re.findall(rf"@jax_convgrad_{op}\b", text)) for op in ("fprop", "dgrad", "wgrad", "bgrad")
    }
    # The images need no gradient, so there is one dgrad less. b is added outside of the layer.
    assert counts == dict(fprop=2, dgrad=1, wgrad=2, bgrad=0)
    assert "stablehlo.convolution" not in text


def test_training_steps_are_those_of_the_plain_composition(monkeypatch):
    def losses():
        data = custom_layer.load_bundled()
        optimizer = optax.sgd(0.05)
        step = custom_layer.make_train_step(custom_layer.RUNS["standardised"], optimizer)
        params = custom_layer.init_params(jax.random.key(0), data.train_images.shape[1:])
        opt_state = optimizer.init(params)
        found = []
        for start in range(0, 128, 16):
            images, labels = data.train_images[start : start + 16], data.train_labels[start : start + 16]
            params, opt_state, loss = step(params, opt_state, images, labels)
            found.append(float(loss))
        return found

    ours = losses()
    monkeypatch.setattr(custom_layer, "standardised_conv", custom_layer.plain_composition)
    expected = losses()
    assert len(set(expected)) == 8
    np.testing.assert_allclose(ours, expected, rtol=3e-6)


# The command line.


def test_the_example_checks_learns_and_draws(tmp_path):
    from matplotlib.image import imread

    plot = tmp_path / "curves.png"
    result = run_example("custom_layer", "--epochs", 2, "--plot", plot)
    assert result.returncode == 0, result.stderr
    errors = re.findall(r"^  dE/d[xw], .*?(\d\.\de[-+]\d+) +(\d\.\de[-+]\d+)$", result.stdout, re.MULTILINE)
    assert len(errors) == 6
    assert all(float(plain) < 1e-12 and float(differences) < 1e-7 for plain, differences in errors)
    found = re.findall(
        r"^(\w+) .* (\S+) in the first epoch, (\S+) in the last   test accuracy: (\S+)$",
        result.stdout,
        re.MULTILINE,
    )
    assert [name for name, *_ in found] == ["standardised", "plain"]
    for _, first, last, accuracy in found:
        assert float(last) < float(first) / 2 and float(accuracy) > 0.9
    assert min(imread(plot).shape[:2]) > 300


def test_the_check_alone_does_not_train(monkeypatch, capsys):
    monkeypatch.setattr(custom_layer, "train", lambda *_: pytest.fail("it trains"))
    monkeypatch.setattr("sys.argv", ["custom_layer.py", "--check", "--seed", "3"])
    custom_layer.main()
    assert "dE/dw, stride 2, SAME" in capsys.readouterr().out


def test_a_batch_larger_than_the_data_is_refused(monkeypatch):
    monkeypatch.setattr("sys.argv", ["custom_layer.py", "--batch-size", "100000"])
    with pytest.raises(SystemExit, match="--batch-size 100000 is more than the 1437 training images"):
        custom_layer.main()
