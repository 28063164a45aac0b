"""The terms of one element of y, dx, dw or db, one by one, from the relation alone.

A term ties an input position ``i``, a filter tap ``r`` and an output position ``o``. Fixing the element's
own letter leaves one that runs, tap or output, and along each axis the relation (``geometry.py``) says for
each of its values which position is the third, or why there is none. No kernel takes part.
"""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from jax_convgrad.geometry import Axis
from jax_convgrad.instruments.candidates import Candidate, along_axis
from jax_convgrad.instruments.layer_text import Layer, parse_layer_or_pool

Index = tuple[int, ...]

OWN_LETTER = {"y": "o", "dx": "i", "dw": "r"}
"""The letter that an element of an array fixes; db has none of the three."""

MOST_CANDIDATES = 2**20
"""The most taps, or outputs, along an axis that are looked at."""


@dataclass(frozen=True)
class Term:
    """One summand, as the elements that it ties together.

    ``x`` is (n, i..., c), ``w`` is (r..., c, k) with c counted within its group, ``y`` is (n, o..., k), and
    ``r`` the tap. One of the three arrays has the element itself, and the other two are multiplied. A term of
    db has neither x nor w; one of pooling has no w, and in an average is divided by ``count``.
    """

    y: Index
    x: Index | None = None
    w: Index | None = None
    r: Index | None = None
    count: int = 1

    def index(self, array: str) -> Index:
        """The element in "x", "w" or "y", or in the gradient of one of these."""
        return {"x": self.x, "w": self.w, "y": self.y}[array[-1]] or ()


