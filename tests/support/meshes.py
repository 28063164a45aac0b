"""Helpers for the tests of sharding: meshes of the 8 host devices, and a compiled program's collectives."""

import re
from collections import Counter

import jax
import numpy as np
from jax.sharding import AbstractMesh, AxisType, NamedSharding, use_abstract_mesh
from jax.sharding import PartitionSpec as P

MESHES = {"8": ((8,), ("a",)), "4x2": ((4, 2), ("a", "b"))}
COLLECTIVES = ("all-gather", "all-reduce", "all-to-all", "collective-permute", "reduce-scatter")


def make(name, axis_type=AxisType.Auto):
    sizes, names = MESHES[name]
    assert jax.device_count() >= 8, "start with XLA_FLAGS=--xla_force_host_platform_device_count=8"
    return jax.make_mesh(sizes, names, axis_types=(axis_type,) * len(names))


def place(mesh, arrays, specs):
    return [jax.device_put(a, NamedSharding(mesh, P(*s))) for a, s in zip(arrays, specs, strict=True)]


def unsharded(f, *arrays):
    """The result of f(*arrays) on one device, whatever mesh the context has."""
    with use_abstract_mesh(AbstractMesh((), ())):
        return jax.jit(f)(*arrays)


def collectives(compiled):
    """The number of each kind of collective in a compiled program."""
    text = compiled.as_text()
    counts = {name: len(re.findall(rf"= [^=\n]* {name}(?:-start)?\(", text)) for name in COLLECTIVES}
    return Counter({name: count for name, count in counts.items() if count})


def assert_equal_to_rounding(actual, expected, eps=1e-12):
    """Asserts that every leaf is the same, except for the order in which float64 numbers were added."""
    leaves = zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True)
    for a, b in leaves:
        assert a.shape == b.shape
        b = np.asarray(b)
        np.testing.assert_allclose(a, b, rtol=0, atol=eps * max(1, np.abs(b).max(initial=0)))
