"""Without jit: one op at a time, and JAX's modes for debugging."""

import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jax_convgrad as jc

X = jnp.asarray(np.random.default_rng(0).standard_normal((2, 6, 5, 3)))
W = jnp.asarray(np.random.default_rng(1).standard_normal((3, 3, 3, 4)))
B = jnp.ones(4)


def loss(x, w, b):
    y = jc.conv(x, w, b, padding="SAME", activation="relu")
    return jnp.sum(jnp.sin(jc.avg_pool(jc.max_pool(y, (2, 2)), (2, 2))))


def test_eager_is_jitted():
    derivatives = jax.value_and_grad(loss, (0, 1, 2))
    for a, b in zip(
        jax.tree.leaves(derivatives(X, W, B)), jax.tree.leaves(jax.jit(derivatives)(X, W, B)), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


def test_disable_jit():
    derivatives = jax.value_and_grad(loss, (0, 1, 2))
    expected = derivatives(X, W, B)
    with jax.disable_jit():
        got = jax.jit(derivatives)(X, W, B)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("jitted", [False, True])
def test_debug_nans_names_the_nan(jitted):
    f = jax.jit(jc.conv) if jitted else jc.conv
    with jax.debug_nans(True), pytest.raises(FloatingPointError, match="nan"):
        f(X.at[0, 0, 0, 0].set(jnp.nan), W)


def test_source_folder_says_what_it_is(tmp_path):
    """Python started in a clone finds the sources, in which nothing is built, before the package."""
    sources = Path(__file__).resolve().parent.parent / "jax_convgrad"
    shutil.copytree(sources, tmp_path / "jax_convgrad", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    run = subprocess.run(
        [sys.executable, "-c", "from jax_convgrad import conv"], cwd=tmp_path, capture_output=True, text=True
    )
    assert run.returncode != 0
    assert "source folder" in run.stderr and "found before the installed" in run.stderr
