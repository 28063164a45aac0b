"""The picture of an element's terms: input, filter and output as grids, each term's factors in one colour."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jax_convgrad.instruments.candidates import relation
from jax_convgrad.instruments.elements import Index, bracketed
from jax_convgrad.instruments.explanation_text import formula
from jax_convgrad.instruments.terms import Terms
from jax_convgrad.instruments.terms_picture import (
    FACTOR,
    OWN,
    PADDING,
    PASSED,
    PLAIN,
    ZERO,
    Cell,
    Panel,
    Picture,
    picture_of,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HUES = (
    "#88CCEE",
    "#CC6677",
    "#DDCC77",
    "#117733",
    "#AA4499",
    "#44AA99",
    "#332288",
    "#999933",
    "#882255",
)
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

Place = tuple[float, float]


def plot_terms(
    terms: Terms, x: Any = None, w: Any = None, dy: Any = None, title: str | None = None
) -> Figure:
    """Draws the arrays of a layer with the cells that make an element, one colour and number a term.

    Args:
      terms: from ``terms_of``.
      x: with w and dy the numbers to write into the cells, as ``Terms.values`` takes them.
      w: the filter.
      dy: the gradient that arrives.
      title: in place of the element's formula.

    Returns:
      A ``matplotlib.figure.Figure``, of no window; its ``savefig`` writes it.

    Raises:
      ImportError: matplotlib is not installed.
      ValueError: an array is of the wrong shape.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(_NEEDS_MATPLOTLIB) from error
    given = {"x": x, "w": w, "dy": dy}
    arrays = {name: array for name, array in given.items() if array is not None}
    picture = picture_of(terms, arrays)
    places, width, height = _places(picture)
    key = _key(picture, arrays)
    head = [title or formula(terms), f"{terms.layer}{_relations(terms)}"]
    notes = "; ".join(picture.notes)

    key_at = width + 1.2
    if key:
        width = key_at + 0.9 + max(map(len, key)) * 8 * _CHARACTER
        height = max(height, len(key) * _KEY + 0.4)
    texts = ((head[0], 10.5), (head[1], 8.5), (notes, 7.5))
    width = max(width, *(len(text) * size * _CHARACTER for text, size in texts))
    top, bottom = (2.5 if len(terms.axes) == 1 else 3.3), 1.1 if notes else 0.4
    if len(terms.axes) == 1 and len(places) > 1:
        bottom += 0.45  # the numbers below the last panel
    figure = Figure(figsize=((width + 0.8) * _INCH, (height + top + bottom) * _INCH), facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(-0.4, width + 0.4)
    axes.set_ylim(height + bottom, -top)
    axes.text(0, -top + 0.75, head[0], fontsize=10.5, color=_INK, weight="bold", va="center")
    axes.text(0, -top + 1.5, head[1], fontsize=8.5, color=_GREY, va="center")
    if notes:
        axes.text(0, height + bottom - 0.45, notes, fontsize=7.5, color=_GREY, va="center")
    if len(terms.axes) == 1:
        _links(axes, picture, places)
    for panel, place in zip(picture.panels, places, strict=True):
        _draw(axes, picture, panel, place)
    _draw_windows(axes, picture, places[0])
    for line, text in enumerate(key):
        _draw_key(axes, picture, line, text, (key_at, 0.2 + line * _KEY))
    return figure


def colour(picture: Picture, number: int) -> str:
    """Of a term: a hue of its own up to nine, then a scale from dark to light; one for all if not linked."""
    count = len(picture.drawn)
    if not picture.linked:
        return HUES[0]
    if count <= len(HUES):
        return HUES[number - 1]
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    return to_hex(colormaps["viridis"]((number - 1) / (count - 1)))


def check_path(path: str) -> None:
    """Refuses before the work what ``save`` would fail at.

    Raises:
      ImportError: matplotlib is not installed.
      OSError: no file can have such a name.
      ValueError: the folder is not there, or matplotlib writes no files of that suffix.
    """
    try:
        from matplotlib.backend_bases import FigureCanvasBase
    except ImportError as error:
        raise ImportError(_NEEDS_MATPLOTLIB) from error
    file = Path(path)
    kinds = FigureCanvasBase.get_supported_filetypes()
    if not file.parent.is_dir():
        raise ValueError(f"there is no folder {file.parent}")
    if file.is_dir():
        raise ValueError(f"{path or '.'} is a folder, not a file")
    if file.suffix.lower().removeprefix(".") not in kinds:
        raise ValueError(
            f"the name {path} should end in .png, .svg or .pdf (or .{', .'.join(sorted(kinds))})"
        )


def save(figure: Figure, path: str) -> None:
    """Writes a figure to a file by its suffix; text in SVG stays text.

    A .png, .svg, .pdf or .jpg has the same bytes every time.

    Raises:
      OSError: the file cannot be written.
      ValueError: matplotlib does not know the suffix.
    """
    from matplotlib import rc_context

    # None for the others: of a .jpg matplotlib refuses even an empty dictionary.
    undated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(path.lower().rpartition(".")[2])
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "jax_convgrad"}):
        figure.savefig(path, dpi=150, metadata=undated)


