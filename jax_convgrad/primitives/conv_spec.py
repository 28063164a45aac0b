"""``ConvSpec``: all that a convolution is, except its arrays.

Every function about a convolution takes its arrays and this one object, which travels as a single static
parameter through ``custom_vjp``, the primitives and their lowering.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from jax_convgrad.geometry import Axis, ConvGeometry
from jax_convgrad.primitives.axis_types import Split, rows_split
from jax_convgrad.primitives.number_types import Precision


class Dims(NamedTuple):
    """The dimension that plays each part, in every array.

    In x and y the parts are (batch, channel, spatial...), in w (out, in, spatial...).
    These are the numbers of ``jax.lax.ConvDimensionNumbers``.
    """

    x: tuple[int, ...]
    w: tuple[int, ...]
    y: tuple[int, ...]


def arranged(dimensions: tuple[int, ...], parts: Sequence[Any]) -> tuple[Any, ...]:
    """The tuple whose entry dimensions[j] is parts[j]: a shape from its parts, for example."""
    entries: list[Any] = [None] * len(dimensions)
    for dimension, part in zip(dimensions, parts, strict=True):
        entries[dimension] = part
    return tuple(entries)


@dataclass(frozen=True)
class ConvSpec:
    """A convolution y[n,o,k] = Σ_{r,c} x[n,i,c] · w[r,c,k], and with it its gradients dgrad and wgrad.

    It is hashable, and equal to another one with the same fields. From two of the arrays x, w and y it knows
    the third one's shape and how that is split over explicit mesh axes.

    ``result_dtype`` is float32 where the sums of 16-bit operands are returned as they are; None stands for
    the operands' dtype.
    """

    geometry: ConvGeometry
    dimensions: Dims
    precision: Precision = None
    result_dtype: np.dtype | None = None

    @property
    def axes(self) -> tuple[Axis, ...]:
        """The relation along each spatial axis."""
        return self.geometry.axes

    @property
    def groups(self) -> int:
        """The number of groups that the channels are split into."""
        return self.geometry.groups

    @property
    def x_channel(self) -> int:
        """The dimension of x that holds the channels."""
        return self.dimensions.x[1]

    @property
    def y_channel(self) -> int:
        """The dimension of y that holds the channels."""
        return self.dimensions.y[1]

    # ----------------------------------------------------------------------------------- related convolutions

    def transpose(self) -> ConvSpec:
        """The convolution whose ``dgrad`` is this one's ``fprop``, and the other way round.

        x and y are traded. w keeps its order of dimensions, so its taps and its two channel dimensions are
        read the other way round.
        """
        x, w, y = self.dimensions
        return replace(self, geometry=self.geometry.transpose(), dimensions=Dims(y, w, x))

    def with_axes(self, axes: Sequence[Axis]) -> ConvSpec:
        """The same convolution over other axes."""
        return replace(self, geometry=ConvGeometry(tuple(axes), self.groups))

    def with_groups(self, groups: int) -> ConvSpec:
        """The same convolution with another number of groups."""
        return replace(self, geometry=ConvGeometry(self.axes, groups))

    def with_result_dtype(self, dtype: np.dtype | None) -> ConvSpec:
        """The same convolution with a result of another dtype."""
        return self if self.result_dtype == dtype else replace(self, result_dtype=dtype)

    # ------------------------------------------------------------------------------------------------- shapes

    def x_shape(self, y: Sequence[int], w: Sequence[int]) -> tuple[int, ...]:
        """Shape of x, and of dgrad's result, from the shapes of y and w."""
        dims = self.dimensions
        channels = w[dims.w[1]] * self.groups
        return arranged(dims.x, (y[dims.y[0]], channels, *self.geometry.input_shape))

    def w_shape(self, x: Sequence[int], y: Sequence[int]) -> tuple[int, ...]:
        """Shape of w, and of wgrad's result, from the shapes of x and y."""
        dims = self.dimensions
        group_in = x[dims.x[1]] // self.groups
        return arranged(dims.w, (y[dims.y[1]], group_in, *self.geometry.filter_shape))

    def y_shape(self, x: Sequence[int], w: Sequence[int]) -> tuple[int, ...]:
        """Shape of y, and of fprop's result, from the shapes of x and w."""
        dims = self.dimensions
        return arranged(dims.y, (x[dims.x[0]], w[dims.w[0]], *self.geometry.output_shape))

    # ---------------------------------------------------------------------------------------------- shardings

    # A result is not split over the mesh axes of what is summed over. Channels of groups follow the filter.

    def x_sharding(self, y: Split, w: Split) -> Split:
        """Returns how dgrad's result is split over explicit mesh axes, if y and w are split as given."""
        dims = self.dimensions
        channels = w[dims.w[1]] if self.groups == 1 else None
        rows = rows_split(y, dims.y[2:], self.geometry.input_shape)
        return arranged(dims.x, (y[dims.y[0]], channels, *rows))

    def w_sharding(self, x: Split, y: Split) -> Split:
        """Returns how wgrad's result is split over explicit mesh axes, if x and y are split as given."""
        dims = self.dimensions
        channels = x[dims.x[1]] if self.groups == 1 else None
        return arranged(dims.w, (y[dims.y[1]], channels, *(None for _ in self.axes)))

    def y_sharding(self, x: Split, w: Split) -> Split:
        """Returns how fprop's result is split over explicit mesh axes, if x and w are split as given."""
        dims = self.dimensions
        rows = rows_split(x, dims.x[2:], self.geometry.output_shape)
        return arranged(dims.y, (x[dims.x[0]], w[dims.w[0]], *rows))
