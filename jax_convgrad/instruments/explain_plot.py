"""The picture of an element's terms: input, filter and output as grids, each term's factors in one colour.

``picture_of`` decides what is shown, cell by cell; ``plot_terms`` draws it. Each array is a panel: one
channel of one image, or one filter. Positions in the input's panel are those of the padded, dilated input,
counted from the first input.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from jax_convgrad.geometry import dilated
from jax_convgrad.instruments.candidates import relation
from jax_convgrad.instruments.terms import Index, Term, Terms, bracketed, winner

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_CELLS = 12
"""The most cells of a panel along an axis; of a longer one only a part around the terms is drawn."""

OWN, FACTOR, PASSED, PLAIN, PADDING, ZERO = "own", "factor", "passed", "plain", "padding", "zero"
"""Kinds of cells: the element itself, a factor of a term, and those that take no part. PASSED is for max
pooling: a window that holds the element but chose another, what it chose instead, or an input that is not its
window's maximum."""

# ------------------------------------------------------------------------------------------ what is shown


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
    whole: tuple[range, ...]
    step: tuple[int, ...]
    unpadded: bool = False  # of three axes, whose slices of padding alone are left out
    ranges: tuple[range, ...] = ()
    cells: dict[Index, Cell] = field(default_factory=dict)

    def number(self, axis: int, position: int) -> int | None:
        """The array's own index at a position; None between dilated inputs."""
        index, rest = divmod(position, self.step[axis])
        return None if rest else index

    def position(self, index: Index) -> Index:
        """The position of an element, without its image and channels."""
        spatial = index[:-2] if self.letter == "r" else index[1:-1]
        return tuple(i * s for i, s in zip(spatial, self.step, strict=True))

    def extent(self) -> tuple[int, int]:
        """Height and width in cells; the slices of three axes are stacked."""
        *outer, width = (len(r) for r in self.ranges)
        if len(outer) == 2:
            return outer[0] * (outer[1] + 1) - 1, width
        return outer[0] if outer else 1, width

    def at(self, place: Place, position: Index) -> Place:
        """The upper left corner of a cell, in a panel whose first cell is at ``place``."""
        *outer, column = (p - r[0] for p, r in zip(position, self.ranges, strict=True))
        row = outer[-1] if outer else 0
        if len(outer) == 2:
            row += outer[0] * (len(self.ranges[1]) + 1)
        return place[0] + column, place[1] + row


class Window(NamedTuple):
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
    notes: list[str]
    windows: list[Window] = field(default_factory=list)

    def panel(self, array: str) -> Panel:
        """The panel of "x", "w" or "y", or of the gradient of one, "dx", "dw" or "dy"."""
        return next(panel for panel in self.panels if panel.array[-1] == array[-1])

    @property
    def linked(self) -> bool:
        """Reports whether a term has cells in two panels, whose colour says that they belong together."""
        return self.terms.array != "db" and not (self.terms.layer.pool and self.terms.array == "y")

    def colour(self, number: int) -> str:
        """A hue for each term, up to nine; for more a scale from dark to light; one for all if not linked."""
        if not self.linked or len(self.drawn) <= len(HUES):
            return HUES[number - 1 if self.linked else 0]
        from matplotlib import colormaps
        from matplotlib.colors import to_hex

        return to_hex(colormaps["viridis"]((number - 1) / (len(self.drawn) - 1)))


