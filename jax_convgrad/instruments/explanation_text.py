"""An explanation as text: the formula, which taps meet the element and why others do not, and the terms."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np

from jax_convgrad.instruments.candidates import relation, solution
from jax_convgrad.instruments.elements import Index, bracketed, shapes_of
from jax_convgrad.instruments.explained_terms import ExplainedTerms
from jax_convgrad.instruments.layer_text import Pool
from jax_convgrad.instruments.terms import OWN_LETTER, Term, Terms, winner
from jax_convgrad.table import Table

MOST_LINES = 18
"""Terms, and candidates of an axis, that are printed one by one unless all are asked for."""


def as_text(explanation: ExplainedTerms, everything: bool = False) -> str:
    """The explanation in lines of text.

    Args:
      explanation: what ``explain`` returned.
      everything: print every term, however many there are.
    """
    terms = explanation.terms
    shapes = shapes_of(terms.layer)
    arrays = ", ".join(f"{name} {bracketed(shapes[name])}" for name in ("x", "w", "y") if name in shapes)
    blocks = [
        [f"{terms.layer}", f"{arrays}"],
        [formula(terms), *_where(terms)],
        *_axes(terms, everything),
        [f"{_structure(terms)}:" if len(terms) else _structure(terms), *_listed(explanation, everything)],
        _compared(explanation),
    ]
    return "\n\n".join("\n".join(block) for block in blocks if block)


def formula(terms: Terms) -> str:
    """The element's sum in the letters of docs/derivation.md, with its own indices put in."""
    own = f"{terms.array}{bracketed(terms.index)}"
    n, c, k = terms.index[0], terms.in_channels[0], terms.index[-1]
    if isinstance(terms.layer, Pool):
        pool = terms.layer
        if pool.kind == "max" and terms.array == "y":
            return f"{own} = max over r of x[{n},i,{c}]"
        if pool.kind == "max":
            return (
                f"{own} = sum of dy[{n},o,{c}] over the windows o whose maximum is x{bracketed(terms.index)}"
            )
        count = math.prod(pool.window) if pool.count_include_pad else "count(o)"
        averaged = f"x[{n},i,{c}]" if terms.array == "y" else f"dy[{n},o,{c}]"
        return f"{own} = sum over r of {averaged} / {count}"
    right = {
        "y": f"sum over r, c of x[{n},i,c] * w[r,c,{k}]",
        "dx": f"sum over r, k of dy[{n},o,k] * w[r,{c % terms.group_in},k]",
        "dw": f"sum over n, o of x[n,i,{c}] * dy[n,o,{k}]",
        "db": f"sum over n, o of dy[n,o,{k}]",
    }
    return f"{own} = {right[terms.array]}"


def _where(terms: Terms) -> Iterator[str]:
    if terms.array != "db":
        relations = [relation(axis) for axis in terms.axes]
        if len(set(relations)) == 1:
            along = "" if len(relations) == 1 else " along each axis"
            yield f"where {relations[0]}{along}"
        else:
            yield "where " + ", ".join(f"{r} along axis {axis}" for axis, r in enumerate(relations))
    layer = terms.layer
    if isinstance(layer, Pool):
        if layer.kind == "avg" and not layer.count_include_pad:
            yield "and count(o) is the number of the window's taps that are on the input"
        return
    groups = layer.geometry.groups
    if groups > 1 and terms.array != "db":
        g = terms.in_channels[0] // terms.group_in
        group_out = layer.out_channels // groups
        c = _span(range(g * terms.group_in, (g + 1) * terms.group_in))
        k = _span(range(g * group_out, (g + 1) * group_out))
        yield f"in group {g} of {groups}, input channels {c} and output channels {k}; w counts c in its group"


def _span(numbers: range) -> str:
    return str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]}..{numbers[-1]}"


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
        if len(terms.axes) == 1:
            head = f"{letter} = {own}"
        else:
            which = f"Axis {numbers[0]}" if len(numbers) == 1 else f"Axes {' and '.join(map(str, numbers))}"
            head = f"{which}, {letter} = {own}"
        yield [head, *_abridged(lines, everything)]


def _abridged(lines: list[str], everything: bool) -> list[str]:
    if everything or len(lines) <= MOST_LINES:
        return lines
    left = len(lines) - (MOST_LINES - 4)
    return [*lines[: MOST_LINES - 6], f"  ... {left} more, which --all prints", *lines[-2:]]


