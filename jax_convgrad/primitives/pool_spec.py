"""``PoolSpec``: all that a pooling is, except its arrays and what its windows compute."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jax_convgrad.geometry import Axis
from jax_convgrad.primitives.axis_types import Split, rows_split


@dataclass(frozen=True)
class PoolSpec:
    """The windows of a pooling, and the dimensions (batch, channel, spatial...) of each of its arrays.

    It is hashable, and equal to another one with the same fields.
    """

    axes: tuple[Axis, ...]
    dimensions: tuple[int, ...]

    @staticmethod
    def channels_last(axes: Sequence[Axis]) -> PoolSpec:
        """The pooling of arrays [N, spatial..., C]."""
        return PoolSpec(tuple(axes), (0, len(axes) + 1, *range(1, len(axes) + 1)))

    @property
    def batch(self) -> int:
        """The dimension that holds the images."""
        return self.dimensions[0]

    @property
    def channel(self) -> int:
        """The dimension that holds the channels."""
        return self.dimensions[1]

    @property
    def spatial(self) -> tuple[int, ...]:
        """The dimension of each axis."""
        return self.dimensions[2:]

    def with_axes(self, axes: Sequence[Axis]) -> PoolSpec:
        """The same pooling over other axes."""
        return PoolSpec(tuple(axes), self.dimensions)

    def pooled(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Shape of the windows' results, from the shape of what is pooled."""
        return self._with_sizes(shape, [axis.output for axis in self.axes])

    def unpooled(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Shape of what is pooled, from the shape of the windows' results."""
        return self._with_sizes(shape, [axis.input for axis in self.axes])

    def pooled_sharding(self, split: Split) -> Split:
        """Returns how the windows' results are split over explicit mesh axes, if x is split as given."""
        rows = rows_split(split, self.spatial, [axis.output for axis in self.axes])
        return self._with_sizes(split, rows)

    def _with_sizes(self, entries: Sequence[Any], sizes: Sequence[Any]) -> tuple[Any, ...]:
        result = list(entries)
        for d, size in zip(self.spatial, sizes, strict=True):
            result[d] = size
        return tuple(result)
