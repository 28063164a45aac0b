"""A tile of "winograd" as text: its positions, the three matrices, and its numbers if there are arrays."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from jax_convgrad.instruments.terms import bracketed
from jax_convgrad.instruments.winograd_tile import C, WinogradTile
from jax_convgrad.instruments.winograd_transforms import POINT_NAMES


def as_text(tile: WinogradTile) -> str:
    """The tile in blocks of lines."""
    return "\n\n".join("\n".join(block) for block in _blocks(tile))


def _blocks(tile: WinogradTile) -> Iterator[list[str]]:
    terms = tile.terms
    of, source = ("i", "o") if terms.array == "dx" else ("o", "i")
    inputs, others = ("dy", "w flipped") if terms.array == "dx" else terms.operands
    dw = terms.array == "dw"
    title = 'A tile of "winograd"'
    if dw:
        title = f'The first of {tile.tiles} tiles of "winograd"'
    lines = [f"{title}: {tile.products} products instead of {tile.direct_products} for a pair of channels"]
    for a, along in zip(tile.transformed, tile.axes, strict=True):
        where = f"axis {a}: " if len(terms.axes) > 1 else ""
        padding = ", where - is padding" if None in along.inputs else ""
        lines.append(
            f"  {where}{of} = {_places(along.results)} of {source} = {_places(along.inputs)}{padding}"
        )
    yield lines
    used = "E4 " + others if dw else "E3 " + others
    rows = zip(POINT_NAMES, C.T, tile.evaluating, tile.reading, strict=True)
    head = [f"C^T {inputs}", used, f"{'E3' if dw else 'E4'}, whose transpose gives {terms.array}"]
    yield _matrices(["point", *head], [(name, *parts) for name, *parts in rows])
    if not tile.arrays:
        return
    channels = len(terms.in_channels) * len(terms.out_channels)
    which = "" if dw or channels == 1 else ", of the first channel"
    yield [f"The patch of {inputs}{which}:", *_grid(tile.patch)]
    yield [f"C^T {inputs}, along each axis:", *_grid(tile.transformed_patch)]
    yield [f"{used}, along each axis{which}:", *_grid(tile.transformed_second)]
    over = "tiles" if dw else f"{channels} channels" if channels > 1 else ""
    over = f", added up over {over}" if over else ""
    yield [f"Their products, point by point{over}:", *_grid(tile.sums)]
    what = "taps of dw" if dw else f"results of {terms.array}"
    beyond = ", where - is past the end" if np.ma.is_masked(tile.stored) else ""
    yield [f"{'E3' if dw else 'E4'}^T of these, along each axis, the {what}{beyond}:", *_grid(tile.stored)]
    total = terms.total(**tile.arrays)
    same = np.isclose(tile.value, float(total), rtol=1e-9, atol=1e-9)
    verdict = "as the terms above add up to" if same else f"but the terms above add up to {total:g}"
    yield [f"{terms.array}{bracketed(terms.index)} = {tile.value:g}, {verdict}."]


def _places(places: Sequence[int | None]) -> str:
    return " ".join("-" if at is None else str(at) for at in places)


def cell_text(value: Any, digits: int = 4) -> str:
    """A number of a tile; "-" where there is none."""
    return "-" if value is np.ma.masked else f"{0.0 if abs(value) < 5e-13 else value:.{digits}g}"


def _grid(array: np.ndarray) -> list[str]:
    """The numbers of one row or several, in columns."""
    cells = [[cell_text(value) for value in row] for row in np.ma.atleast_2d(array)]
    width = max(len(cell) for row in cells for cell in row)
    return ["  " + "  ".join(cell.rjust(width) for cell in row) for row in cells]


def _matrices(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    """Matrices side by side, each row of them after the name of its point."""
    names = [row[0] for row in rows]
    columns = [[head[0], *names]]
    for column, title in enumerate(head[1:], 1):
        columns.append([title, *(line[2:] for line in _grid(np.array([row[column] for row in rows])))])
    widths = [max(map(len, column)) for column in columns]
    return [
        "  " + "   ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in zip(*columns, strict=True)
    ]
