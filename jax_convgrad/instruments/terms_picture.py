"""What a picture of an element's terms shows, cell by cell, before anything is drawn.

Each array is a panel: one channel of one image, or one filter. A cell is the element itself, a factor of the
term with its number, or one of those that take no part: a plain element, padding, or a zero between dilated
inputs. Positions of the input's panel are those of the padded, dilated input, counted from the first input.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jax_convgrad.geometry import dilated
from jax_convgrad.instruments.elements import Index
from jax_convgrad.instruments.layer_text import Pool
from jax_convgrad.instruments.terms import Term, Terms, winner

MOST_CELLS = 12
"""Cells of a panel along an axis; of a longer one only a part around the terms is drawn."""

OWN, FACTOR, PASSED, PLAIN, PADDING, ZERO = "own", "factor", "passed", "plain", "padding", "zero"
"""Kinds of cells. PASSED is of max pooling: a window that holds the element but chose another, what it chose
instead, or an input that is not its window's maximum."""


@dataclass
class Cell:
    """One cell: its kind, the number of its term (from 1), its index in the array, and a value to print."""

    kind: str
    term: int = 0
    index: Index | None = None
    value: Any = None


@dataclass
class Panel:
    """One array: its cells by position, and the positions along each axis, those drawn and all there are."""

    array: str
    caption: str
    letter: str
    ranges: tuple[range, ...]
    whole: tuple[range, ...]
    step: tuple[int, ...]
    unpadded: bool = False  # of three axes, whose slices of padding alone are left out
    cells: dict[Index, Cell] = field(default_factory=dict)

    def number(self, axis: int, position: int) -> int | None:
        """The array's own index at a position; None between dilated inputs."""
        index, rest = divmod(position, self.step[axis])
        return None if rest else index

    def position(self, index: Index) -> Index:
        """Where an element is, without its image and channels."""
        spatial = index[:-2] if self.letter == "r" else index[1:-1]
        return tuple(i * s for i, s in zip(spatial, self.step, strict=True))


@dataclass(frozen=True)
class Window:
    """An output's window: its term's number (0 is the element's), its positions, and whether dy passes."""

    term: int
    spans: tuple[range, ...]
    chosen: bool


@dataclass
class Picture:
    """Panels of x, w and y, the terms drawn, and windows: of y the element's, of pooling's dx each term's."""

    terms: Terms
    drawn: list[Term]
    panels: list[Panel]
    windows: list[Window] = field(default_factory=list)

    def panel(self, array: str) -> Panel:
        """The panel of "x", "w" or "y", or of the gradient of one, "dx", "dw" or "dy"."""
        return next(panel for panel in self.panels if panel.array[-1] == array[-1])

    @property
    def linked(self) -> bool:
        """Whether a term has cells in two panels, whose colour says that they belong together."""
        return self.terms.array != "db" and not (
            isinstance(self.terms.layer, Pool) and self.terms.array == "y"
        )

    @property
    def notes(self) -> list[str]:
        """What is left out."""
        terms, notes = self.terms, []
        for letter, channels in (("c", terms.in_channels), ("k", terms.out_channels)):
            if len(channels) > 1:
                notes.append(f"{letter} = {channels[0]} is drawn of {channels[0]}..{channels[-1]}")
        if len(terms.images) > 1:
            notes.append(f"image 0 is drawn of {len(terms.images)}")
        if any(panel.unpadded for panel in self.panels):
            notes.append("slices of padding alone are left out")
        if any(panel.ranges != panel.whole for panel in self.panels):
            notes.append("large arrays are drawn in part")
        return notes


def picture_of(terms: Terms, arrays: Mapping[str, Any]) -> Picture:
    """The panels of an element's terms; of several channels, and of several images, those of the first.

    Args:
      terms: from ``terms_of``.
      arrays: x, w and dy by name, whose values are printed into the cells; {} for none.
    """
    layer = terms.layer
    n, c = terms.images[0], terms.in_channels[0]
    k = c if isinstance(layer, Pool) else terms.out_channels[0]
    at = {"x": (n, c), "w": (c % terms.group_in, k), "y": (n, k)}
    picture = Picture(terms, _of_the_first_channel(terms), [])
    for array in ("x", "w", "y"):
        if (array == "w" and isinstance(layer, Pool)) or (array != "y" and terms.array == "db"):
            continue
        panel = _panel(terms, array, _name(terms, array, arrays), at[array])
        _fill(panel, terms, picture.drawn, at[array], arrays.get(panel.array))
        picture.panels.append(panel)
    if all(name in arrays for name in terms.operands) and terms.array != "db":
        own = picture.panel(terms.array)
        if own.array == terms.array:
            own.cells[own.position(terms.index)].value = terms.total(**arrays)
    if terms.array == "y":
        picture.windows = [Window(0, _span(terms, terms.index[1:-1]), True)]
    if isinstance(layer, Pool):
        _pool(picture, layer, arrays.get("x"))
    return picture


