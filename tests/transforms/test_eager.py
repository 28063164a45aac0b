"""Calls without jit, one op at a time, and JAX's debugging modes."""

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


def normal(*shape):
    return np.random.default_rng(2).standard_normal(shape).astype(np.float32)


IMAGES, FILTERS, RESULTS = normal(2, 6, 6, 3), normal(3, 3, 3, 4), normal(2, 6, 6, 4)
CALLS = {
    "conv": lambda: jc.conv(IMAGES, FILTERS, padding="SAME"),
    "bias_and_relu": lambda: jc.conv(IMAGES, FILTERS, normal(4), padding="SAME", activation="relu"),
    "conv_general_dilated": lambda: jc.conv_general_dilated(
        IMAGES, FILTERS, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    ),
    "conv_transpose": lambda: jc.conv_transpose(IMAGES, FILTERS, (2, 2), "SAME"),
    "conv_input_grad": lambda: jc.conv_input_grad(RESULTS, FILTERS, IMAGES.shape, padding="SAME"),
    "conv_filter_grad": lambda: jc.conv_filter_grad(IMAGES, RESULTS, FILTERS.shape, padding="SAME"),
    "conv_bias_grad": lambda: jc.conv_bias_grad(RESULTS),
    "max_pool": lambda: jc.max_pool(IMAGES, (2, 2), (2, 2)),
    "positions": lambda: jc.max_pool(IMAGES, (2, 2), (2, 2), return_positions=True),
    "avg_pool": lambda: jc.avg_pool(IMAGES, (2, 2), (2, 2)),
    "max_unpool": lambda: jc.max_unpool(
        *jc.max_pool(IMAGES, (2, 2), (2, 2), return_positions=True), (6, 6), (2, 2), (2, 2)
    ),
    "gradient": lambda: jax.grad(loss, (0, 1, 2))(IMAGES, FILTERS, normal(4)),
    "replaced": lambda: REPLACED(IMAGES, FILTERS),
}


@jax.jit
def of_lax(x, w):
    return jax.lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def twice(carry, _):
    x, w = carry
    return (x + of_lax(x, w)[..., :3], w), None


REPLACED = jc.replace_convolutions(lambda x, w: jax.lax.scan(twice, (x, w), length=2)[0][0])


@pytest.fixture
def compiled():
    """The programs that JAX has compiled since its caches were cleared."""
    events = []

    def listen(event, seconds, **_):
        if event.startswith("/jax/core/compile/") and "trace" not in event:
            events.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield events
    jax.monitoring.unregister_event_duration_listener(listen)


@pytest.mark.parametrize("name", CALLS)
def test_a_second_call_compiles_nothing(name, compiled):
    jax.clear_caches()
    first = CALLS[name]()
    assert compiled
    compiled.clear()
    for a, b in zip(jax.tree.leaves(CALLS[name]()), jax.tree.leaves(first), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not compiled


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
    """Python started in a clone finds the sources, which contain no built module, before the package."""
    sources = Path(__file__).resolve().parents[2] / "jax_convgrad"
    shutil.copytree(sources, tmp_path / "jax_convgrad", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    (tmp_path / "CMakeLists.txt").touch()  # a clone has it, an installation does not
    run = subprocess.run(
        [sys.executable, "-c", "from jax_convgrad import conv"], cwd=tmp_path, capture_output=True, text=True
    )
    assert run.returncode != 0
    assert "source folder" in run.stderr and "found before the installed" in run.stderr
