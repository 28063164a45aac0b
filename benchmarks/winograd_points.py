"""Compares the rounding errors of Winograd's transforms at several sets of points, in NumPy.

python benchmarks/winograd_points.py

The table is one of docs/winograd.md. All numbers are float32, along two axes; results are those of
3 x 3 taps and 64 channels. "growth" is computed from the matrices: how much larger the terms that add up to
a result are than those of its sum as it stands. The errors are measured: the root mean square of the errors,
divided by that of a float32 sum (NumPy's product over channels, then tap by tap).
"""

from __future__ import annotations

import argparse

import numpy as np

from jax_convgrad.instruments.winograd_transforms import POINTS, along_each, transforms

TAPS, CHANNELS, FILTERS, TILES = 3, 64, 16, 400
HEAD = ("tile", "points", "products a result", "growth", "error, normal", "error, relu")
SETS: tuple[tuple[int, str, tuple[float, ...]], ...] = (
    (2, "0, ±1, ∞", (0, 1, -1)),
    (4, "0, ±1, ±2, ∞", (0, 1, -1, 2, -2)),
    (4, "0, ±1, ±1/2, ∞", (0, 1, -1, 0.5, -0.5)),
    (4, "0, ±1, 1/2, -2, ∞", (0, 1, -1, 0.5, -2)),
    (4, "0, ±1/√2, ±√2, ∞", POINTS),
    (6, "0, ±1, ±2, ±1/2, ∞", (0, 1, -1, 2, -2, 0.5, -0.5)),
)


def growth(points: tuple[float, ...], results: int) -> float:
    """How much larger the terms of a result are along two axes, as a root mean square.

    For random x and w the term of point p in result o has the mean square
    E_m[p, o]^2 * |C[:, p]|^2 * |E_r[p]|^2, and a sum of as many terms as there are taps has ``TAPS``.
    """
    c, e_m, e_r = transforms(points, results, TAPS)
    of_terms = (e_m**2).T @ ((c**2).sum(0) * (e_r**2).sum(1))
    return float(of_terms.mean() / TAPS)


def along_each_in_float32(matrix: np.ndarray, array: np.ndarray) -> np.ndarray:
    """The array with the matrix applied along its first two axes."""
    return along_each(matrix.astype(np.float32), array, 2)


def errors(points: tuple[float, ...], results: int, kind: str) -> tuple[float, float]:
    """The root mean squares of the errors of the transforms, and of sums as they stand."""
    c, e_m, e_r = transforms(points, results, TAPS)
    random, reach = np.random.default_rng(0), results + TAPS - 1
    x = random.standard_normal((reach, reach, TILES, CHANNELS)).astype(np.float32)
    x = np.maximum(x, 0) if kind == "relu" else x
    w = random.standard_normal((TAPS, TAPS, CHANNELS, FILTERS)).astype(np.float32)
    products = along_each_in_float32(c.T, x) @ along_each_in_float32(e_r, w)
    y = along_each_in_float32(e_m.T, products)

    exact, direct = np.zeros(y.shape), np.zeros_like(y)
    for r0, r1 in np.ndindex(TAPS, TAPS):
        part = x[r0 : r0 + results, r1 : r1 + results]
        exact += part.astype(np.float64) @ w[r0, r1].astype(np.float64)
        direct += part @ w[r0, r1]
    return tuple(float(np.sqrt(((a - exact) ** 2).mean())) for a in (y, direct))


def rows() -> list[tuple[str, ...]]:
    """The rows of the table."""
    table = []
    for results, name, points in SETS:
        ratios = []
        for kind in ("normal", "relu"):
            of_tiles, of_sums = errors(points, results, kind)
            ratios.append(f"{of_tiles / of_sums:.1f}")
        products = (results + TAPS - 1) ** 2 / results**2
        grown = f"{growth(points, results):.1f}"
        table.append((f"{results}x{results}", name, f"{products:.2f}", grown, *ratios))
    return table


def main() -> None:
    """Prints the table, in Markdown."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    print(f"| {' | '.join(HEAD)} |\n|---|---|{'--:|' * (len(HEAD) - 2)}")
    for row in rows():
        print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()
