"""The terms of one element of y, dx, dw or db, one by one, from the relation alone.

A term ties an input position ``i``, a filter tap ``r`` and an output position ``o``. Fixing the element's
own letter leaves one that runs, tap or output, and along each axis the relation (``geometry.py``) says for
each of its values which position is the third, or why there is none. No kernel takes part.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from jax_convgrad.geometry import Axis
from jax_convgrad.instruments.candidates import Candidate, along_axis
from jax_convgrad.instruments.elements import (
    AnyLayer,
    Index,
    axes_of,
    bracketed,
    checked_index,
    shapes_of,
)
from jax_convgrad.instruments.layer_text import Pool, parse_layer_or_pool

OWN_LETTER = {"y": "o", "dx": "i", "dw": "r"}
"""The letter that an element of an array fixes; db has none of the three."""


@dataclass(frozen=True)
class Term:
    """One summand, as the elements that it ties together.

    ``x`` is (n, i..., c), ``w`` is (r..., c, k) with c counted within its group, ``y`` is (n, o..., k), and
    ``r`` the tap. Of the three arrays one is the element's own and the other two are multiplied. A term of
    db has neither x nor w; one of pooling has no w, and in an average is divided by ``count``.
    """

    y: Index
    x: Index | None = None
    w: Index | None = None
    r: Index | None = None
    count: int = 1


@dataclass(frozen=True)
class Terms:
    """All terms of one element: iterate over them, ``len()`` them, or ask for their ``values``.

    They come in the order image, tap or output position (row-major), channel. Of max pooling's dx they are
    the candidates, one for each window that holds the input; ``values`` is 0 for a window that chose another.
    """

    layer: AnyLayer
    array: str
    index: Index
    candidates: tuple[tuple[Candidate, ...], ...]
    images: range
    in_channels: range
    out_channels: range

    @property
    def axes(self) -> tuple[Axis, ...]:
        """The relation along each axis."""
        return axes_of(self.layer)

    @cached_property
    def tied(self) -> tuple[tuple[Candidate, ...], ...]:
        """The candidates of each axis that are tied."""
        return tuple(tuple(c for c in along if not c.miss) for along in self.candidates)

    def __len__(self) -> int:
        return math.prod(map(len, (self.images, *self.tied, self.in_channels, self.out_channels)))

    def __iter__(self) -> Iterator[Term]:
        runs = (self.images, *self.tied, self.in_channels, self.out_channels)
        return itertools.starmap(self._term, itertools.product(*runs))

    def __getitem__(self, number: int) -> Term:
        """Term ``number``, from 0, without going through those before it."""
        if not 0 <= number < len(self):
            raise IndexError(f"there are {len(self)} terms, and none is number {number}")
        runs = (self.images, *self.tied, self.in_channels, self.out_channels)
        chosen: list[Any] = []
        for run in reversed(runs):
            number, at = divmod(number, len(run))
            chosen.append(run[at])
        return self._term(*reversed(chosen))

    def _term(self, n: int, *rest: Any) -> Term:
        *ties, c, k = rest
        i, r, o = (tuple(getattr(tie, letter) for tie in ties) for letter in "iro")
        if self.array == "db":
            return Term((n, *o, k))
        if isinstance(self.layer, Pool):
            return Term((n, *o, c), (n, *i, c), None, r, window_count(self.layer, o))
        return Term((n, *o, k), (n, *i, c), (*r, c % self.group_in, k), r)

    def values(self, x: Any = None, w: Any = None, dy: Any = None) -> np.ndarray:
        """What each term is, in the order of the terms, from arrays channels last.

        Args:
          x: the layer's input, [N, spatial..., C]; of y and dw, and of max pooling's dx.
          w: the filter, [spatial..., C / groups, K]; of y and dx.
          dy: the gradient that arrives, [N, output spatial..., K]; of dx, dw and db.

        Returns:
          One number a term, in int64 of integers, else in float64 or complex128.

        Raises:
          ValueError: an array that is needed is missing or of another shape.
        """
        shapes = shapes_of(self.layer)
        needed = {name: array for name, array in (("x", x), ("w", w), ("dy", dy)) if name in self.operands}
        for name, array in needed.items():
            if array is None or np.shape(array) != shapes[name]:
                given = "missing" if array is None else f"of shape {np.shape(array)}"
                raise ValueError(f"{name} must be of shape {shapes[name]}, but is {given}")
        x, w, dy = (needed.get(name) for name in ("x", "w", "dy"))
        # Every array is laid out [n, positions..., c, k], with one entry where it does not have the letter.
        at = {letter: [[getattr(t, letter) for t in along] for along in self.tied] for letter in "iro"}
        factors = []
        if isinstance(self.layer, Pool):
            return self._pooled(x, dy)
        if "x" in needed:
            factors.append(_exact(x)[np.ix_(self.images, *at["i"], self.in_channels)][..., None])
        if "w" in needed:
            channels = [c % self.group_in for c in self.in_channels]
            factors.append(_exact(w)[np.ix_(*at["r"], channels, self.out_channels)][None])
        if "dy" in needed:
            factors.append(_exact(dy)[np.ix_(self.images, *at["o"], self.out_channels)][..., None, :])
        product = factors[0] if len(factors) == 1 else factors[0] * factors[1]
        return product.reshape(-1)

    def total(self, x: Any = None, w: Any = None, dy: Any = None) -> Any:
        """The element itself: the sum of ``values``, or of max pooling's y the largest (-inf if none)."""
        values = self.values(x, w, dy)
        if isinstance(self.layer, Pool):
            if self.layer.kind == "max" and self.array == "y":
                return values.max() if len(values) else -np.inf
            if self.layer.kind == "avg" and self.array == "y":
                count = window_count(self.layer, self.index[1:-1])
                return (np.float64(self._gather(x, "x").sum()) / count) if count else np.nan
        return values.sum()

    @property
    def operands(self) -> tuple[str, ...]:
        """The arrays that the terms are made of."""
        if isinstance(self.layer, Pool):
            return ("x",) if self.array == "y" else ("x", "dy") if self.layer.kind == "max" else ("dy",)
        return {"y": ("x", "w"), "dx": ("dy", "w"), "dw": ("x", "dy"), "db": ("dy",)}[self.array]

    def factors(self, term: Term) -> list[tuple[str, Index]]:
        """What is multiplied in a term: arrays by name, each with its index."""
        indices = {"x": term.x, "w": term.w, "dy": term.y}
        names = self.operands[-1:] if isinstance(self.layer, Pool) else self.operands
        return [(name, indices[name] or ()) for name in names]

    def text(self, term: Term) -> str:
        """A term in the letters of docs/derivation.md, ``dy[0,1,1,0] * w[2,2,0,0]``."""
        product = " * ".join(f"{name}{bracketed(index)}" for name, index in self.factors(term))
        averaged = isinstance(self.layer, Pool) and self.layer.kind == "avg"
        return f"{product} / {term.count}" if averaged else product

    @property
    def group_in(self) -> int:
        """Input channels of a group: what w's own channel axis counts."""
        if isinstance(self.layer, Pool):
            return self.layer.channels
        return self.layer.in_channels // self.layer.geometry.groups

    def _gather(self, array: Any, name: str) -> np.ndarray:
        letter = {"x": "i", "dy": "o"}[name]
        positions = [[getattr(t, letter) for t in along] for along in self.tied]
        return _exact(array)[np.ix_(self.images, *positions, self.in_channels)].reshape(-1)

    def _pooled(self, x: Any, dy: Any) -> np.ndarray:
        assert isinstance(self.layer, Pool)
        values = self._gather(x, "x") if self.array == "y" else self._gather(dy, "dy")
        if self.layer.kind == "avg":
            return values / np.array([term.count for term in self], np.float64)
        if self.array == "dx":
            chosen = [winner(self.layer, x, term.y) == self.index for term in self]
            return np.where(np.array(chosen, bool), values, np.zeros_like(values))
        return values


