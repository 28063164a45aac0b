"""The tile in which the CPU's kernel "winograd" computes an element: its patch, transforms and products."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from jax_convgrad.geometry import Axis
from jax_convgrad.instruments.terms import Index, Terms
from jax_convgrad.instruments.winograd_transforms import (
    POINT_NAMES,
    POINTS,
    RESULTS,
    TAPS,
    along_each,
    transforms,
)

C, E4, E3 = transforms(POINTS, RESULTS, TAPS)
REACH = RESULTS + TAPS - 1
"""The inputs of a tile along an axis, which is also the number of points."""

_NUMBERS = ("patch", "transformed_patch", "second", "transformed_second", "sums", "results")


@dataclass(frozen=True)
class AxisTile:
    """A tile along one transformed axis: positions of its results and of its inputs; None where none is."""

    results: tuple[int | None, ...]
    inputs: tuple[int | None, ...]


@dataclass(frozen=True)
class WinogradTile:
    """The tile of one element of y, dx or dw; winograd_text.py writes it as text.

    dx is computed as fprop of the transposed layer, from dy and the flipped filter; "inputs" are dy's there.
    Every tile of the layer takes part in an element of dw, and this is the first.

    Attributes:
      terms: the element, and its terms as they stand.
      transformed: the numbers of the axes along which the kernel transforms, one or two.
      axes: the tile along each of them.
      arrays: x, w and dy by name, those that there are.
    """

    terms: Terms
    transformed: tuple[int, ...]
    axes: tuple[AxisTile, ...]
    arrays: dict[str, Any]

    @property
    def products(self) -> int:
        """The products of a tile for a pair of channels."""
        return REACH ** len(self.axes)

    @property
    def direct_products(self) -> int:
        """The products of the same results as they stand."""
        return (RESULTS * TAPS) ** len(self.axes)

    @property
    def evaluating(self) -> np.ndarray:
        """The matrix that transforms ``second``."""
        return E4 if self.terms.array == "dw" else E3

    @property
    def reading(self) -> np.ndarray:
        """The matrix whose transpose turns ``sums`` into ``results``."""
        return E3 if self.terms.array == "dw" else E4

    @cached_property
    def tiles(self) -> int:
        """The tiles of the whole layer."""
        tiles = self.terms.layer.batch
        for a, axis in enumerate(self._seen):
            tiles *= sum(1 for _ in _tiles(axis, a in self.transformed))
        return tiles

    @cached_property
    def patch(self) -> np.ndarray:
        """The tile's inputs of the first channel and, in dw, image; 0 on padding. C^T transforms them."""
        return self._patch(*next(self._patches()))

    @cached_property
    def second(self) -> np.ndarray:
        """What is multiplied with the patch: the filter of one pair of channels, or in dw a tile of dy."""
        return self._second(*next(self._patches()))

    @cached_property
    def transformed_patch(self) -> np.ndarray:
        """C^T of the patch, along each axis."""
        return along_each(C.T, self.patch, self._count)

    @cached_property
    def transformed_second(self) -> np.ndarray:
        """E3 of the filter, or E4 of the tile of dy, along each axis."""
        return along_each(self.evaluating, self.second, self._count)

    @cached_property
    def sums(self) -> np.ndarray:
        """At each point the products, added up over channels, or in dw over tiles."""
        return sum(
            along_each(C.T, self._patch(*of), self._count)
            * along_each(self.evaluating, self._second(*of), self._count)
            for of in self._patches()
        ) + np.zeros((REACH,) * self._count)

    @cached_property
    def results(self) -> np.ndarray:
        """The tile's results, or in dw the taps that the element belongs to."""
        return along_each(self.reading.T, self.sums, self._count)

    @cached_property
    def stored(self) -> np.ndarray:
        """``results``, of which those past the end of an axis are masked."""
        if self.terms.array == "dw":
            return self.results
        there = [[place is not None for place in tile.results] for tile in self.axes]
        return np.ma.masked_where(~np.all(np.meshgrid(*there, indexing="ij"), axis=0), self.results)

    @cached_property
    def value(self) -> float:
        """The element, out of ``results``."""
        own = self._own[0]
        if self.terms.array == "dw":
            return float(self.results[tuple(own[a] for a in self.transformed)])
        at = [tile.results.index(own[a]) for a, tile in zip(self.transformed, self.axes, strict=True)]
        return float(self.results[tuple(at)])

    def as_dict(self) -> dict[str, Any]:
        """The tile for programs."""
        result: dict[str, Any] = {
            "axes": [
                {"axis": a, "results": tile.results, "inputs": tile.inputs}
                for a, tile in zip(self.transformed, self.axes, strict=True)
            ],
            "products": self.products,
            "direct_products": self.direct_products,
            "points": POINT_NAMES,
        }
        if self.arrays:
            result |= {name: getattr(self, name).tolist() for name in _NUMBERS}
            result["value"] = self.value
        return result

    # ---------------------------------------------------------------------------------------- the arithmetic

    @property
    def _count(self) -> int:
        return len(self.axes)

    @property
    def _own(self) -> tuple[Index, Index]:
        """The element's positions or taps, and its other indices."""
        count, index = len(self.terms.axes), self.terms.index
        return (index[:count], index[count:]) if self.terms.array == "dw" else (index[1:-1], index[:1])

    @cached_property
    def _seen(self) -> tuple[Axis, ...]:
        return _seen(self.terms)

    @cached_property
    def _operands(self) -> tuple[np.ndarray, np.ndarray]:
        """The array of inputs and what is multiplied with it; for dx the filter with its taps flipped."""
        terms = self.terms
        first, second = (np.asarray(self.arrays[name], np.float64) for name in terms.operands)
        if terms.array == "dx":
            second = np.flip(second, tuple(range(len(terms.axes))))
        return first, second

    def _patches(self) -> Iterator[tuple[Any, ...]]:
        """(image, tile along each axis, tap along each axis, channel of the inputs, other channel)."""
        terms, own = self.terms, self._own[0]
        count = len(terms.axes)
        if terms.array == "dw":
            c, k = terms.in_channels[0], terms.out_channels[0]
            for n in terms.images:
                for tiles in itertools.product(
                    *(_tiles(a, i in self.transformed) for i, a in enumerate(self._seen))
                ):
                    yield n, tiles, own, c, k
            return
        along = dict(zip(self.transformed, self.axes, strict=True))
        fixed = tuple(along.get(a, AxisTile((own[a],), ())) for a in range(count))
        taps = [range(1) if a in along else range(axis.taps) for a, axis in enumerate(self._seen)]
        pairs = itertools.product(terms.in_channels, terms.out_channels)
        for tap, (c, k) in itertools.product(itertools.product(*taps), pairs):
            yield terms.index[0], fixed, tap, *((k, c) if terms.array == "dx" else (c, k))

    def _patch(self, n: int, tiles: Sequence[AxisTile], taps: Index, source: int, _: int) -> np.ndarray:
        places: list[Sequence[int | None]] = []
        for a, (axis, tile) in enumerate(zip(self._seen, tiles, strict=True)):
            one = tile.results[0] or 0
            places.append(tile.inputs if a in self.transformed else (_input(axis, one, taps[a]),))
        return self._gathered(self._operands[0][n, ..., source], places)

    def _second(self, n: int, tiles: Sequence[AxisTile], taps: Index, source: int, other: int) -> np.ndarray:
        second = self._operands[1]
        if self.terms.array == "dw":
            return self._gathered(second[n, ..., other], [tile.results for tile in tiles])
        in_group = self.terms.group_in
        pair = (other % in_group, source) if self.terms.array == "dx" else (source % in_group, other)
        places = [range(TAPS) if a in self.transformed else (taps[a],) for a in range(len(tiles))]
        return self._gathered(second[..., pair[0], pair[1]], places)

    def _gathered(self, array: np.ndarray, places: Sequence[Sequence[int | None]]) -> np.ndarray:
        """The elements at the places, 0 where there is none, without the axes that are not transformed."""
        found = np.zeros([len(along) for along in places])
        for at in np.ndindex(*found.shape):
            index = [along[j] for along, j in zip(places, at, strict=True)]
            if None not in index:
                found[at] = array[tuple(index)]
        return found.reshape([len(places[a]) for a in self.transformed])


