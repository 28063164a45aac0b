"""``dots_saveable``: a policy for ``jax.checkpoint`` that knows this package's convolutions."""

from __future__ import annotations

from typing import Any

import jax

from jax_convgrad.primitives import contractions
from jax_convgrad.primitives.epilogue import fprop_epilogue_p
from jax_convgrad.primitives.filter_and_bias import wgrad_bgrad_p

_CONVOLUTIONS = frozenset(
    {contractions.fprop_p, contractions.dgrad_p, contractions.wgrad_p, fprop_epilogue_p, wgrad_bgrad_p}
)


def dots_saveable(primitive: Any, *operands: Any, **params: Any) -> Any:
    """``jax.checkpoint_policies.dots_saveable``, with this package's convolutions among the dots.

    JAX's own policy saves the results of matrix products and of ``lax``'s convolution, by a fixed list of
    primitives, so it computes these kernels' results again. This one saves them:

    ```python
    import jax
    import jax.numpy as jnp
    from jax_convgrad import conv, dots_saveable


    def block(x, w):
        return jnp.sin(conv(x, w, padding="SAME"))


    x, w = jnp.ones((1, 8, 3)), jnp.ones((5, 3, 3))
    dw = jax.grad(lambda w: jax.checkpoint(block, policy=dots_saveable)(x, w).sum())(w)
    ```

    Join it with other policies by ``jax.checkpoint_policies.save_from_both_policies``. Under ``install()``
    JAX's own policy is enough, since what is traced is ``lax``'s convolution.
    """
    if primitive in _CONVOLUTIONS:
        return True
    return jax.checkpoint_policies.dots_saveable(primitive, *operands, **params)
