"""The matrices of Winograd's minimal filtering, from its points (docs/winograd.md derives them)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

RESULTS, TAPS = 4, 3
"""Of the CPU's kernel, F(4, 3), along one axis: results of a tile, taps of the filter."""

POINTS = (0.0, math.sqrt(0.5), -math.sqrt(0.5), math.sqrt(2), -math.sqrt(2))
"""The points of the CPU's kernel (cpu_src/microkernels/winograd_transforms.cc); the last one is infinity."""

POINT_NAMES = ("0", "1/√2", "-1/√2", "√2", "-√2", "∞")


def transforms(points: Sequence[float], results: int, taps: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The matrices C, E of the results and E of the taps, of F(results, taps); row or column p is a point's.

    For every x, w and y, with o below ``results`` and r below ``taps``,

        sum over o, r of x[o + r] * w[r] * y[o]  =  sum over p of (C.T @ x)[p] * (E_r @ w)[p] * (E_m @ y)[p]

    Args:
      points: the finite ones, ``results + taps - 2`` different numbers; infinity is added as the last.
      results: of a tile.
      taps: of the filter.

    Raises:
      ValueError: there are too few points, or too many.
    """
    finite = np.asarray(points, np.float64)
    count = results + taps - 1
    if len(finite) != count - 1:
        raise ValueError(f"F({results}, {taps}) needs {count - 1} points besides infinity, not {len(finite)}")
    others = [np.delete(finite, p) for p in range(count - 1)]
    # np.poly has the coefficients of the product of (z - a) with the highest first.
    c = np.zeros((count, count))
    for p, rest in enumerate(others):
        c[:-1, p] = np.poly(rest)[::-1]
    c[:, -1] = np.poly(finite)[::-1]

    def evaluate(coefficients: int) -> np.ndarray:
        at_infinity = np.eye(coefficients)[-1:]
        return np.vstack([np.vander(finite, coefficients, increasing=True), at_infinity])

    of_taps = evaluate(taps)
    of_taps[:-1] /= [[np.prod(point - rest)] for point, rest in zip(finite, others, strict=True)]
    return c, evaluate(results), of_taps


def along_each(matrix: np.ndarray, array: np.ndarray, axes: int) -> np.ndarray:
    """The array with the matrix applied along each of its first ``axes`` axes."""
    for axis in range(axes):
        array = np.moveaxis(np.tensordot(matrix, array, (1, axis)), 0, axis)
    return array
