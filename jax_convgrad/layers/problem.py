"""Shapes, channels and dimension numbers of one convolution, checked against each other."""

from __future__ import annotations

import operator
from typing import Any

from jax import lax

from jax_convgrad.geometry import is_negative, size_of, steps
from jax_convgrad.primitives.conv_spec import Dims


def dimensions(
    x_shape: tuple[int, ...],
    w_shape: tuple[int, ...],
    dimension_numbers: Any,
    names: tuple[str, str],
    *,
    channels_last: bool = False,
) -> Dims:
    """The dimension that plays each part; None stands for lax's (NCHW, OIHW, NCHW) or for channels last.

    Raises:
      ValueError: the ranks differ, or are below 2.
      TypeError, ValueError: ``dimension_numbers`` are malformed or of another rank.
    """
    x_name, w_name = names
    rank = len(x_shape)
    if rank != len(w_shape):
        raise ValueError(
            f"{x_name} and {w_name} must have the same number of dimensions, but are of shapes {x_shape} "
            f"and {w_shape}"
        )
    if rank < 2:
        raise ValueError(f"{x_name} must have a batch and a channel dimension, but is of shape {x_shape}")
    if dimension_numbers is None and channels_last:
        spatial = tuple(range(1, rank - 1))
        activation = (0, rank - 1, *spatial)
        return Dims(activation, (rank - 1, rank - 2, *range(rank - 2)), activation)
    numbers = lax.conv_dimension_numbers(x_shape, w_shape, dimension_numbers)
    dims = Dims(*(tuple(operator.index(d) for d in spec) for spec in numbers))
    if any(sorted(spec) != list(range(rank)) for spec in dims):
        raise ValueError(
            f"dimension_numbers must name each of the {rank} dimensions once, but are {dimension_numbers}"
        )
    return dims


def check_channels(
    x_shape: tuple[int, ...],
    w_shape: tuple[int, ...],
    dims: Dims,
    groups: Any,
    names: tuple[str, str, str],
    batch_groups: Any = 1,
) -> int:
    """Checks that groups divide channels, and that w has taps and as many input channels as a group of x.

    Returns:
      ``batch_groups``.

    Raises:
      TypeError: a number of groups is not an integer.
      ValueError: they do not fit.
    """
    x_name, w_name, groups_name = names
    batch, channels = x_shape[dims.x[0]], x_shape[dims.x[1]]
    out_channels, group_in = w_shape[dims.w[0]], w_shape[dims.w[1]]
    counts = []
    for name, count in ((groups_name, groups), ("batch_group_count", batch_groups)):
        try:
            counts.append(operator.index(count))
        except TypeError:
            raise TypeError(f"{name} must be a positive integer, not {count!r}") from None
        if counts[-1] < 1:
            raise ValueError(f"{name} must be a positive integer, but is {count}")
    groups, batch_groups = counts
    if groups > 1 and batch_groups > 1:
        raise ValueError(
            f"at most one of {groups_name} and batch_group_count may be above 1, but they are {groups} and "
            f"{batch_groups}"
        )
    # If symbols leave open whether one divides another or equals it, that counts as no.
    if channels % groups != 0 or out_channels % groups != 0:
        raise ValueError(
            f"{groups_name} must divide the channels of {x_name} ({channels}) and the output channels of "
            f"{w_name} ({out_channels}), but is {groups}"
        )
    if batch % batch_groups != 0 or out_channels % batch_groups != 0:
        raise ValueError(
            f"batch_group_count must divide the batch of {x_name} ({batch}) and the output channels of "
            f"{w_name} ({out_channels}), but is {batch_groups}"
        )
    if group_in * groups != channels:
        raise ValueError(
            f"{w_name} must take {channels // groups} input channels ({channels} channels of {x_name} in "
            f"{groups} groups), but is of shape {w_shape} and takes {group_in}"
        )
    if 0 in (w_shape[d] for d in dims.w[2:]):
        raise ValueError(f"{w_name} must have at least one tap an axis, as in jax.lax, but is of {w_shape}")
    return batch_groups


def check_bias(b_shape: tuple[int, ...], channels: int) -> None:
    """Raises ValueError unless b has one entry for each of y's channels."""
    if b_shape != (channels,):
        raise ValueError(
            f"b must be of shape ({channels},), one entry an output channel, but is of {b_shape}"
        )


def per_axis(value: Any, axes: int, name: str) -> tuple[int, ...]:
    """One number for all axes, or one for each, as ``geometry.steps`` checks them."""
    try:
        value = (operator.index(value),) * axes
    except TypeError:
        if not hasattr(value, "__iter__"):
            raise TypeError(f"{name} must be an integer or a sequence of {axes}, not {value!r}") from None
    return steps(value, axes, name)


def symmetric_pads(padding: Any, axes: int) -> Any:
    """A padding for ``geometry.pads``, from one in which a number stands for the same pad on both sides."""
    if isinstance(padding, str):
        return padding

    def pair(entry: Any) -> Any:
        try:
            return (size_of(entry),) * 2
        except TypeError:
            return entry

    try:
        return (pair(size_of(padding)),) * axes
    except TypeError:
        pass
    try:
        return tuple(pair(entry) for entry in padding)
    except TypeError:
        return padding  # geometry.pads raises the error


def shape_argument(shape: Any, name: str) -> tuple[int, ...]:
    """A shape given as an argument.

    Raises:
      TypeError: it is not a sequence of integers, or of symbols' expressions.
      ValueError: an entry is negative.
    """
    try:
        result = tuple(size_of(size) for size in shape)
    except TypeError:
        raise TypeError(f"{name} must be a shape, a sequence of integers, not {shape!r}") from None
    if any(is_negative(size) for size in result):
        raise ValueError(f"{name} must not have negative sizes, but is {result}")
    return result


def check_shape(name: str, shape: tuple[int, ...], fits: tuple[int, ...]) -> None:
    """Raises ValueError unless ``shape`` is the one that fits."""
    if shape != fits:
        raise ValueError(f"{name} must be of shape {fits}, but is of {shape}")
