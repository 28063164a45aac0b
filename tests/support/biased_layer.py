"""A grouped layer with bias and relu, on our kernels and on lax."""

import jax
import jax.numpy as jnp
import numpy as np
from conv_cases import NHWC

import jax_convgrad as jc

HIGHEST = (jax.lax.Precision.HIGHEST, jax.lax.Precision.HIGHEST)

X, W, B = (np.random.default_rng(seed).standard_normal(shape) for seed, shape in
           enumerate([(2, 6, 7, 4), (3, 3, 2, 6), (6,)]))  # fmt: skip


def layer(x, w, b, activation="relu", groups=2):
    return jc.conv(x, w, b, padding="SAME", activation=activation, groups=groups)


def by_lax(x, w, b, activation="relu", groups=2):
    y = jax.lax.conv_general_dilated(
        x, w, (1, 1), "SAME", dimension_numbers=NHWC, feature_group_count=groups
    )  # fmt: skip
    y = y if b is None else y + b
    return jax.nn.relu(y) if activation else y


def close(ours, laxs):
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(laxs), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12 * max(np.abs(b).max(initial=0), 1))


def of_all(f):
    return lambda x, w, b: jnp.sum(jnp.sin(f(x, w, b)) ** 2)


def mapped(args, in_axes):
    return [
        a if at is None else np.stack([a, np.cos(3 * a), a - 1], at)
        for a, at in zip(args, in_axes, strict=True)
    ]
