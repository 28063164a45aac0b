"""The way in which XLA split arrays over devices, in terms of mesh axes that can name any split.

XLA may split over a part of a mesh axis, for which JAX has no name, and a program may have several meshes.
So a partition is made over a mesh of its own, with axes of prime size: all devices, by their numbers.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jax.sharding import AbstractMesh, Sharding

_MOST_ORDERS = 256
"""The most meshes that are tried; more would take more axes of different sizes than any machine has."""


def _prime_factors(size: int) -> list[int]:
    factors, divisor = [], 2
    while size > 1:
        while size % divisor == 0:
            factors.append(divisor)
            size //= divisor
        divisor += 1
    return factors


def _orders(primes: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Every order of the primes once; equal primes are interchangeable."""
    if not primes:
        yield ()
    for prime in dict.fromkeys(primes):
        rest = list(primes)
        rest.remove(prime)
        for order in _orders(rest):
            yield (prime, *order)


def places_of(sharding: Sharding | None, rank: int) -> np.ndarray | None:
    """The part that every device has along each dimension, as an array of shape (devices, rank).

    An entry counts in units in which a whole dimension is the number of devices. None if all devices have
    everything.
    """
    if sharding is None or sharding.is_fully_replicated:
        return None
    tiles = sharding._to_xla_hlo_sharding(rank)
    if not tiles.is_tiled():
        return None
    parts = tuple(tiles.tile_assignment_dimensions())
    devices = np.asarray(tiles.tile_assignment_devices())
    places = np.zeros((devices.size, rank), np.int64)
    for d, index in enumerate(np.unravel_index(np.arange(devices.size), parts)[:rank]):
        places[devices, d] = index * (devices.size // parts[d])
    return places


def atoms_of(arrays: Sequence[Any]) -> AbstractMesh:
    """A mesh of all devices in their order, with axes of prime size, so that any part of an axis has a name.

    If the primes differ, they are in an order in which every array's split can be named.
    """
    places = [places_of(array.sharding, len(array.shape)) for array in arrays]
    count = next((place.shape[0] for place in places if place is not None), 1)
    primes = _prime_factors(count)
    names = tuple(f"atom{j}" for j in range(len(primes)))
    meshes = [AbstractMesh(sizes, names) for sizes in itertools.islice(_orders(primes), _MOST_ORDERS)]

    def tells_all(mesh: AbstractMesh) -> bool:
        return all(
            split_of(place, len(array.shape), mesh) is not None
            for place, array in zip(places, arrays, strict=True)
        )

    return next(filter(tells_all, meshes), meshes[0])


def split_of(starts: np.ndarray | None, rank: int, atoms: AbstractMesh) -> tuple[tuple[str, ...], ...] | None:
    """The atoms that each dimension is split over, the outermost first; None if no atoms name the split."""
    if starts is None:
        return ((),) * rank
    count = atoms.size
    starts = starts.reshape(*atoms.axis_sizes, rank)
    origin = (0,) * len(atoms.axis_names)
    result = []
    expected = np.zeros_like(starts)
    for d in range(rank):
        # How far a part moves along d when one atom's coordinate goes from 0 to 1.
        strides = {}
        for axis, name in enumerate(atoms.axis_names):
            step = starts[(*origin[:axis], 1, *origin[axis + 1 :])][d] - starts[origin][d]
            if step:
                strides[name] = step
                along = [1] * len(origin)
                along[axis] = -1
                expected[..., d] += step * np.arange(atoms.shape[name]).reshape(along)
        names = tuple(sorted(strides, key=lambda name: -strides[name]))
        part = count
        for name in names:
            part //= atoms.shape[name]
            if strides[name] != part:
                return None
        result.append(names)
    return tuple(result) if np.array_equal(starts, expected) else None
