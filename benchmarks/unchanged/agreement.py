"""Whether two results of one program agree to rounding."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

_OF_LEAF = 1e-5
"""What another order of the sums may make of a leaf's norm in float32."""
_OF_WHOLE = 1e-6
"""The same of the norm of all leaves: a leaf whose exact value is 0 holds rounding alone."""
_OF_MOVE = 10
"""How many times what an ulp in the arguments does: a deep network's every layer rounds."""


def moved(arguments: Any, seed: int = 0) -> Any:
    """The arguments with each number of floating point one ulp up or down, at random."""
    rng = np.random.default_rng(seed)

    def move(leaf: Any) -> Any:
        if not _is_inexact(leaf):
            return leaf
        array = np.asarray(leaf)
        up = rng.integers(0, 2, array.shape, dtype=bool)
        return np.nextafter(array, np.where(up, np.inf, -np.inf).astype(array.dtype))

    return jax.tree.map(move, arguments)


def least_disagreement(
    ours: Callable[..., Any], lax: Callable[..., Any], arguments: tuple[Any, ...]
) -> float:
    """The disagreement of two functions, at the arguments or at one of two sets an ulp from there.

    One relu whose operand rounds to the other side of 0 changes a gradient by far more than rounding does.
    Such a kink lies at single arguments only; a wrong kernel is wrong at all of them.
    """
    sets = [arguments, moved(arguments, 1), moved(arguments, 2)]
    least = math.inf
    for at, beside in zip(sets, [*sets[1:], sets[0]], strict=True):
        results = jax.device_get((ours(*at), lax(*at), lax(*beside)))
        least = min(least, disagreement(*results))
        if least <= 1:
            break
    return least


def disagreement(ours: Any, lax: Any, lax_moved: Any) -> float:
    """The largest difference between two results' leaves, as a multiple of what rounding may do.

    Leaves are compared by Euclidean norms. A difference is rounding where it is small against the leaf, or
    not much larger than the change of lax's own result when its arguments move by an ulp: near the kink of
    a relu or the root of 0 rounding does more.

    Args:
      ours: the result on the kernels.
      lax: jax.lax's.
      lax_moved: jax.lax's for the arguments that ``moved`` gives.

    Returns:
      Above 1 they do not agree; infinite where structure, shape or dtype differ, or one is not finite where
      the other is.
    """
    if jax.tree.structure(ours) != jax.tree.structure(lax):
        return math.inf
    leaves = list(zip(*map(jax.tree.leaves, (ours, lax, lax_moved)), strict=True))
    if any(one.shape != other.shape or one.dtype != other.dtype for one, other, _ in leaves):
        return math.inf
    inexact = [[np.asarray(leaf, np.float64).ravel() for leaf in of] for of in leaves if _is_inexact(of[0])]
    if any((np.isfinite(one) != np.isfinite(other)).any() for one, other, _ in inexact):
        return math.inf
    inexact = [[np.nan_to_num(leaf, posinf=0, neginf=0) for leaf in of] for of in inexact]
    whole = math.sqrt(sum(_norm(other) ** 2 for _, other, _ in inexact))
    worst = 0.0
    for one, other, other_moved in inexact:
        difference = _norm(one - other)
        allowed = _OF_LEAF * _norm(other) + _OF_WHOLE * whole + _OF_MOVE * _norm(other - other_moved)
        if difference:
            worst = max(worst, difference / allowed if allowed else math.inf)
    return worst


def _norm(array: np.ndarray) -> float:
    return float(np.linalg.norm(array))


def _is_inexact(leaf: Any) -> bool:
    return jax.numpy.issubdtype(leaf.dtype, jax.numpy.floating)
