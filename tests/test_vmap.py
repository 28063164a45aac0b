"""vmap: per-example gradients are those of a loop over the examples, and run on our kernels alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_no_lax_inside import CALLS, foreign, gradient

import jax_convgrad as jc

NAMES = [
    "conv_general_dilated",
    "features_first",
    "conv_transpose",
    "depthwise",
    "conv",
    "max_pool",
    "avg_pool",
]


def per_example_gradient(f):
    def g(x, *rest):
        one = gradient(lambda x, *rest: f(x[None], *rest))
        return jax.vmap(one, in_axes=(0, *[None] * len(rest)))(x, *rest)

    return g


@pytest.mark.parametrize("name", NAMES)
def test_per_example_gradients(backend, name):
    f, (x, *rest) = CALLS[name]
    found, targets = foreign(per_example_gradient(f), (x, *rest))
    assert not found
    assert targets, "no kernel of ours is called either"

    together = jax.jit(per_example_gradient(f))(x, *rest)
    for n, example in enumerate(x):
        alone = gradient(lambda x, *rest: f(x[None], *rest))(example, *rest)
        for a, b in zip(together, alone, strict=True):
            np.testing.assert_allclose(a[n], b, rtol=0, atol=1e-5 * np.abs(b).max())


@pytest.mark.parametrize("mapped", ["x", "w", "both"])
@pytest.mark.parametrize("groups", [1, 2])
def test_over_inputs_and_filters(backend, mapped, groups):
    """An ensemble: filters, inputs or both carry the mapped axis, each in a place of its own."""
    random = np.random.default_rng(4)
    x, w = random.standard_normal((2, 5, 6, 4)), random.standard_normal((3, 3, 4 // groups, 6))
    xs, ws = random.standard_normal((2, 5, 3, 6, 4)), random.standard_normal((3, 3, 4 // groups, 6, 3))

    def loss(x, w):
        return jnp.sum(jnp.sin(jc.conv(x, w, padding="SAME", groups=groups)))

    f = jax.value_and_grad(loss, (0, 1))
    in_axes = {"x": (2, None), "w": (None, 4), "both": (2, 4)}[mapped]
    arrays = (xs if mapped != "w" else x, ws if mapped != "x" else w)
    together = jax.jit(jax.vmap(f, in_axes))(*arrays)
    for n in range(3):
        alone = f(xs[:, :, n] if mapped != "w" else x, ws[..., n] if mapped != "x" else w)
        for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(alone), strict=True):
            np.testing.assert_allclose(a[n], b, rtol=0, atol=1e-12 * np.abs(b).max())
