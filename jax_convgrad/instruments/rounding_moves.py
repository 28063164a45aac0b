"""What a gradient does where its arguments move by an eps: how far rounding may carry it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jax_convgrad.instruments.finite_differences import Leaves, wide

Gradient = Callable[[Leaves], list[np.ndarray]]


def unrest_of(
    gradient: Gradient,
    leaves: Leaves,
    found: Sequence[np.ndarray],
    eps: float,
    tries: int,
    jumps: Sequence[float] | None = None,
) -> list[float]:
    """How far an entry of each gradient moves, at most, where all arguments are multiplied by 1 ± eps.

    It is the rounding that one must expect where terms cancel: a bias before a batch normalisation has a
    gradient of 0, which is computed as a sum of terms that are not.

    Args:
      gradient: of the leaves, or of the first of them.
      leaves: the arguments; they are moved in their own dtypes.
      found: the gradient at them.
      eps: of the dtype that the gradient is computed in.
      tries: random signs to try.
      jumps: for each gradient, from which distance on an entry's move is a jump, which a kink makes, and is
        left out; None leaves nothing out but what is not finite.
    """
    rng = np.random.default_rng(0)
    largest = [0.0] * len(found)
    for _ in range(tries):
        for k, there in enumerate(gradient(_multiplied(leaves, eps, rng))):
            moves = np.abs(there - found[k])
            is_move = moves < (np.inf if jumps is None else jumps[k])
            largest[k] = max(largest[k], float(np.max(moves, initial=0.0, where=is_move)))
    return largest


def _multiplied(leaves: Leaves, eps: float, rng: np.random.Generator) -> list[jax.Array]:
    factors = [1 + eps * rng.choice([-1.0, 1.0], leaf.shape) for leaf in leaves]
    return [
        (leaf.astype(wide(leaf.dtype)) * jnp.asarray(factor)).astype(leaf.dtype)
        for leaf, factor in zip(leaves, factors, strict=True)
    ]
