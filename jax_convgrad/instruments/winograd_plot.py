"""The picture of a tile of "winograd": the patch, the transformed numbers, their products, the results."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from jax_convgrad.instruments.terms import bracketed
from jax_convgrad.instruments.winograd_text import cell_text
from jax_convgrad.instruments.winograd_tile import WinogradTile

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_CELL = 0.42  # inches
_GAP = 0.9  # cells between two grids


def plot_tile(tile: WinogradTile) -> Figure:
    """Draws the numbers of each step as a grid, from left to right.

    Raises:
      ImportError: matplotlib is not installed.
      ValueError: the tile has no numbers.
    """
    if not tile.arrays:
        raise ValueError("a tile is drawn with its numbers: give --values, or arrays")
    try:
        from matplotlib import colormaps
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.patches import Rectangle
    except ImportError as error:
        raise ImportError(
            'drawing needs matplotlib, which is not installed: pip install "jax_convgrad[plot]"'
        ) from error

    terms = tile.terms
    inputs, second = ("dy", "w flipped") if terms.array == "dx" else terms.operands
    single = terms.array != "dw" and len(terms.in_channels) * len(terms.out_channels) == 1
    evaluating, reading = ("E4", "E3") if terms.array == "dw" else ("E3", "E4")
    grids = [
        (f"patch of {inputs}", tile.patch, ""),
        (f"C^T {inputs}", tile.transformed_patch, "→"),
        (f"{evaluating} {second}", tile.transformed_second, "⊙"),
        ("products" if single else "products, added up", tile.sums, "="),
        (f"{reading}^T of them: {terms.array}", tile.stored, "→"),
    ]
    rows = max(len(np.ma.atleast_2d(numbers)) for _, numbers, _ in grids)
    width = sum(np.ma.atleast_2d(numbers).shape[1] + _GAP for _, numbers, _ in grids) + _GAP
    figure = Figure(figsize=(width * _CELL, (rows + 2.2) * _CELL), facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(rows + 1.1, -1.1))
    axes.set_axis_off()
    colours = colormaps["coolwarm"]
    left = _GAP
    for title, numbers, before in grids:
        numbers = np.ma.atleast_2d(numbers)
        height, columns = numbers.shape
        top = (rows - height) / 2
        axes.text(left - _GAP / 2, rows / 2, before, ha="center", va="center", fontsize=12)
        axes.text(left + columns / 2, top - 0.35, title, ha="center", va="bottom", fontsize=7.5)
        largest = float(np.abs(numbers).max()) or 1.0
        for row, column in np.ndindex(height, columns):
            number = numbers[row, column]
            text = cell_text(number, 3)
            face = "#eeeeee" if text == "-" else colours(0.5 + 0.35 * float(number) / largest)
            corner = (left + column, top + row)
            axes.add_patch(
                Rectangle(corner, 1, 1, facecolor=face, edgecolor="white", gid=f"{title}[{row},{column}]")
            )
            axes.text(corner[0] + 0.5, corner[1] + 0.5, text, ha="center", va="center", fontsize=6)
        left += columns + _GAP
    element = f"{terms.array}{bracketed(terms.index)} = {cell_text(tile.value, 4)}"
    axes.text(width - _GAP, rows + 0.75, element, ha="right", va="center", fontsize=8)
    return figure
