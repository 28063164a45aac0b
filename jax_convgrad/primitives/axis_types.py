"""Mesh axes that JAX keeps in an array's type: manual ones, inside ``shard_map``, and explicit ones.

The primitives want their operands to vary over the same manual axes, and know nothing about explicit axes.
This module prepares the operands outside of ``custom_vjp``, so that JAX differentiates what is done: a filter
that was made to vary has its gradients summed over the devices, and one that was resharded gets its gradient
resharded back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
from jax import lax
from jax.sharding import AxisType, NamedSharding, PartitionSpec, auto_axes, get_abstract_mesh, reshard

Split = Sequence[Any]
"""The split of an array over mesh axes: for each dimension the entry of a PartitionSpec, or ``Rows``."""


class Rows(NamedTuple):
    """A dimension of ``size`` that is split over the axes ``names`` as far as they divide it."""

    names: Any
    size: int


class Splits(tuple[Split, ...]):
    """The splits of several results."""


def rows_split(split: Split, dims: Sequence[int], sizes: Sequence[int]) -> list[Rows]:
    """A result's entries for spatial axes of these sizes, from an operand's split and spatial dimensions."""
    return [Rows(split[d], size) for d, size in zip(dims, sizes, strict=True)]


def _varying(array: jax.Array) -> frozenset[Any]:
    """The manual axes over which the array may differ; JAX renamed the field after 0.9."""
    aval = jax.typeof(array)
    return aval.vma if hasattr(aval, "vma") else aval.manual_axis_type.varying


def varying_alike(*arrays: jax.Array) -> tuple[jax.Array, ...]:
    """The arrays, each made to vary over every manual axis that one of them varies over."""
    every = frozenset().union(*map(_varying, arrays))
    result = []
    for array in arrays:
        missing = sorted(every - _varying(array), key=str)
        result.append(lax.pcast(array, tuple(missing), to="varying") if missing else array)
    return tuple(result)


def _explicit_mesh(arrays: Sequence[jax.Array]) -> Any:
    """The mesh of arrays that have explicit axes in their types, or None."""
    for mesh in (get_abstract_mesh(), *(jax.typeof(array).sharding.mesh for array in arrays)):
        if AxisType.Explicit in mesh.axis_types:
            return mesh
    return None


def with_axis_types(
    f: Callable[..., Any],
    arrays: Sequence[jax.Array],
    result_split: Callable[[Sequence[Any]], Split | Splits],
    out_sharding: Any = None,
) -> Any:
    """``f(*arrays)``, whatever mesh axes are in the arrays' types.

    ``result_split`` gives the result's split over explicit axes from those of the arrays, or ``Splits``, if
    ``out_sharding``, a NamedSharding or PartitionSpec, is None.
    """
    arrays = varying_alike(*arrays)
    mesh = _explicit_mesh(arrays)
    if mesh is None:
        result = f(*arrays)
        return result if out_sharding is None else reshard(result, out_sharding)
    # In a context with a mesh an array of one device counts as replicated, and so does its gradient.
    replicated = NamedSharding(mesh, PartitionSpec())
    arrays = tuple(a if not jax.typeof(a).sharding.mesh.empty else reshard(a, replicated) for a in arrays)
    if out_sharding is None:
        splits = [jax.typeof(array).sharding.spec for array in arrays]
        split = result_split(splits)
        if isinstance(split, Splits):
            out_sharding = tuple(NamedSharding(mesh, PartitionSpec(*_once(one, mesh))) for one in split)
        else:
            out_sharding = NamedSharding(mesh, PartitionSpec(*_once(split, mesh)))
    axes = tuple(
        name for name, kind in zip(mesh.axis_names, mesh.axis_types, strict=True) if kind is AxisType.Explicit
    )
    return auto_axes(f, axes=axes, out_sharding=out_sharding)(*arrays)


def _names(entry: Any) -> tuple[Any, ...]:
    if entry is None:
        return ()
    return entry if isinstance(entry, tuple) else (entry,)


def _once(split: Split, mesh: Any) -> list[Any]:
    """The split without axes that an earlier dimension has already, or that do not divide the rows."""
    taken: set[Any] = set()
    result = []
    for entry in split:
        names, size = entry if isinstance(entry, Rows) else (entry, 0)
        free: list[Any] = []
        for name in _names(names):
            size, rest = divmod(size, mesh.shape[name])
            if rest:
                break
            if name not in taken:
                free.append(name)
        taken.update(free)
        result.append(tuple(free) or None)
    return result
