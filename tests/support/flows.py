"""Losses whose gradient is known, for ``gradient_flow``.

Where a loss is Σ p·g over the parameters p and the arrays g of the batch, its gradient is g to the bit.
"""

import jax
import jax.numpy as jnp
import numpy as np

from jax_convgrad import gradient_flow


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


def ones(*norms):
    return [np.full(1, norm, np.float32) for norm in norms]
