"""What every library starts a net from, and what jax.lax makes of it in a step: a folder of arrays."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
from unchanged.agreement import disagreement, moved

from whole_steps.registry import Net, batch_of

Arrays = dict[str, np.ndarray]
_OF_WHOLE = 1e-4  # of the norm of all arrays: what is smaller may be rounding alone
_SETS = 3  # the arguments, and two sets an ulp from there


def argument_sets(start: Arrays, net: Net) -> list[tuple[Arrays, Arrays]]:
    """Initial variables and batches: a relu that rounds to the other side of 0 is at one of them only."""
    given = (start, batch_of(net))
    return [given, *(moved(given, seed) for seed in range(1, _SETS))]


def write(folder: Path, start: Arrays, net: Net, first_step: Callable[[Arrays, Arrays], Arrays]) -> None:
    """Writes the initial variables and jax.lax's results of the first step from each set."""
    np.savez(folder / "start.npz", **start)
    for number, arguments in enumerate(argument_sets(start, net)):
        np.savez(folder / f"first{number}.npz", **first_step(*arguments))


def read(folder: Path) -> Arrays:
    """The initial variables."""
    return dict(np.load(folder / "start.npz"))


def compared(
    folder: Path, start: Arrays, net: Net, first_step: Callable[[Arrays, Arrays], Arrays]
) -> dict[str, float]:
    """How far losses, gradients and running means of the first step are from jax.lax's.

    Returns:
      ``disagreement``: as a multiple of what rounding may do (``unchanged.agreement``), and ``difference``:
      the largest of an array, as a share of its norm; both at the set of arguments where the former is least.
    """
    least = {"disagreement": math.inf, "difference": math.inf}
    for number, arguments in enumerate(argument_sets(start, net)):
        found = first_step(*arguments)
        lax, lax_moved = (dict(np.load(folder / f"first{at % _SETS}.npz")) for at in (number, number + 1))
        value = disagreement(found, lax, lax_moved)
        if value < least["disagreement"] or not number:
            least = {"disagreement": value, "difference": difference(found, lax)}
        if value <= 1:
            break
    return least


def difference(found: Arrays, lax: Arrays) -> float:
    """The largest difference of an array from jax.lax's as a share of its norm."""
    whole = np.sqrt(sum(np.vdot(array, array) for array in lax.values()))
    return max(
        float(np.linalg.norm(found[path] - array) / (np.linalg.norm(array) + _OF_WHOLE * whole))
        for path, array in lax.items()
    )