def picture_of(terms: Terms, arrays: Mapping[str, Any]) -> Picture:
    """The panels of an element's terms; of several channels, and of several images, those of the first.

    Args:
      terms: from ``terms_of``.
      arrays: x, w and dy by name, whose values are printed into the cells; {} for none.
    """
    n, c, k = terms.images[0], terms.in_channels[0], terms.out_channels[0]
    at = {"x": (n, c), "w": (c % terms.group_in, k), "y": (n, k)}
    channels = len(terms.in_channels) * len(terms.out_channels)
    positions = math.prod(map(len, terms.tied))
    picture = Picture(terms, [terms[number * channels] for number in range(positions)], [], [])
    for array in ("x", "w", "y"):
        if (array == "w" and terms.layer.pool) or (array != "y" and terms.array == "db"):
            continue
        panel = _panel(terms, array, _name(terms, array, arrays), at[array])
        _fill(panel, array, picture, at[array], arrays.get(panel.array))
        picture.panels.append(panel)
    own = picture.panel(terms.array) if terms.array != "db" else None
    if own is not None and own.array == terms.array and all(name in arrays for name in terms.operands):
        own.cells[own.position(terms.index)].value = terms.total(**arrays)
    if terms.array == "y":
        picture.windows = [Window(0, _span(terms, terms.index[1:-1]), True)]
    if terms.layer.pool:
        _mark_maxima(picture, arrays.get("x"))

    for letter, run in (("c", terms.in_channels), ("k", terms.out_channels)):
        if len(run) > 1:
            picture.notes.append(f"{letter} = {run[0]} is drawn of {run[0]}..{run[-1]}")
    if len(terms.images) > 1:
        picture.notes.append(f"image 0 is drawn of {len(terms.images)}")
    if any(panel.unpadded for panel in picture.panels):
        picture.notes.append("slices of padding alone are left out")
    if any(panel.ranges != panel.whole for panel in picture.panels):
        picture.notes.append("large arrays are drawn in part")
    return picture


def _name(terms: Terms, array: str, arrays: Mapping[str, Any]) -> str:
    """The panel's array: x, or dx if the element is of dx and no x decides who gets it."""
    if terms.array == "y" or (array != "y" and array != terms.array[-1]):
        return array
    return array if terms.layer.pool == "max" and array == "x" and "x" in arrays else f"d{array}"


def _panel(terms: Terms, array: str, name: str, at: tuple[int, int]) -> Panel:
    axes = terms.axes
    dots = ",".join(":" * len(axes))
    caption = f"{name}[{dots},{at[0]},{at[1]}]" if array == "w" else f"{name}[{at[0]},{dots},{at[1]}]"
    if array != "x":
        whole = [range(axis.taps if array == "w" else axis.output) for axis in axes]
        return Panel(name, caption, "r" if array == "w" else "o", tuple(whole), (1,) * len(axes))
    whole = []
    for axis in axes:
        read = (axis.output - 1) * axis.stride + (axis.taps - 1) * axis.filter_dilation - axis.pad_lo
        end = max(dilated(axis.input, axis.input_dilation) - 1, read)
        whole.append(range(min(0, -axis.pad_lo), end + 1))
    inputs = range(dilated(axes[0].input, axes[0].input_dilation))
    unpadded = len(axes) == 3 and whole[0] != inputs
    if unpadded:
        whole[0] = inputs
    return Panel(name, caption, "i", tuple(whole), tuple(axis.input_dilation for axis in axes), unpadded)


def _fill(panel: Panel, array: str, picture: Picture, at: tuple[int, int], values: Any) -> None:
    terms = picture.terms
    if array == terms.array[-1]:
        lit = {panel.position(terms.index): 0}
    else:
        lit = {panel.position(term.index(array)): number for number, term in enumerate(picture.drawn, 1)}
    panel.ranges = tuple(
        _part(whole, [position[axis] for position in lit]) for axis, whole in enumerate(panel.whole)
    )
    sizes = [getattr(a, {"x": "input", "w": "taps", "y": "output"}[array]) for a in terms.axes]
    ends = [dilated(size, step) for size, step in zip(sizes, panel.step, strict=True)]
    for position in itertools.product(*panel.ranges):
        spatial = [panel.number(axis, p) for axis, p in enumerate(position)]
        if not all(0 <= p < end for p, end in zip(position, ends, strict=True)):
            panel.cells[position] = Cell(PADDING)
        elif None in spatial:
            panel.cells[position] = Cell(ZERO)
        else:
            index: Any = (*spatial, *at) if array == "w" else (at[0], *spatial, at[1])
            number = lit.get(position, -1)
            kind = PLAIN if number < 0 else FACTOR if number else OWN
            panel.cells[position] = Cell(
                kind, max(number, 0), index, None if values is None else values[index]
            )