def _structure(terms: Terms) -> str:
    """How many terms, and of what."""
    layer = terms.layer
    own = f"{terms.array}{bracketed(terms.index)}"
    tied = math.prod(map(len, terms.tied))
    of = math.prod(map(len, terms.candidates))
    count = len(terms)
    if not count and isinstance(layer, Pool) and terms.array == "y":
        empty = "-inf" if layer.kind == "max" else "0" if layer.count_include_pad else "0/0, which is NaN"
        return f"No terms, the window is on padding alone: {own} is {empty}"
    if not count:
        return f"No terms: {own} is 0"
    if isinstance(layer, Pool) and layer.kind == "max" and terms.array == "dx":
        held = f"{_many(count, 'window')} hold{'s' if count == 1 else ''} x{bracketed(terms.index)}"
        return f"{held}, by {tied} of {_many(of, 'tap')}; each whose first maximum it is gives its dy"
    parts = []
    if terms.array in ("dw", "db"):
        parts += [f"{len(terms.images)} images"] if len(terms.images) > 1 else []
        parts.append(f"{tied} of {_many(of, 'output')}")
    else:
        parts.append(f"{tied} of {_many(of, 'tap')}")
    for channels, which in ((terms.in_channels, "input"), (terms.out_channels, "output")):
        if len(channels) > 1:
            parts.append(f"{len(channels)} {which} channels")
    return f"{_many(count, 'term')}, {' x '.join(parts)}"


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _listed(explanation: ExplainedTerms, everything: bool) -> list[str]:
    """The terms, with numbers and value where there are any; channels together where there are many terms."""
    terms = explanation.terms
    rows = _by_channels(explanation) if not everything and len(terms) > MOST_LINES else None
    if rows is None:
        rows = _rows(explanation, everything)
    if explanation.values is None:
        return [f"  {text}".rstrip() for text, *_ in rows]
    rows.append((_result_name(terms), "", f"{explanation.total:g}", ""))
    cells = [(f"  {text}", n, "=" if value else "", value, which) for text, n, value, which in rows]
    return str(Table(tuple("tn=vw"), cells, frozenset("nv"))).splitlines()[1:]  # no head


def _result_name(terms: Terms) -> str:
    if isinstance(terms.layer, Pool) and terms.layer.kind == "max" and terms.array == "y":
        return "largest"
    return "sum"


Row = tuple[str, str, str, str]


def _rows(explanation: ExplainedTerms, everything: bool) -> list[Row]:
    """A row a term; from the middle of many all but the first and last are left out."""
    terms, count = explanation.terms, len(explanation.terms)
    if everything or count <= MOST_LINES:
        return [_row(explanation, number, term) for number, term in enumerate(terms)]
    head = MOST_LINES - 6
    first = [_row(explanation, number, term) for number, term in enumerate(itertools.islice(terms, head))]
    last = [terms[count - 2], terms[count - 1]]
    return [
        *first,
        (f"... {count - head - 2} more, which --all prints", "", "", ""),
        *(_row(explanation, count - 2 + number, term) for number, term in enumerate(last)),
    ]


def _row(explanation: ExplainedTerms, number: int, term: Term) -> Row:
    terms, arrays = explanation.terms, explanation.arrays
    text = terms.text(term)
    if explanation.values is None:
        return text, "", "", ""
    value = f"{explanation.values[number]:g}"
    if isinstance(terms.layer, Pool) and terms.layer.kind == "max":
        best = winner(terms.layer, arrays["x"], term.y)
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


def _number(value: Any) -> str:
    return f"({value:g})" if np.iscomplexobj(value) or value < 0 else f"{value:g}"


def _by_channels(explanation: ExplainedTerms) -> list[Row] | None:
    """A row for each tied triple with all its channels together, or None where there is nothing to gain."""
    terms = explanation.terms
    channels = len(terms.in_channels) * len(terms.out_channels)
    if channels == 1 or len(terms) // channels > MOST_LINES:
        return None
    rows = []
    for start in range(0, len(terms), channels):
        first, last = terms[start], terms[start + channels - 1]
        names = [name for name, _ in terms.factors(first)]
        indices = zip(terms.factors(first), terms.factors(last), strict=True)
        merged = [_ranged(a, b) for (_, a), (_, b) in indices]
        text = " * ".join(f"{name}[{index}]" for name, index in zip(names, merged, strict=True))
        value = ""
        if explanation.values is not None:
            value = f"{explanation.values[start : start + channels].sum():g}"
        rows.append((text, "", value, ""))
    return rows


def _ranged(first: Index, last: Index) -> str:
    return ",".join(str(a) if a == b else f"{a}..{b}" for a, b in zip(first, last, strict=True))


def _compared(explanation: ExplainedTerms) -> list[str]:
    if explanation.kernel is None or explanation.values is None:
        return []
    function, answer = explanation.kernel
    total = explanation.total
    if answer == total or (np.isnan(answer) and np.isnan(total)):
        verdict = "the same"
    else:
        # Each addition and each product may be off by half a unit of the partial sums, at most.
        unit = float(jnp.finfo(answer.dtype).eps) / 2
        bound = (len(explanation.values) + 2) * unit * float(np.abs(explanation.values).sum())
        within = "within" if abs(answer - total) <= bound else "more than"
        verdict = f"apart by {abs(answer - total):.2g}, {within} the rounding of {answer.dtype}"
    return [f"{function} returns {answer:g}: {verdict}."]
