"""The README's training step runs as it is printed and learns; its citation names this version."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jax_convgrad

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def test_the_training_step_learns():
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    readme = {}
    exec(code, readme)

    rng = np.random.default_rng(0)
    labels = jnp.array(rng.integers(0, 3, 24), jnp.int32)
    images = rng.normal(size=(24, 6, 6, 2)) + np.arange(-1, 2)[np.asarray(labels), None, None, None]
    images = jnp.array(images, jnp.float32)
    params = {
        "w": jnp.array(rng.normal(size=(3, 3, 2, 4)) / 3, jnp.float32),
        "b": jnp.zeros(4, jnp.float32),
        "linear": jnp.array(rng.normal(size=(36, 3)) / 6, jnp.float32),
    }

    def lax_loss(params):
        dims = ("NHWC", "HWIO", "NHWC")
        y = jax.lax.conv_general_dilated(images, params["w"], (1, 1), "SAME", dimension_numbers=dims)
        window = (1, 2, 2, 1)
        x = jax.lax.reduce_window(
            jax.nn.relu(y + params["b"]), -jnp.inf, jax.lax.max, window, window, "VALID"
        )
        logits = x.reshape(24, -1) @ params["linear"]
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    grads = jax.grad(readme["loss_fn"])(params, images, labels)
    for name, expected in jax.grad(lax_loss)(params).items():
        np.testing.assert_allclose(grads[name], expected, rtol=1e-4, atol=1e-5, err_msg=name)

    opt_state = readme["optimizer"].init(params)
    first_loss = lax_loss(params)
    losses = []
    for _ in range(60):
        params, opt_state, loss = readme["train_step"](params, opt_state, images, labels)
        losses.append(float(loss))
    assert losses[0] == pytest.approx(float(first_loss), rel=1e-6)
    assert losses[-1] < losses[0] / 2


def test_the_citation_names_this_version():
    (entry,) = re.findall(r"```bibtex\n(.*?)```", README, re.DOTALL)
    assert entry.startswith("@misc{jax_convgrad,")
    assert entry.count("{") == entry.count("}")
    assert f"Version {jax_convgrad.__version__}}}" in entry