def _part(whole: range, lit: Sequence[int]) -> range:
    """All of a short range; of a long one the lit positions and two on either side, as far as they fit."""
    if len(whole) <= MOST_CELLS:
        return whole
    first, last = (min(lit), max(lit)) if lit else (whole[0], whole[0])
    start = max(first - 2, whole[0])
    return range(start, min(last + 3, whole[-1] + 1, start + MOST_CELLS))


def _span(terms: Terms, o: Index) -> tuple[range, ...]:
    """The positions from the first to the last tap of an output's window."""
    starts = [at * axis.stride - axis.pad_lo for axis, at in zip(terms.axes, o, strict=True)]
    return tuple(
        range(start, start + dilated(axis.taps, axis.filter_dilation))
        for axis, start in zip(terms.axes, starts, strict=True)
    )


def _mark_maxima(picture: Picture, x: Any) -> None:
    """The windows of a pooling gradient's terms, and with x what max pooling passed over."""
    terms = picture.terms
    inputs, outputs = picture.panel("x"), picture.panel("y")
    with_maxima = terms.layer.pool == "max" and x is not None
    if terms.array == "y":
        best = winner(terms.layer, x, terms.index) if with_maxima else None
        for cell in inputs.cells.values():
            if with_maxima and cell.kind == FACTOR and cell.index != best:
                cell.kind = PASSED
        return
    for number, term in enumerate(picture.drawn, 1):
        best = winner(terms.layer, x, term.y) if with_maxima else terms.index
        picture.windows.append(Window(number, _span(terms, term.y[1:-1]), best == terms.index))
        if best == terms.index or best is None:
            continue
        outputs.cells[outputs.position(term.y)].kind = PASSED
        instead = inputs.cells.get(inputs.position(best))
        if instead is not None and instead.kind == PLAIN:
            instead.kind, instead.term = PASSED, number


# --------------------------------------------------------------------------------------------- the drawing

HUES = ("#88CCEE", "#CC6677", "#DDCC77", "#117733", "#AA4499", "#44AA99", "#332288", "#999933", "#882255")
"""Nine that stay apart for colour-blind eyes: "muted" of Paul Tol's Colour Schemes, SRON/EPS/TN/09-002.

The terms are numbered as well, so that no reader has to tell colours apart.
"""

_INK, _GREY, _RULE, _FAINT = "#1a1a1a", "#767676", "#9a9a9a", "#d9d9d9"
_INCH = 0.36  # a cell
_GAP = 2.4  # between panels, in cells, for the numbers of the rows
_NUMBER = 0.3  # from a cell up to the middle of its number, in cells
_KEY = 0.62  # a line of the key, in cells
_CHARACTER = 0.0083 / _INCH  # wide, in cells, one character of one point
_MOST_WRITTEN = 99  # terms whose numbers and values are written into their cells
_NEEDS_MATPLOTLIB = 'a picture needs matplotlib: pip install "jax_convgrad[plot]"'
_PLACED = {"ha": "center", "va": "center"}
_DASHED = (0, (3, 2))

Place = tuple[float, float]


