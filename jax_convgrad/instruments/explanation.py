"""An explanation: the terms of one element, as text, for programs, and as a picture.

The text has the formula, which taps meet the element and why others do not, the terms with their numbers,
and what the kernel returns.
"""

from __future__ import annotations

import html
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np

from jax_convgrad.instruments.candidates import relation, solution
from jax_convgrad.instruments.terms import OWN_LETTER, Term, Terms, bracketed, winner
from jax_convgrad.table import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from jax_convgrad.instruments.winograd_tile import WinogradTile

MOST_LINES = 18
"""Terms, and candidates of an axis, that are printed one by one unless all are asked for."""

Row = tuple[str, str, str, str]
"""A line of the list: a term, its numbers, its value, a remark."""


@dataclass(frozen=True)
class Explanation:
    """The origin of an element of y, dx, dw or db; ``print`` it, look at it in a notebook, or ``plot`` it.

    Attributes:
      terms: the terms.
      arrays: x, w and dy by name, those that there are.
      values: a number a term; None without arrays, as are the next two.
      total: the element that the terms make.
      kernel: the function of this package that was asked for the same element, and its answer.
    """

    terms: Terms
    arrays: dict[str, Any]
    values: np.ndarray | None = None
    total: Any = None
    kernel: tuple[str, Any] | None = None

    def __str__(self) -> str:
        return self.text()

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"

    def plot(self, title: str | None = None) -> Figure:
        """Draws input, filter and output with the cells that make the element lit, as a figure of matplotlib.

        A term's factors have one colour and number. ``title`` stands in place of the formula.

        Raises:
          ImportError: matplotlib is not installed.
        """
        from jax_convgrad.instruments.explain_plot import plot_terms

        return plot_terms(self.terms, self.arrays, title or formula(self.terms))

    def winograd(self) -> WinogradTile:
        """The tile in which the CPU's kernel "winograd" computes the element: patch, transforms, products.

        Raises:
          ValueError: the kernel has no tile for it.
        """
        from jax_convgrad.instruments.winograd_tile import winograd_tile

        return winograd_tile(self.terms, self.arrays)

    def text(self, everything: bool = False) -> str:
        """The explanation in lines of text; ``everything`` prints every term, however many there are."""
        terms = self.terms
        shapes = terms.layer.shapes
        arrays = ", ".join(f"{name} {bracketed(shapes[name])}" for name in ("x", "w", "y") if name in shapes)
        blocks = [
            [str(terms.layer), arrays],
            [formula(terms), *_where(terms)],
            *_axes(terms, everything),
            [_structure(terms) + (":" if len(terms) else ""), *self._listed(everything)],
            self._compared(),
        ]
        return "\n\n".join("\n".join(block) for block in blocks if block)

    def as_dict(self) -> dict[str, Any]:
        """The explanation for programs: every term, and for each axis every candidate with what it gives.

        A term of max pooling has its window's maximum, and the value 0 in dx if that is another input.
        """
        terms, layer = self.terms, self.terms.layer
        result: dict[str, Any] = {
            "layer": str(layer),
            "array": terms.array,
            "index": terms.index,
            "formula": formula(terms),
            "axes": [],
            "terms": [],
        }
        for axis, along in zip(terms.axes, terms.candidates, strict=True):
            facts: list[dict[str, Any]] = []
            for c in along:
                facts.append({letter: getattr(c, letter) for letter in "iro" if getattr(c, letter) >= 0})
                if terms.array != "db":
                    facts[-1]["solution"] = solution(axis, OWN_LETTER[terms.array], c)
            result["axes"].append(facts)
        for number, term in enumerate(terms):
            entry: dict[str, Any] = {"text": terms.text(term), **dict(terms.factors(term))}
            if self.values is not None:
                entry["value"] = _json_number(self.values[number])
                if layer.pool == "max":
                    entry["maximum"] = winner(layer, self.arrays["x"], term.y)
            result["terms"].append(entry)
        if self.kernel is not None:
            function, answer = self.kernel
            result["total"] = _json_number(self.total)
            result["kernel"] = {"function": function, "returns": _json_number(answer)}
        return result

    # ------------------------------------------------------------------------------------- lists of the terms

    def _listed(self, everything: bool) -> list[str]:
        """The terms with their numbers; if there are many, channels together, or the middle left out."""
        terms, count = self.terms, len(self.terms)
        channels = len(terms.in_channels) * len(terms.out_channels)
        if everything or count <= MOST_LINES:
            rows = [self._row(number, term) for number, term in enumerate(terms)]
        elif channels > 1 and count // channels <= MOST_LINES:
            rows = [self._row_of_channels(start, channels) for start in range(0, count, channels)]
        else:
            head = MOST_LINES - 6
            rows = [self._row(number, term) for number, term in enumerate(itertools.islice(terms, head))]
            rows.append((f"... {count - head - 2} more, which --all prints", "", "", ""))
            rows += [self._row(number, terms[number]) for number in (count - 2, count - 1)]
        if self.values is None:
            return [f"  {text}" for text, *_ in rows]
        is_largest = terms.layer.pool == "max" and terms.array == "y"
        rows.append(("largest" if is_largest else "sum", "", f"{self.total:g}", ""))
        cells = [(f"  {text}", n, "=" if value else "", value, which) for text, n, value, which in rows]
        return str(Table(tuple("tn=vw"), cells, frozenset("nv"))).splitlines()[1:]  # no head

    def _row(self, number: int, term: Term) -> Row:
        terms, layer, arrays = self.terms, self.terms.layer, self.arrays
        text = terms.text(term)
        if self.values is None:
            return text, "", "", ""
        value = f"{self.values[number]:g}"
        if layer.pool == "max":
            best = winner(layer, arrays["x"], term.y)
            if terms.array == "y":
                return text, "", value, "the first maximum" if term.x == best else ""
            if best == terms.index:
                return text, "", value, "its window's maximum is this input"
            dy = np.asarray(arrays["dy"])[term.y]
            return text, "", f"{dy:g}", f"not added, its window's maximum is x{bracketed(best or ())}"
        numbers = " * ".join(_number(np.asarray(arrays[name])[index]) for name, index in terms.factors(term))
        if term.count != 1:
            numbers += f" / {term.count}"
        return text, numbers if "*" in numbers or "/" in numbers else "", value, ""

    def _row_of_channels(self, start: int, channels: int) -> Row:
        """All channels of a tied triple together."""
        ends = (self.terms.factors(self.terms[number]) for number in (start, start + channels - 1))
        parts = []
        for (name, first), (_, last) in zip(*ends, strict=True):
            ranges = [str(a) if a == b else f"{a}..{b}" for a, b in zip(first, last, strict=True)]
            parts.append(f"{name}[{','.join(ranges)}]")
        value = "" if self.values is None else f"{self.values[start : start + channels].sum():g}"
        return " * ".join(parts), "", value, ""

    def _compared(self) -> list[str]:
        if self.kernel is None or self.values is None:
            return []
        (function, answer), total = self.kernel, self.total
        if answer == total or (np.isnan(answer) and np.isnan(total)):
            verdict = "the same"
        else:
            # Each addition and each product may be off by half a unit of the partial sums, at most.
            unit = float(jnp.finfo(answer.dtype).eps) / 2
            bound = (len(self.values) + 2) * unit * float(np.abs(self.values).sum())
            within = "within" if abs(answer - total) <= bound else "more than"
            verdict = f"apart by {abs(answer - total):.2g}, {within} the rounding of {answer.dtype}"
        return [f"{function} returns {answer:g}: {verdict}."]