def _name(terms: Terms, array: str, arrays: Mapping[str, Any]) -> str:
    """Of a panel: x, or dx where the element is of dx and no x decides who gets it."""
    if terms.array == "y" or (array != "y" and array != terms.array[-1]):
        return array
    decides = isinstance(terms.layer, Pool) and terms.layer.kind == "max" and array == "x" and "x" in arrays
    return array if decides else f"d{array}"


def _of_the_first_channel(terms: Terms) -> list[Term]:
    """The terms of the first image and channel: one for each tied triple of positions."""
    positions = math.prod(map(len, terms.tied))
    channels = len(terms.in_channels) * len(terms.out_channels)
    return [terms[number * channels] for number in range(positions)]


def _panel(terms: Terms, array: str, name: str, at: tuple[int, int]) -> Panel:
    axes = terms.axes
    dots = ",".join(":" * len(axes))
    first, last = at
    caption = f"{name}[{dots},{first},{last}]" if array == "w" else f"{name}[{first},{dots},{last}]"
    letter = {"x": "i", "w": "r", "y": "o"}[array]
    step, unpadded = (1,) * len(axes), False
    if array == "x":
        step = tuple(axis.input_dilation for axis in axes)
        whole = []
        for axis in axes:
            read = (axis.output - 1) * axis.stride + (axis.taps - 1) * axis.filter_dilation - axis.pad_lo
            end = max(dilated(axis.input, axis.input_dilation) - 1, read)
            whole.append(range(min(0, -axis.pad_lo), end + 1))
        inputs = range(dilated(axes[0].input, axes[0].input_dilation))
        if len(axes) == 3 and whole[0] != inputs:
            whole[0], unpadded = inputs, True
    else:
        whole = [range(axis.taps if array == "w" else axis.output) for axis in axes]
    return Panel(name, caption, letter, tuple(whole), tuple(whole), step, unpadded)


def _fill(panel: Panel, terms: Terms, drawn: list[Term], at: tuple[int, int], values: Any) -> None:
    lit: dict[Index, int] = {}
    array = {"i": "x", "r": "w", "o": "y"}[panel.letter]
    if array == terms.array[-1]:
        lit[panel.position(terms.index)] = 0
    else:
        for number, term in enumerate(drawn, 1):
            index = {"x": term.x, "w": term.w, "y": term.y}[array]
            assert index is not None
            lit[panel.position(index)] = number
    panel.ranges = tuple(
        _part(whole, [position[axis] for position in lit]) for axis, whole in enumerate(panel.whole)
    )
    sizes = [getattr(a, {"x": "input", "w": "taps", "y": "output"}[array]) for a in terms.axes]
    ends = [dilated(size, step) for size, step in zip(sizes, panel.step, strict=True)]
    for position in itertools.product(*panel.ranges):
        numbers = [panel.number(axis, p) for axis, p in enumerate(position)]
        spatial = tuple(number for number in numbers if number is not None)
        if not all(0 <= p < end for p, end in zip(position, ends, strict=True)):
            panel.cells[position] = Cell(PADDING)
        elif len(spatial) < len(numbers):
            panel.cells[position] = Cell(ZERO)
        else:
            index = (*spatial, *at) if array == "w" else (at[0], *spatial, at[1])
            number = lit.get(position, -1)
            kind = PLAIN if number < 0 else FACTOR if number else OWN
            value = None if values is None else values[index]
            panel.cells[position] = Cell(kind, max(number, 0), index, value)


def _part(whole: range, lit: Sequence[int]) -> range:
    """All of a short range; of a long one the lit positions and two on either side, as far as they fit."""
    if len(whole) <= MOST_CELLS:
        return whole
    first, last = (min(lit), max(lit)) if lit else (whole[0], whole[0])
    start = max(first - 2, whole[0])
    return range(start, min(last + 3, whole[-1] + 1, start + MOST_CELLS))


def _span(terms: Terms, o: Index) -> tuple[range, ...]:
    """The positions from the first to the last tap of an output's window."""
    return tuple(
        range(at * a.stride - a.pad_lo, at * a.stride - a.pad_lo + dilated(a.taps, a.filter_dilation))
        for a, at in zip(terms.axes, o, strict=True)
    )


def _pool(picture: Picture, pool: Pool, x: Any) -> None:
    """The windows of a gradient's terms, and with x what max pooling passed over."""
    terms = picture.terms
    inputs, outputs = picture.panel("x"), picture.panel("y")
    maxima = pool.kind == "max" and x is not None
    if terms.array == "y":
        best = winner(pool, x, terms.index) if maxima else None
        for cell in inputs.cells.values():
            if maxima and cell.kind == FACTOR and cell.index != best:
                cell.kind = PASSED
        return
    for number, term in enumerate(picture.drawn, 1):
        best = winner(pool, x, term.y) if maxima else terms.index
        picture.windows.append(Window(number, _span(terms, term.y[1:-1]), best == terms.index))
        if best == terms.index or best is None:
            continue
        outputs.cells[outputs.position(term.y)].kind = PASSED
        instead = inputs.cells.get(inputs.position(best))
        if instead is not None and instead.kind == PLAIN:
            instead.kind, instead.term = PASSED, number