def _exact(array: Any) -> np.ndarray:
    """An array in the widest dtype of its kind."""
    array = np.asarray(array)
    if array.dtype.kind in "biu":
        return array.astype(np.int64)
    return array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)


MOST_CANDIDATES = 2**20
"""Taps, or outputs, along an axis, that are looked at."""


def terms_of(layer: AnyLayer | str, array: str, index: Sequence[int]) -> Terms:
    """The terms of one element of a layer's output or gradients: ``terms_of(layer, "dx", (0, 2, 2, 0))``.

    Args:
      layer: a ``Layer``, ``Pool`` or ``Convolution``, or the line of text that says a layer or pooling.
      array: "y", "dx", "dw" or "db"; of pooling "y" or "dx".
      index: of the element: (n, o..., k) of y, (n, i..., c) of dx, (r..., c, k) of dw with c counted within
        its group, (k,) of db.

    Raises:
      TypeError: an index that is not integers.
      ValueError: ``layer`` is malformed, it has no such array, or the array no such element.
    """
    if isinstance(layer, str):
        layer = parse_layer_or_pool(layer)
    arrays = tuple(name for name in ("y", "dx", "dw", "db") if name in shapes_of(layer))
    if array not in arrays:
        raise ValueError(f"array must be one of {', '.join(arrays)}, but is {array!r}")
    index = checked_index(layer, array, index)
    letter = OWN_LETTER.get(array, "")
    axes = axes_of(layer)
    most = max((axis.output if letter in ("", "r") else axis.taps for axis in axes), default=0)
    if most > MOST_CANDIDATES:
        raise ValueError(
            f"an axis of {most} {'outputs' if letter in ('', 'r') else 'taps'} is too long to list"
        )
    if not letter:
        candidates = tuple(tuple(Candidate(-1, -1, o) for o in range(axis.output)) for axis in axes)
    else:
        own = index[: len(axes)] if array == "dw" else index[1:-1]
        candidates = tuple(tuple(along_axis(axis, letter, at)) for axis, at in zip(axes, own, strict=True))
    images = range(layer.batch) if array in ("dw", "db") else range(index[0], index[0] + 1)
    return Terms(layer, array, index, candidates, images, *_channels(layer, array, index))