def plot_terms(terms: Terms, arrays: Mapping[str, Any], title: str) -> Figure:
    """Draws the arrays of a layer with the cells that make an element, one colour and number a term.

    Args:
      terms: from ``terms_of``.
      arrays: x, w and dy by name, those whose numbers are to be written into the cells.
      title: the first line above the picture.

    Returns:
      A ``matplotlib.figure.Figure`` without a window; its ``savefig`` writes it.

    Raises:
      ImportError: matplotlib is not installed.
      ValueError: an array is of the wrong shape.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(_NEEDS_MATPLOTLIB) from error
    picture = picture_of(terms, arrays)
    places, width, height = _places(picture)
    relations = " and ".join(dict.fromkeys(relation(axis) for axis in terms.axes))
    layer = f"{terms.layer}; where {relations}" if terms.array != "db" else str(terms.layer)
    notes = "; ".join(picture.notes)

    key, key_at = _key(picture, arrays), width + 1.2
    if key:
        width = key_at + 0.9 + max(map(len, key)) * 8 * _CHARACTER
        height = max(height, len(key) * _KEY + 0.4)
    texts = ((title, 10.5), (layer, 8.5), (notes, 7.5))
    width = max(width, *(len(text) * size * _CHARACTER for text, size in texts))
    top, bottom = (2.5 if len(terms.axes) == 1 else 3.3), 1.1 if notes else 0.4
    if len(terms.axes) == 1 and len(places) > 1:
        bottom += 0.45  # the numbers below the last panel
    figure = Figure(figsize=((width + 0.8) * _INCH, (height + top + bottom) * _INCH), facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(-0.4, width + 0.4)
    axes.set_ylim(height + bottom, -top)
    axes.text(0, -top + 0.75, title, fontsize=10.5, color=_INK, weight="bold", va="center")
    axes.text(0, -top + 1.5, layer, fontsize=8.5, color=_GREY, va="center")
    if notes:
        axes.text(0, height + bottom - 0.45, notes, fontsize=7.5, color=_GREY, va="center")
    if len(terms.axes) == 1:
        _draw_links(axes, picture, places)
    for panel, place in zip(picture.panels, places, strict=True):
        _draw_panel(axes, picture, panel, place)
    _draw_windows(axes, picture, places[0])
    _draw_key(axes, picture, key, key_at)
    return figure


def fault_of(path: str) -> str:
    """Says what ``save`` would fail at, so that it can be refused before the work; "" if it would not fail.

    Raises:
      ImportError: matplotlib is not installed.
      OSError: no file can have such a name.
    """
    try:
        from matplotlib.backend_bases import FigureCanvasBase
    except ImportError as error:
        raise ImportError(_NEEDS_MATPLOTLIB) from error
    file = Path(path)
    kinds = FigureCanvasBase.get_supported_filetypes()
    if not file.parent.is_dir():
        return f"there is no folder {file.parent}"
    if file.is_dir():
        return f"{path or '.'} is a folder, not a file"
    if file.suffix.lower().removeprefix(".") not in kinds:
        return f"the name {path} should end in .png, .svg or .pdf (or .{', .'.join(sorted(kinds))})"
    return ""


def save(figure: Figure, path: str) -> None:
    """Writes a figure to a file by its suffix, with the same bytes every time; text in SVG stays text.

    Raises:
      OSError: the file cannot be written.
      ValueError: matplotlib does not know the suffix.
    """
    from matplotlib import rc_context

    # None for the others: of a .jpg matplotlib refuses even an empty dictionary.
    undated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(path.lower().rpartition(".")[2])
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "jax_convgrad"}):
        figure.savefig(path, dpi=150, metadata=undated)


def _key(picture: Picture, arrays: Mapping[str, Any]) -> list[str]:
    """A line for each term, if there are few, with its number or with what its window chose."""
    terms = picture.terms
    if not 0 < len(picture.drawn) <= len(HUES) or not picture.linked:
        return []
    lines = [terms.text(term) for term in picture.drawn]
    if not all(window.chosen for window in picture.windows):
        chose = ["chose it" if window.chosen else "chose another" for window in picture.windows]
        return [f"{text}: {what}" for text, what in zip(lines, chose, strict=True)]
    if len(terms) == len(lines) and all(name in arrays for name in terms.operands):
        return [f"{text} = {value:g}" for text, value in zip(lines, terms.values(**arrays), strict=True)]
    return lines


def _places(picture: Picture) -> tuple[list[Place], float, float]:
    """Returns the place of each panel's first cell, in cells, and the width and height of all."""
    sizes = [panel.extent() for panel in picture.panels]
    if len(picture.terms.axes) == 1:
        left = max(len(panel.caption) for panel in picture.panels) * 8.5 * _CHARACTER + 0.5
        width = max(w for _, w in sizes)
        places = [(left + (width - w) / 2, 2.6 * number) for number, (_, w) in enumerate(sizes)]
        return places, width + left, 2.6 * len(sizes) - 1.6
    height = max(h for h, _ in sizes)
    places, right = [], 0.8
    for h, w in sizes:
        places.append((right, (height - h) / 2))
        right += w + _GAP
    return places, right - _GAP, height


