"""What every library starts a net from, and what jax.lax makes of it in a step: a folder of arrays."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
from unchanged.agreement import disagreement, moved

from whole_steps.registry import Net, batch_of

Arrays = dict[str, np.ndarray]
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


def least_disagreement(
    folder: Path, start: Arrays, net: Net, first_step: Callable[[Arrays, Arrays], Arrays]
) -> float:
    """How far losses, gradients and running means of the first step are from jax.lax's.

    As a multiple of what rounding may do (``unchanged.agreement``), at the set where it is least.
    """
    least = math.inf
    for number, arguments in enumerate(argument_sets(start, net)):
        results = (dict(np.load(folder / f"first{at % _SETS}.npz")) for at in (number, number + 1))
        least = min(least, disagreement(first_step(*arguments), *results))
        if least <= 1:
            break
    return least
