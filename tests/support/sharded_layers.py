"""Layers for the tests of sharding, how their arrays may be split, and their compiled programs."""

from dataclasses import dataclass
from functools import cache

import jax
import jax.numpy as jnp
import meshes
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import jax_convgrad as jc


@dataclass(frozen=True)
class Layer:
    channels: int
    features: int
    groups: int = 1
    batch: int = 16

    def arrays(self):
        random = np.random.default_rng(7)
        w = (3, 3, self.channels // self.groups, self.features)
        shapes = (self.batch, 7, 8, self.channels), w, (self.features,)
        return [random.standard_normal(shape) for shape in shapes]

    def __call__(self, x, w, b):
        y = jc.conv(x, w, b, padding="SAME", groups=self.groups, activation="relu")
        return jc.avg_pool(jc.max_pool(y, (2, 2), (2, 2)), (2, 2))

    def with_gradients(self, x, w, b):
        """The result y, and dx, dw, db of a loss that is not linear in it."""
        y, vjp = jax.vjp(self, x, w, b)
        return y, *vjp(jnp.cos(y))

    @cache  # noqa: B019  # the layers live as long as the tests
    def unsharded(self):
        return jax.jit(self.with_gradients)(*self.arrays())


LAYERS = {
    "dense": Layer(16, 24),
    "depthwise": Layer(16, 16, 16),
    "groups": Layer(16, 16, 8),
    "groups_widening": Layer(16, 32, 8),
    "depthwise_widening": Layer(16, 32, 16),
    "groups_narrowing": Layer(32, 16, 16),
}


def specs(layout, grouped, names):
    """The splits of x, w and b over all of a mesh's axes, or over the first and the last."""
    first, last = names[0], names[-1]
    return {
        "batch": ((first,), (), ()),
        "batch_over_all": ((names,), (), ()),
        "out_channels": ((None, None, None, last if grouped else None), (None, None, None, last), (last,)),
        "in_channels": ((None, None, None, last), (None, None, last), ()),
        "batch_and_out_channels": (
            (first, None, None, last if grouped else None), (None, None, None, last), (last,)
        ),
        "batch_and_in_channels": ((first, None, None, last), (None, None, last), ()),
    }[layout]  # fmt: skip


def compiled(f, arrays, mesh, split, **options):
    """Compiles f for arrays split in this way; returns the program and its result."""
    shardings = tuple(NamedSharding(mesh, P(*spec)) for spec in split)
    program = jax.jit(f, in_shardings=shardings, **options).lower(*arrays).compile()
    return program, program(*meshes.place(mesh, arrays, split))