def formula(terms: Terms) -> str:
    """The element's sum in the letters of docs/derivation.md, with its own indices put in."""
    layer, array = terms.layer, terms.array
    own = f"{array}{bracketed(terms.index)}"
    n, c, k = terms.index[0], terms.in_channels[0], terms.index[-1]
    if layer.pool == "max" and array == "y":
        return f"{own} = max over r of x[{n},i,{c}]"
    if layer.pool == "max":
        return f"{own} = sum of dy[{n},o,{c}] over the windows o whose maximum is x{bracketed(terms.index)}"
    if layer.pool == "avg":
        count = math.prod(layer.taps) if layer.count_include_pad else "count(o)"
        averaged = f"x[{n},i,{c}]" if array == "y" else f"dy[{n},o,{c}]"
        return f"{own} = sum over r of {averaged} / {count}"
    right = {
        "y": f"sum over r, c of x[{n},i,c] * w[r,c,{k}]",
        "dx": f"sum over r, k of dy[{n},o,k] * w[r,{c % terms.group_in},k]",
        "dw": f"sum over n, o of x[n,i,{c}] * dy[n,o,{k}]",
        "db": f"sum over n, o of dy[n,o,{k}]",
    }
    return f"{own} = {right[array]}"


def _where(terms: Terms) -> Iterator[str]:
    """The conditions of the formula's sum."""
    layer = terms.layer
    if terms.array == "db":
        return
    relations = [relation(axis) for axis in terms.axes]
    if len(set(relations)) == 1:
        yield f"where {relations[0]}" + (" along each axis" if len(relations) > 1 else "")
    else:
        yield "where " + ", ".join(f"{r} along axis {axis}" for axis, r in enumerate(relations))
    if layer.pool == "avg" and not layer.count_include_pad:
        yield "and count(o) is the number of the window's taps that are on the input"
    if layer.groups > 1 and not layer.pool:
        g = terms.in_channels[0] // terms.group_in
        group_out = layer.out_channels // layer.groups
        spans = []
        for size in (terms.group_in, group_out):
            first, last = g * size, (g + 1) * size - 1
            spans.append(str(first) if first == last else f"{first}..{last}")
        yield (
            f"in group {g} of {layer.groups}, input channels {spans[0]} and output channels {spans[1]}; "
            "w counts c in its group"
        )