def _draw_panel(axes: Axes, picture: Picture, panel: Panel, place: Place) -> None:
    """An array with its caption, and the indices along the edges; of three axes also which slice it is."""
    weight = "bold" if panel.array == picture.terms.array else "normal"
    caption: dict[str, Any] = {"fontsize": 8.5, "color": _INK, "weight": weight, "va": "center"}
    *outer, columns = panel.ranges
    if not outer:
        axes.text(place[0] - 0.4, place[1] + 0.5, panel.caption, ha="right", **caption)
    else:
        middle = place[0] + panel.extent()[1] / 2
        axes.text(middle, place[1] - 0.95, panel.caption, ha="center", **caption)
    for position, cell in panel.cells.items():
        _draw_cell(axes, picture, panel, cell, panel.at(place, position))

    style: dict[str, Any] = {"fontsize": 6.5, "color": _GREY, "zorder": 2, **_PLACED}

    def write_number(axis: int, position: Index, right: float, down: float) -> None:
        number = panel.number(axis, position[axis])
        if number is not None:
            left, up = panel.at(place, position)
            axes.text(left + right, up + down, str(number), **style)

    # In one dimension lines end on the last panel from above.
    last = not outer and picture.panels[-1] is panel and picture.panels[0] is not panel
    edge = 1.32 if last else -_NUMBER
    first = tuple(r[0] for r in panel.ranges)
    for column in columns:
        write_number(len(outer), (*first[:-1], column), 0.5, edge)
    left, up = panel.at(place, first)
    axes.text(left - 0.35, up + edge, panel.letter, style="italic", **style)
    for before in itertools.product(*outer[:-1]) if outer else ():
        for row in outer[-1]:
            write_number(len(outer) - 1, (*before, row, columns[0]), -0.35, 0.5)
        if before:
            left, up = panel.at(place, (*before, outer[-1][0], columns[0]))
            name = panel.number(0, before[0])
            label = "zeros" if name is None else f"{panel.letter}0 = {name}"
            axes.text(left - 0.95, up + len(outer[-1]) / 2, label, rotation=90, **style)


def _draw_cell(axes: Axes, picture: Picture, panel: Panel, cell: Cell, corner: Place) -> None:
    from matplotlib.patches import Rectangle

    colour = picture.colour(cell.term) if cell.term else _INK
    style: dict[str, Any] = {
        PADDING: {"facecolor": "#f6f6f6", "edgecolor": _FAINT, "hatch": "/////", "linewidth": 0.6},
        ZERO: {"facecolor": "#fafafa", "edgecolor": _FAINT, "linewidth": 0.5, "linestyle": ":"},
        PLAIN: {"facecolor": "white", "edgecolor": _RULE, "linewidth": 0.7},
        FACTOR: {"facecolor": colour, "edgecolor": _INK, "linewidth": 0.8},
        PASSED: {"facecolor": "white", "edgecolor": colour, "linewidth": 1.6, "linestyle": _DASHED},
        OWN: {"facecolor": _INK, "edgecolor": _INK, "linewidth": 1},
    }[cell.kind]
    if cell.kind == OWN and panel.array == "x":  # its value is in view: it is looked at, not asked for
        style |= {"facecolor": "white", "linewidth": 2}
    inset = 0.0
    if cell.kind == PASSED and picture.linked:
        inset = 0.07
    elif cell.kind == PASSED:
        style = {"facecolor": "#e9f5fb", "edgecolor": _RULE, "linewidth": 0.7}
    layer = {PADDING: 1, ZERO: 1, PLAIN: 1.1, PASSED: 1.3, FACTOR: 1.2, OWN: 1.4}[cell.kind]
    left, up = corner
    side = 1 - 2 * inset
    patch = Rectangle((left + inset, up + inset), side, side, zorder=layer, clip_on=False, **style)
    if cell.index is not None and cell.kind != PLAIN:
        patch.set_gid(f"{panel.array}{bracketed(cell.index)}")
    axes.add_patch(patch)

    count = len(picture.drawn)
    ink = _readable_on(style["facecolor"]) if cell.kind != PLAIN else _GREY
    text: dict[str, Any] = {"color": ink, "zorder": 3, **_PLACED}
    if cell.value is not None and (count <= _MOST_WRITTEN or cell.kind == OWN):
        number = f"{cell.value:.3g}"
        axes.text(left + 0.5, up + 0.54, number, fontsize=8 if len(number) < 4 else 6.5, **text)
        if picture.linked and cell.term and count <= len(HUES):
            axes.text(left + 0.2, up + 0.22, str(cell.term), fontsize=5, **text)
    elif cell.term and count <= _MOST_WRITTEN:
        axes.text(left + 0.5, up + 0.52, str(cell.term), fontsize=8, **text)
    elif cell.kind == OWN:
        axes.text(left + 0.5, up + 0.52, "?", fontsize=9, weight="bold", **text)


