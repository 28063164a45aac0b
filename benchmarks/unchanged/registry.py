"""What a program of another package is, and the list of all.

Each is a function in signals.py, images.py, networks.py or keras_models.py. It
imports its package itself, so that the list can be shown where no package is installed.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

Made = tuple[Callable[..., Any], tuple[Any, ...]]
"""A function that can be jitted, and its arguments."""


@dataclass(frozen=True)
class Program:
    """One program.

    Attributes:
      name: its package and a word, such as "dm-pix.blur".
      package: the distribution that it needs, as pip names it; "jax" needs no other.
      what: what it computes, and of which size.
      make: gives the function and its arguments.
    """

    name: str
    package: str
    what: str
    make: Callable[[], Made]


_programs: dict[str, Program] = {}


def program(name: str, what: str) -> Callable[[Callable[[], Made]], Callable[[], Made]]:
    """Puts the decorated function on the list; the package is the name's part before the dot."""

    def put(make: Callable[[], Made]) -> Callable[[], Made]:
        if name in _programs:
            raise ValueError(f"two programs are called {name}")
        _programs[name] = Program(name, name.partition(".")[0], what, make)
        return make

    return put


def all_programs() -> dict[str, Program]:
    """Every program, by name, in the order of the table."""
    for module in ("images", "keras_models", "networks", "signals"):
        importlib.import_module(f"unchanged.{module}")  # which fills the list

    return dict(sorted(_programs.items(), key=lambda item: item[0].partition(".")[0]))


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    """Normally distributed float32 numbers."""
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def uniform(*shape: int, seed: int = 0) -> np.ndarray:
    """A picture: float32 numbers from 0 to 1."""
    return np.random.default_rng(seed).random(shape, dtype=np.float32)


def energy(result: Any) -> jax.Array:
    """The loss of all programs without one of their own: half the mean square of all arrays of a result."""
    leaves = jax.tree.leaves(result)
    return sum((leaf**2).sum() for leaf in leaves) / (2 * sum(leaf.size for leaf in leaves))