def winograd_tile(terms: Terms, arrays: dict[str, Any]) -> WinogradTile:
    """The tile of an element.

    Args:
      terms: the element's.
      arrays: x, w and dy by name; without them the tile has positions only.

    Raises:
      ValueError: the kernel has no tile for it.
    """
    if terms.layer.pool or terms.array == "db":
        what = "a pooling layer" if terms.layer.pool else "db"
        raise ValueError(f'"winograd" computes convolutions, y, dx and dw, and not {what}')
    seen = _seen(terms)
    transformed = _transformed(seen)
    if not transformed:
        raise ValueError('"winograd" needs an axis of 3 taps without stride or input dilation')
    complex_ones = [name for name, array in arrays.items() if np.iscomplexobj(array)]
    if complex_ones:
        raise ValueError(f'"winograd" has tiles of real numbers, and {complex_ones[0]} is complex')
    if terms.array == "dw":
        axes = tuple(next(_tiles(seen[a], True)) for a in transformed)
    else:
        axes = tuple(_tile_of(seen[a], terms.index[1 + a]) for a in transformed)
    return WinogradTile(terms, transformed, axes, arrays)


def _seen(terms: Terms) -> tuple[Axis, ...]:
    """The axes of the fprop, or the wgrad, that computes the element."""
    return tuple(axis.transpose() if terms.array == "dx" else axis for axis in terms.axes)


def _transformed(axes: Sequence[Axis]) -> tuple[int, ...]:
    """The axes that the kernel transforms, as cpu_src/winograd/plan.cc chooses them."""
    found: list[int] = []
    for a in reversed(range(len(axes))):
        axis = axes[a]
        if axis.taps == TAPS and axis.stride == axis.input_dilation == 1:
            found.insert(0, a)
        if len(found) == 2 or (found and found[0] != a and axis.taps > 1):
            break
    return tuple(found)


def _input(axis: Axis, o: int, r: int) -> int | None:
    i, rest = divmod(o * axis.stride + r * axis.filter_dilation - axis.pad_lo, axis.input_dilation)
    return i if rest == 0 and 0 <= i < axis.input else None


def _tile_of(axis: Axis, o: int) -> AxisTile:
    """The tile that has result ``o``: a dilated filter's results are as far apart as its taps."""
    step = axis.filter_dilation
    first = o % step + o // step // RESULTS * RESULTS * step
    results = [first + j * step for j in range(RESULTS)]
    return AxisTile(
        tuple(at if at < axis.output else None for at in results),
        tuple(_input(axis, first, s) for s in range(REACH)),
    )


def _tiles(axis: Axis, transformed: bool) -> Iterator[AxisTile]:
    """All tiles along an axis; without a transform, each result is one."""
    if not transformed:
        yield from (AxisTile((o,), ()) for o in range(axis.output))
        return
    for phase in range(min(axis.filter_dilation, axis.output)):
        for o in range(phase, axis.output, RESULTS * axis.filter_dilation):
            yield _tile_of(axis, o)