@dataclass(frozen=True)
class Terms:
    """All terms of one element: iterate over them, ``len()`` them, or ask for their ``values``.

    They come in the order image, tap or output position (row-major), channel. For dx of max pooling they are
    the candidates, one for each window that holds the input; ``values`` is 0 for a window that chose another.
    """

    layer: Layer
    array: str
    index: Index
    candidates: tuple[tuple[Candidate, ...], ...]
    images: range
    in_channels: range
    out_channels: range

    @property
    def axes(self) -> tuple[Axis, ...]:
        """The relation along each axis."""
        return self.layer.geometry.axes

    @property
    def group_in(self) -> int:
        """Input channels of a group: what w's own channel axis counts."""
        return self.layer.in_channels // self.layer.groups

    @cached_property
    def tied(self) -> tuple[tuple[Candidate, ...], ...]:
        """The candidates of each axis that are tied."""
        return tuple(tuple(c for c in along if not c.miss) for along in self.candidates)

    @property
    def _runs(self) -> tuple[Sequence[Any], ...]:
        return (self.images, *self.tied, self.in_channels, self.out_channels)

    def __len__(self) -> int:
        return math.prod(map(len, self._runs))

    def __iter__(self) -> Iterator[Term]:
        return itertools.starmap(self._term, itertools.product(*self._runs))

    def __getitem__(self, number: int) -> Term:
        """Term ``number``, from 0, without going through those before it."""
        if not 0 <= number < len(self):
            raise IndexError(f"there is no term {number}: the {len(self)} terms are counted from 0")
        chosen: list[Any] = []
        for run in reversed(self._runs):
            number, at = divmod(number, len(run))
            chosen.append(run[at])
        return self._term(*reversed(chosen))

    def _term(self, n: int, *rest: Any) -> Term:
        *ties, c, k = rest
        i, r, o = (tuple(getattr(tie, letter) for tie in ties) for letter in "iro")
        if self.array == "db":
            return Term((n, *o, k))
        if self.layer.pool:
            return Term((n, *o, c), (n, *i, c), None, r, window_count(self.layer, o))
        return Term((n, *o, k), (n, *i, c), (*r, c % self.group_in, k), r)

    @property
    def operands(self) -> tuple[str, ...]:
        """The arrays that decide the terms' values."""
        if self.layer.pool:
            return ("x",) if self.array == "y" else ("x", "dy") if self.layer.pool == "max" else ("dy",)
        return {"y": ("x", "w"), "dx": ("dy", "w"), "dw": ("x", "dy"), "db": ("dy",)}[self.array]

    @property
    def multiplied(self) -> tuple[str, ...]:
        """The arrays that are multiplied in a term: of max pooling's dx, dy alone."""
        return self.operands[-1:] if self.layer.pool else self.operands

    def factors(self, term: Term) -> list[tuple[str, Index]]:
        """The factors of a term: arrays by name, each with its index."""
        return [(name, term.index(name)) for name in self.multiplied]

    def text(self, term: Term) -> str:
        """A term in the letters of docs/derivation.md, ``dy[0,1,1,0] * w[2,2,0,0]``."""
        product = " * ".join(f"{name}{bracketed(index)}" for name, index in self.factors(term))
        return f"{product} / {term.count}" if self.layer.pool == "avg" else product

    def values(self, x: Any = None, w: Any = None, dy: Any = None) -> np.ndarray:
        """Computes the value of each term, in the order of the terms, from arrays channels last.

        Args:
          x: the layer's input, [N, spatial..., C]; needed for y and dw, and for dx of max pooling.
          w: the filter, [spatial..., C / groups, K]; needed for y and dx.
          dy: the gradient that arrives, [N, output spatial..., K]; needed for dx, dw and db.

        Returns:
          One number a term, in int64 for integers, else in float64 or complex128.

        Raises:
          ValueError: an array that is needed is missing or has another shape.
        """
        products = self._products(x=x, w=w, dy=dy)
        if self.layer.pool == "avg":
            return products / np.array([term.count for term in self], np.float64)
        if self.layer.pool == "max" and self.array == "dx":
            chosen = [winner(self.layer, x, term.y) == self.index for term in self]
            return np.where(np.array(chosen, bool), products, np.zeros_like(products))
        return products

    def total(self, x: Any = None, w: Any = None, dy: Any = None) -> Any:
        """The element itself: the sum of ``values``, or of max pooling's y the largest (-inf if none)."""
        if self.layer.pool and self.array == "y":
            products = self._products(x=x)
            if self.layer.pool == "max":
                return products.max() if len(products) else -np.inf
            count = window_count(self.layer, self.index[1:-1])
            return (np.float64(products.sum()) / count) if count else np.nan
        return self.values(x, w, dy).sum()

    def _products(self, **arrays: Any) -> np.ndarray:
        for name in self.operands:
            array, shape = arrays.get(name), self.layer.shapes[name]
            if array is None or np.shape(array) != shape:
                given = "missing" if array is None else f"of shape {np.shape(array)}"
                raise ValueError(f"{name} must be of shape {shape}, but is {given}")
        # Every array is laid out [n, positions..., c, k], with one entry if it does not have the letter.
        i, r, o = ([[getattr(t, letter) for t in along] for along in self.tied] for letter in "iro")
        in_group = [c % self.group_in for c in self.in_channels]
        places: dict[str, tuple[tuple[Any, ...], Any]] = {
            "x": ((self.images, *i, self.in_channels), (..., None)),
            "w": ((*r, in_group, self.out_channels), None),
            "dy": ((self.images, *o, self.out_channels), (..., None, slice(None))),
        }
        factors = [
            _exact(arrays[name])[np.ix_(*places[name][0])][places[name][1]] for name in self.multiplied
        ]
        return (factors[0] if len(factors) == 1 else factors[0] * factors[1]).reshape(-1)


def _exact(array: Any) -> np.ndarray:
    """An array in the widest dtype of its kind."""
    array = np.asarray(array)
    if array.dtype.kind in "biu":
        return array.astype(np.int64)
    return array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)