def _relations(terms: Terms) -> str:
    if terms.array == "db":
        return ""
    relations = dict.fromkeys(relation(axis) for axis in terms.axes)
    return f"; where {' and '.join(relations)}"


def _key(picture: Picture, arrays: Mapping[str, Any]) -> list[str]:
    """A line for each term, where they are as few as there are hues, and the sum where there are numbers."""
    terms = picture.terms
    if not 0 < len(picture.drawn) <= len(HUES) or not picture.linked:
        return []
    lines = [terms.text(term) for term in picture.drawn]
    if picture.windows and not all(window.chosen for window in picture.windows):
        passed = [not window.chosen for window in picture.windows]
        return [f"{t}: {'chose another' if p else 'chose it'}" for t, p in zip(lines, passed, strict=True)]
    if len(terms) == len(lines) and all(name in arrays for name in terms.operands):
        values = terms.values(**arrays)
        return [f"{text} = {value:g}" for text, value in zip(lines, values, strict=True)]
    return lines


def _places(picture: Picture) -> tuple[list[Place], float, float]:
    """Where the first cell of each panel is, in cells, and the width and height of all."""
    sizes = [_extent(panel) for panel in picture.panels]
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


def _extent(panel: Panel) -> Place:
    """Height and width in cells; the slices of three axes are stacked."""
    *outer, width = (len(r) for r in panel.ranges)
    if not outer:
        return 1, width
    return (outer[0], width) if len(outer) == 1 else (outer[0] * (outer[1] + 1) - 1, width)


def _at(panel: Panel, place: Place, position: Index) -> Place:
    """The upper left corner of a cell."""
    *outer, column = (p - r[0] for p, r in zip(position, panel.ranges, strict=True))
    row = 0
    if outer:
        row = outer[-1] if len(outer) == 1 else outer[0] * (len(panel.ranges[1]) + 1) + outer[1]
    return place[0] + column, place[1] + row


def _draw(axes: Axes, picture: Picture, panel: Panel, place: Place) -> None:
    weight = "bold" if panel.array == picture.terms.array else "normal"
    caption: dict[str, Any] = {"fontsize": 8.5, "color": _INK, "weight": weight, "va": "center"}
    if len(panel.ranges) == 1:
        axes.text(place[0] - 0.4, place[1] + 0.5, panel.caption, ha="right", **caption)
    else:
        middle = place[0] + _extent(panel)[1] / 2
        axes.text(middle, place[1] - 0.95, panel.caption, ha="center", **caption)
    for position, cell in panel.cells.items():
        _draw_cell(axes, picture, panel, cell, _at(panel, place, position))
    # In one dimension lines end on the last panel from above.
    last = picture.panels[-1] is panel and picture.panels[0] is not panel
    _draw_numbers(axes, panel, place, below=last and len(panel.ranges) == 1)


def _draw_cell(axes: Axes, picture: Picture, panel: Panel, cell: Cell, corner: Place) -> None:
    from matplotlib.patches import Rectangle

    count = len(picture.drawn)
    decided = cell.kind == OWN and panel.array == "x"  # a value in view: it is looked at, not asked for
    styles: dict[str, dict[str, Any]] = {
        PADDING: {"facecolor": "#f6f6f6", "edgecolor": _FAINT, "hatch": "/////", "linewidth": 0.6},
        ZERO: {"facecolor": "#fafafa", "edgecolor": _FAINT, "linewidth": 0.5, "linestyle": ":"},
        PLAIN: {"facecolor": "white", "edgecolor": _RULE, "linewidth": 0.7},
        FACTOR: {"edgecolor": _INK, "linewidth": 0.8},
        PASSED: {"facecolor": "white", "linewidth": 1.6, "linestyle": (0, (3, 2))},
        OWN: {"facecolor": "white" if decided else _INK, "edgecolor": _INK, "linewidth": 2 if decided else 1},
    }
    style = styles[cell.kind]
    if cell.kind == FACTOR:
        style["facecolor"] = colour(picture, cell.term)
    if cell.kind == PASSED and not picture.linked:
        style = {"facecolor": "#e9f5fb", "edgecolor": _RULE, "linewidth": 0.7}
    elif cell.kind == PASSED:
        style["edgecolor"] = colour(picture, cell.term)
    inset = 0.07 if cell.kind == PASSED and picture.linked else 0
    layer = {PADDING: 1, ZERO: 1, PLAIN: 1.1, PASSED: 1.3, FACTOR: 1.2, OWN: 1.4}[cell.kind]
    left, up = corner
    side = 1 - 2 * inset
    patch = Rectangle((left + inset, up + inset), side, side, zorder=layer, clip_on=False, **style)
    if cell.index is not None and cell.kind != PLAIN:
        patch.set_gid(f"{panel.array}{bracketed(cell.index)}")
    axes.add_patch(patch)

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


