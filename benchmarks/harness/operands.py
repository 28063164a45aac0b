"""Operands of several gigabytes that repeat a million numbers.

The device gets real arrays; the float64 reference computes single elements of them and stores no arrays.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np

from harness.problems import Problem

_FEW = 1_000_003  # a prime, so the numbers do not repeat along with an axis of an array
_APART = 104_729  # the distance between the starts of two sets of operands


class Repeated:
    """An array whose element f, in row-major order, is few[(f + start) % len(few)]."""

    def __init__(self, few: np.ndarray, start: int, shape: tuple[int, ...]):
        self.few, self.start, self.shape = few, start % len(few), shape
        self.dtype, self.ndim, self.size = few.dtype, len(shape), math.prod(shape)

    def __getitem__(self, index) -> np.ndarray:
        """Takes an array of indices for each dimension, or (..., a number of the last)."""
        if index[0] is Ellipsis:
            flat = np.arange(self.size // self.shape[-1]) * self.shape[-1] + index[1]
            shape = self.shape[:-1]
        else:
            flat = np.ravel_multi_index(np.broadcast_arrays(*index), self.shape)
            shape = flat.shape
        return self.few[(flat + self.start) % len(self.few)].reshape(shape)

    @property
    def times(self) -> int:
        """The number of repeats that are enough for the array from any start."""
        return -(-self.size // len(self.few)) + 1


@cache
def few_numbers(dtype: np.dtype, integers: bool) -> np.ndarray:
    """Numbers from {-2, ..., 2}, whose sums of products are exact in float32, or normal ones."""
    rng = np.random.default_rng(0)
    few = rng.integers(-2, 3, _FEW) if integers else rng.standard_normal(_FEW)
    return few.astype(dtype)


def of_problem(problem: Problem, few: np.ndarray, number: int = 0) -> dict[str, Repeated]:
    """The problem's x, w and dy, which differ from set to set."""
    return {
        name: Repeated(few, number * _APART + place * 1009, shape)
        for place, (name, shape) in enumerate(problem.shapes().items())
    }