def terms_of(layer: Layer | str, array: str, index: Sequence[int]) -> Terms:
    """The terms of one element of a layer's output or gradients: ``terms_of(layer, "dx", (0, 2, 2, 0))``.

    Args:
      layer: a ``Layer``, or the line of text that says one.
      array: "y", "dx", "dw" or "db"; pooling has "y" and "dx".
      index: of the element: (n, o..., k) of y, (n, i..., c) of dx, (r..., c, k) of dw with c counted within
        its group, (k,) of db.

    Raises:
      TypeError: an index that is not integers.
      ValueError: ``layer`` is malformed, it has no such array, or the array no such element.
    """
    if isinstance(layer, str):
        layer = parse_layer_or_pool(layer)
    arrays = [name for name in ("y", "dx", "dw", "db") if name in layer.shapes]
    if array not in arrays:
        raise ValueError(f"array must be one of {', '.join(arrays)}, but is {array!r}")
    index = _checked_index(array, index, layer.shapes[array])
    letter, axes = OWN_LETTER.get(array, ""), layer.geometry.axes
    by_outputs = letter in ("", "r")
    most = max((axis.output if by_outputs else axis.taps for axis in axes), default=0)
    if most > MOST_CANDIDATES:
        raise ValueError(f"an axis of {most} {'outputs' if by_outputs else 'taps'} is too long to list")
    if not letter:
        candidates = tuple(tuple(Candidate(-1, -1, o) for o in range(axis.output)) for axis in axes)
    else:
        own = index[: len(axes)] if array == "dw" else index[1:-1]
        candidates = tuple(tuple(along_axis(axis, letter, at)) for axis, at in zip(axes, own, strict=True))
    images = range(layer.batch) if array in ("dw", "db") else range(index[0], index[0] + 1)
    return Terms(layer, array, index, candidates, images, *_channels(layer, array, index))


def _channels(layer: Layer, array: str, index: Index) -> tuple[range, range]:
    """The input and output channels that meet in the element."""
    last = range(index[-1], index[-1] + 1)
    group_in, group_out = layer.in_channels // layer.groups, layer.out_channels // layer.groups
    if array == "db":
        return range(1), last
    if array == "dx":
        first = index[-1] // group_in * group_out
        return last, range(first, first + group_out)
    first = index[-1] // group_out * group_in
    if array == "dw":
        return range(first + index[-2], first + index[-2] + 1), last
    return range(first, first + group_in), last


def _checked_index(array: str, index: Sequence[int], shape: Index) -> Index:
    names = letters(array, len(shape))
    try:
        result = tuple(operator.index(entry) for entry in index)
    except TypeError:
        raise TypeError(f"index must be a sequence of integers, not {index!r}") from None
    if len(result) != len(shape):
        raise ValueError(
            f"an element of {array} has {len(shape)} indices, {array}[{','.join(names)}], "
            f"not the {len(result)} of {bracketed(result)}"
        )
    for name, entry, size in zip(names, result, shape, strict=True):
        if not 0 <= entry < size:
            raise ValueError(
                f"{array}{bracketed(result)} does not exist: {name} is {entry}, and {array} is of shape "
                f"{bracketed(shape)}"
            )
    return result


def letters(array: str, dimensions: int) -> tuple[str, ...]:
    """The letter of each of an array's dimensions: n, i0, i1, c; with a single axis n, i, c."""
    own = {"x": "i", "w": "r", "y": "o", "b": ""}[array[-1]]
    spatial = (own,) if dimensions == 3 else tuple(f"{own}{axis}" for axis in range(dimensions - 2))
    return {"x": ("n", *spatial, "c"), "w": (*spatial, "c", "k"), "y": ("n", *spatial, "k"), "b": ("k",)}[
        array[-1]
    ]


def bracketed(index: Sequence[int]) -> str:
    """``[0,2,2,0]``."""
    return f"[{','.join(map(str, index))}]"


def window_count(layer: Layer, o: Sequence[int]) -> int:
    """The divisor of an average at output ``o``: the taps, or those on the input; of max pooling 1."""
    if layer.pool != "avg":
        return 1
    if layer.count_include_pad:
        return math.prod(layer.taps)
    axes = layer.geometry.axes
    return math.prod(
        sum(not c.miss for c in along_axis(axis, "o", at)) for axis, at in zip(axes, o, strict=True)
    )


def winner(layer: Layer, x: Any, y_index: Index) -> Index | None:
    """The element of x that a window of max pooling chose: the first NaN, else the first of the largest.

    Returns:
      (n, i..., c), or None if the window lies on padding alone.
    """
    best: Index | None = None
    x = np.asarray(x)
    for term in terms_of(layer, "y", y_index):
        assert term.x is not None
        # Not "greater": a NaN compares with nothing, and the first one ends the search.
        if best is None or x[term.x] > x[best] or (x[term.x] != x[term.x] and x[best] == x[best]):
            best = term.x
    return best