def _channels(layer: AnyLayer, array: str, index: Index) -> tuple[range, range]:
    """The input and output channels that meet in the element."""
    last = range(index[-1], index[-1] + 1)
    if isinstance(layer, Pool):
        return last, range(1)  # a channel by itself
    if array == "db":
        return range(1), last
    group_in = layer.in_channels // layer.geometry.groups
    group_out = layer.out_channels // layer.geometry.groups
    if array == "dx":
        first = index[-1] // group_in * group_out
        return last, range(first, first + group_out)
    first = index[-1] // group_out * group_in
    if array == "dw":
        return range(first + index[-2], first + index[-2] + 1), last
    return range(first, first + group_in), last


def window_count(pool: AnyLayer, o: Sequence[int]) -> int:
    """What an average is divided by at output ``o``: the taps, or those on the input; of max pooling 1."""
    if not isinstance(pool, Pool) or pool.kind == "max":
        return 1
    if pool.count_include_pad:
        return math.prod(pool.window)
    return math.prod(
        sum(not c.miss for c in along_axis(axis, "o", at)) for axis, at in zip(pool.axes, o, strict=True)
    )


def winner(pool: Pool, x: Any, y_index: Index) -> Index | None:
    """Which element of x a window of max pooling chose: the first NaN, else the first of the largest.

    Returns:
      (n, i..., c), or None where the window lies on padding alone.
    """
    best: Index | None = None
    x = np.asarray(x)
    for term in terms_of(pool, "y", y_index):
        assert term.x is not None
        # Not "greater": a NaN compares with nothing, and the first one ends the search.
        if best is None or x[term.x] > x[best] or (x[term.x] != x[term.x] and x[best] == x[best]):
            best = term.x
    return best