def _axes(terms: Terms, everything: bool) -> Iterator[list[str]]:
    """For each axis the letter that runs, and what the relation makes of its values."""
    if terms.array == "db":
        return
    letter = OWN_LETTER[terms.array]
    running = "o" if letter == "r" else "r"
    seen: dict[tuple[Any, ...], list[int]] = {}
    for number, (axis, along) in enumerate(zip(terms.axes, terms.candidates, strict=True)):
        seen.setdefault((axis, along), []).append(number)
    for (axis, along), numbers in seen.items():
        own = next((getattr(c, letter) for c in along), 0)
        lines = [f"  {running} = {getattr(c, running)}:  {solution(axis, letter, c)}" for c in along]
        if not everything and len(lines) > MOST_LINES:
            left = len(lines) - (MOST_LINES - 4)
            lines = [*lines[: MOST_LINES - 6], f"  ... {left} more, which --all prints", *lines[-2:]]
        which = f"Axis {numbers[0]}, " if len(numbers) == 1 else f"Axes {' and '.join(map(str, numbers))}, "
        yield [f"{which if len(terms.axes) > 1 else ''}{letter} = {own}", *lines]


def _structure(terms: Terms) -> str:
    """Says how many terms there are, and what they run over."""
    layer, count = terms.layer, len(terms)
    own = f"{terms.array}{bracketed(terms.index)}"
    tied = math.prod(map(len, terms.tied))
    of = math.prod(map(len, terms.candidates))
    if not count and layer.pool and terms.array == "y":
        empty = "-inf" if layer.pool == "max" else "0" if layer.count_include_pad else "0/0, which is NaN"
        return f"No terms, the window is on padding alone: {own} is {empty}"
    if not count:
        return f"No terms: {own} is 0"
    if layer.pool == "max" and terms.array == "dx":
        held = f"{_many(count, 'window')} hold{'s' if count == 1 else ''} x{bracketed(terms.index)}"
        return f"{held}, by {tied} of {_many(of, 'tap')}; each whose first maximum it is gives its dy"
    parts = [f"{len(terms.images)} images"] if len(terms.images) > 1 else []
    parts.append(f"{tied} of {_many(of, 'output' if terms.array in ('dw', 'db') else 'tap')}")
    for channels, which in ((terms.in_channels, "input"), (terms.out_channels, "output")):
        if len(channels) > 1:
            parts.append(f"{len(channels)} {which} channels")
    return f"{_many(count, 'term')}, {' x '.join(parts)}"


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _number(value: Any) -> str:
    return f"({value:g})" if np.iscomplexobj(value) or value < 0 else f"{value:g}"


def _json_number(value: Any) -> float | int | str:
    """JSON has no word for infinity and NaN, which an empty window gives; they are strings."""
    number = value.item() if hasattr(value, "item") else value
    return number if math.isfinite(number) else str(number)
