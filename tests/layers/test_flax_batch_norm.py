"""``jax_convgrad.flax.BatchNorm``: what ``flax.linen.BatchNorm`` computes, with the same variables."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_convgrad.flax import BatchNorm


def arrays(shape=(4, 5, 6, 7), dtype="float32"):
    random = np.random.default_rng(0)
    return jnp.asarray(random.standard_normal(shape) * 2 + 1, dtype)


def filled(variables):
    """The same variables with other numbers than the initial ones."""
    random = np.random.default_rng(1)
    return jax.tree.map(lambda leaf: jnp.asarray(random.uniform(0.5, 2, leaf.shape), leaf.dtype), variables)


def types(tree):
    return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)


def assert_same(results, expected, tolerance=1e-5):
    assert types(results) == types(expected)
    for result, exact in zip(jax.tree.leaves(results), jax.tree.leaves(expected), strict=True):
        result, exact = (np.asarray(leaf, np.float64) for leaf in (result, exact))
        np.testing.assert_allclose(result, exact, rtol=0, atol=tolerance * (1 + np.abs(exact).max()))


FIELDS = {
    "default": {},
    "momentum": {"momentum": 0.9, "epsilon": 1e-2},
    "no_scale": {"use_scale": False},
    "no_bias": {"use_bias": False},
    "axis": {"axis": 1},
    "narrow": {"dtype": jnp.bfloat16},
    "narrow_parameters": {"param_dtype": jnp.bfloat16},
    "two_axes": {"axis": (1, -1)},
    "own_reductions": {"force_float32_reductions": False},
}


CASES = [(name, "float32") for name in FIELDS]
CASES += [(name, "bfloat16") for name in ("default", "narrow", "narrow_parameters")]


@pytest.mark.parametrize(("name", "dtype"), CASES)
def test_training_is_flax_s(name, dtype):
    x, fields = arrays(dtype=dtype), FIELDS[name]
    theirs, ours = nn.BatchNorm(False, **fields), BatchNorm(False, **fields)
    initial = theirs.init(jax.random.key(0), x)
    assert_same(ours.init(jax.random.key(0), x), initial)
    variables = filled(initial)

    def step(module, variables, x):
        def loss(params, x):
            given = {**variables, "params": params} if params else variables
            y, updates = module.apply(given, x, mutable=["batch_stats"])
            return jnp.sum(jnp.sin(y.astype(jnp.float32))), (y, updates)

        return jax.grad(loss, (0, 1), has_aux=True)(variables.get("params", {}), x)

    step = jax.jit(step, static_argnums=0)
    narrow = dtype == "bfloat16" or "narrow" in name
    assert_same(step(ours, variables, x), step(theirs, variables, x), 0.02 if narrow else 2e-5)


def test_evaluation_is_flax_s():
    x = arrays()
    theirs, ours = nn.BatchNorm(), BatchNorm()
    variables = filled(theirs.init(jax.random.key(0), x, use_running_average=True))
    expected = theirs.apply(variables, x, use_running_average=True)
    assert_same(ours.apply(variables, x, use_running_average=True), expected)
    with pytest.raises(ValueError, match="use_running_average"):
        ours.apply(variables, x)


@pytest.mark.parametrize("activation", ["relu", "relu6", "silu"])
def test_the_activation_follows(activation):
    x, mask = arrays() * 4, jnp.arange(4).reshape(4, 1, 1, 1) < 3
    theirs, ours = nn.BatchNorm(False), BatchNorm(False, activation=activation)
    variables = filled(theirs.init(jax.random.key(0), x))
    for given in ({}, {"mask": mask}):
        expected, updates = theirs.apply(variables, x, mutable=["batch_stats"], **given)
        result = ours.apply(variables, x, mutable=["batch_stats"], **given)
        assert_same(result, (getattr(jax.nn, activation)(expected), updates))


def test_a_named_axis_joins_the_statistics():
    x = arrays()
    theirs, ours = (kind(False, axis_name="parts") for kind in (nn.BatchNorm, BatchNorm))
    variables = filled(theirs.init(jax.random.key(0), x[0]))
    assert_same(ours.init(jax.random.key(0), x[0]), theirs.init(jax.random.key(0), x[0]))

    def run(module):
        apply = lambda x: module.apply(variables, x, mutable=["batch_stats"])  # noqa: E731
        return jax.vmap(apply, axis_name="parts")(x)

    assert_same(run(ours), run(theirs))