def _readable_on(face: str) -> str:
    """Black or white, whichever has more contrast by the relative luminance of WCAG 2."""
    from matplotlib.colors import to_rgb

    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(face)]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return _INK if luminance > 0.18 else "white"


def _draw_links(axes: Axes, picture: Picture, places: list[Place]) -> None:
    """Draws one dimension: each term's lines from input to tap to output; to a tap they end at its number."""
    for number, term in enumerate(picture.drawn, 1):
        ends = []
        for panel, place in zip(picture.panels, places, strict=True):
            above = 0 if panel is picture.panels[-1] else 2 * _NUMBER - 0.05
            position = panel.position(term.index(panel.array))
            if position in panel.cells:
                left, up = panel.at(place, position)
                ends += [(left + 0.5, up - above), (left + 0.5, up + 1)]
        if len(ends) < 2 * len(places):
            continue
        for line in zip(ends[1:-1:2], ends[2::2], strict=True):
            xs, ys = zip(*line, strict=True)
            axes.plot(xs, ys, color=picture.colour(number), linewidth=1.8, zorder=0.5)


def _draw_windows(axes: Axes, picture: Picture, place: Place) -> None:
    """An outline for each window, each a little smaller than the one before, so that all are seen."""
    from matplotlib.patches import Rectangle

    panel = picture.panels[0]
    if panel.letter != "i" or len(panel.ranges) == 3:
        return
    for window in picture.windows:
        low = [max(span[0], r[0]) for span, r in zip(window.spans, panel.ranges, strict=True)]
        high = [min(span[-1], r[-1]) for span, r in zip(window.spans, panel.ranges, strict=True)]
        (left, up), (right, down) = panel.at(place, tuple(low)), panel.at(place, tuple(high))
        inset = 0.05 + 0.06 * ((window.term - 1) % 5) if window.term else 0
        width, height = right - left + 1 - 2 * inset, down - up + 1 - 2 * inset
        outline = Rectangle(
            (left + inset, up + inset), width, height, fill=False, linewidth=1.6, zorder=2,
            edgecolor=picture.colour(window.term) if window.term else _INK,
            linestyle="-" if window.chosen else _DASHED,
        )  # fmt: skip
        outline.set_gid(f"window {window.term}")
        axes.add_patch(outline)


def _draw_key(axes: Axes, picture: Picture, lines: list[str], left: float) -> None:
    from matplotlib.patches import Rectangle

    side = _KEY - 0.14
    for number, text in enumerate(lines, 1):
        up, face = 0.2 + (number - 1) * _KEY, picture.colour(number)
        axes.add_patch(Rectangle((left, up), side, side, facecolor=face, edgecolor=_INK, linewidth=0.5))
        style: dict[str, Any] = {"fontsize": 6.5, "color": _readable_on(face), **_PLACED}
        axes.text(left + side / 2, up + side / 2, str(number), **style)
        axes.text(left + 0.75, up + side / 2, text, fontsize=8, color=_INK, va="center")
