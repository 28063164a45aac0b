"""What a gradient does where its arguments move by an eps: how far rounding may carry it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jax_convgrad.instruments.finite_differences import Leaves, sizes_of, wide

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
            with np.errstate(invalid="ignore"):  # of infinities
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


def are_jumps(
    gradient: Callable[[Leaves], np.ndarray],
    leaves: Leaves,
    eps: float,
    rng: np.random.Generator,
    found: np.ndarray,
    expected: np.ndarray,
    tolerance: np.ndarray,
) -> np.ndarray:
    """Which entries of a gradient may be as found, as it jumps within an eps of the leaves.

    Either rounding has put a kink on its other side: then the gradient in the leaves' own dtypes is as
    expected. Or the leaves are on kinks exactly, several at once: then both are among what the gradient is
    round about. Arrays are moved by an eps of their size there: multiplied, zeros would stay zeros.

    Args:
      gradient: the entries, as a function of the leaves.
      leaves: in the dtype of the differences.
      eps: of the dtype in which ``found`` was computed.
      rng: for the signs of the moves.
      found: the gradient's entries.
      expected: the same by differences.
      tolerance: by how much these may differ.
    """
    here = gradient(leaves)
    jump = np.zeros(here.shape)
    for _ in range(4):
        jump = np.fmax(jump, np.abs(gradient(_multiplied(leaves, eps, rng)) - here))
    is_beside = (np.abs(here - expected) <= tolerance) & (np.abs(found - here) <= 2 * jump)

    around = []
    for _ in range(8):
        signs = [rng.choice([-1.0, 1.0], leaf.shape) for leaf in leaves]
        # In pairs, so that the mean of a single kink's two derivatives is half way between them.
        around += [gradient(_shifted(leaves, eps, signs)), gradient(_shifted(leaves, -eps, signs))]
    middle = np.mean(around, 0)
    spread = np.max(np.abs(around - middle), 0)
    is_on = (spread > tolerance) & (np.abs(found - middle) <= 2 * spread)
    return is_beside | (is_on & (np.abs(expected - middle) <= 2 * spread))


def _shifted(leaves: Leaves, eps: float, signs: Sequence[np.ndarray]) -> list[jax.Array]:
    return [
        (leaf.astype(wide(leaf.dtype)) + jnp.asarray(eps * sizes_of(leaf) * sign)).astype(leaf.dtype)
        for leaf, sign in zip(leaves, signs, strict=True)
    ]