def _draw_numbers(axes: Axes, panel: Panel, place: Place, below: bool) -> None:
    """The indices along the edges, and of three axes which slice it is."""
    style: dict[str, Any] = {"fontsize": 6.5, "color": _GREY, "zorder": 2, **_PLACED}
    edge = 1.32 if below else -_NUMBER
    *outer, columns = panel.ranges
    first = tuple(r[0] for r in panel.ranges)
    for position in columns:
        number = panel.number(len(outer), position)
        if number is not None:
            left, up = _at(panel, place, (*first[:-1], position))
            axes.text(left + 0.5, up + edge, str(number), **style)
    left, up = _at(panel, place, first)
    axes.text(left - 0.35, up + edge, panel.letter, style="italic", **style)
    if not outer:
        return
    slices = outer[0] if len(outer) == 2 else (None,)
    for at in slices:
        before = () if at is None else (at,)
        for position in outer[-1]:
            number = panel.number(len(outer) - 1, position)
            if number is not None:
                left, up = _at(panel, place, (*before, position, columns[0]))
                axes.text(left - 0.35, up + 0.5, str(number), **style)
        if at is not None:
            left, up = _at(panel, place, (at, outer[1][0], columns[0]))
            middle = up + len(outer[1]) / 2
            name = panel.number(0, at)
            label = "zeros" if name is None else f"{panel.letter}0 = {name}"
            axes.text(left - 0.95, middle, label, rotation=90, **style)


def _links(axes: Axes, picture: Picture, places: list[Place]) -> None:
    """In one dimension: lines from input to tap to output, of each term; to a tap they end at its number."""
    for number, term in enumerate(picture.drawn, 1):
        ends = []
        for panel, place in zip(picture.panels, places, strict=True):
            above = 0 if panel is picture.panels[-1] else 2 * _NUMBER - 0.05
            index = {"x": term.x, "w": term.w, "y": term.y}[panel.array[-1]]
            position = panel.position(index or ())
            if position in panel.cells:
                left, up = _at(panel, place, position)
                ends += [(left + 0.5, up - above), (left + 0.5, up + 1)]
        if len(ends) < 2 * len(places):
            continue
        for line in zip(ends[1:-1:2], ends[2::2], strict=True):
            xs, ys = zip(*line, strict=True)
            axes.plot(xs, ys, color=colour(picture, number), linewidth=1.8, zorder=0.5)


def _draw_windows(axes: Axes, picture: Picture, place: Place) -> None:
    """An outline for each window, each a little smaller than the one before, so that all are seen."""
    from matplotlib.patches import Rectangle

    panel = picture.panels[0]
    if panel.array[-1] != "x" or len(panel.ranges) == 3:
        return
    for window in picture.windows:
        clipped = [
            (max(span[0], r[0]), min(span[-1], r[-1]))
            for span, r in zip(window.spans, panel.ranges, strict=True)
        ]
        left, up = _at(panel, place, tuple(low for low, _ in clipped))
        right, down = _at(panel, place, tuple(high for _, high in clipped))
        inset = 0.05 + 0.06 * ((window.term - 1) % 5) if window.term else 0
        corner, width, height = (left + inset, up + inset), right - left + 1, down - up + 1
        outline = Rectangle(
            corner, width - 2 * inset, height - 2 * inset, fill=False, linewidth=1.6, zorder=2
        )
        outline.set_edgecolor(colour(picture, window.term) if window.term else _INK)
        outline.set_linestyle("-" if window.chosen else (0, (3, 2)))
        outline.set_gid(f"window {window.term}")
        axes.add_patch(outline)


def _draw_key(axes: Axes, picture: Picture, line: int, text: str, corner: Place) -> None:
    from matplotlib.patches import Rectangle

    left, up = corner
    face = colour(picture, line + 1)
    side = _KEY - 0.14
    axes.add_patch(Rectangle((left, up), side, side, facecolor=face, edgecolor=_INK, linewidth=0.5))
    middle = up + side / 2
    number: dict[str, Any] = {"fontsize": 6.5, "color": _readable_on(face), **_PLACED}
    axes.text(left + side / 2, middle, str(line + 1), **number)
    axes.text(left + 0.75, middle, text, fontsize=8, color=_INK, va="center")
