"""The dimensions of a kernel's operands that may be split over devices, and what must be summed then.

Every dimension of x, w and y is one letter of the sums, or a spatial position:

    y[n,o,k] = Σ_{r,c} x[n,i,c] · w[r,c,k]        x: n c    w: c k    y: n k

If a letter is split the same way in all arrays that have it, each device has a smaller problem of the same
kind. If that letter is summed over (c in fprop, k in dgrad, n in wgrad) each device has a partial sum, and
one all-reduce adds them. With groups the letter g stands for the channels of x, w and y together, split
between groups only.

Rows, the positions along a spatial axis, are a letter that x and y share although they have different
numbers of them. They may be split into parts, the last ones smaller. A device then needs rows of its
neighbours' parts, and fetches them before its call (spatial_parts.py).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import (
    AbstractMesh,
    Mesh,
    NamedSharding,
    PartitionSpec,
    use_abstract_mesh,
)

from jax_convgrad.primitives import partitioned_call
from jax_convgrad.primitives.mesh_atoms import atoms_of, places_of, split_of
from jax_convgrad.primitives.spatial_parts import Local, Place, Rows

_NO_MESH = AbstractMesh((), ())

Labels = tuple[str | None, ...]
"""One array's dimensions: the letter each is, or None for one that is never split."""


@dataclass(frozen=True)
class Factors:
    """The ways in which a kernel may be split.

    ``sizes`` gives the largest number of parts for each letter: the size of its dimensions, or for g the
    number of groups. ``localize(params, ways)`` gives the parameters of one device's part, if letters are
    split into so many ways. Letters without a size are rows, and ``rows(params, places)`` gives one device's
    call if they are split. ``merge(results, names)`` makes the whole's results of those of the devices along
    these mesh axes, whose parts have one size; None if they just add up.
    """

    operands: tuple[Labels, ...]
    results: tuple[Labels, ...]
    sizes: Mapping[str, int]
    localize: Callable[[dict[str, Any], Mapping[str, int]], dict[str, Any]] = lambda params, ways: params
    rows: Rows | None = None
    merge: Callable[[tuple[jax.Array, ...], tuple[str, ...]], tuple[jax.Array, ...]] | None = None

    def is_rows(self, label: str | None) -> bool:
        """Reports whether the label is a letter whose parts may differ in size."""
        return label is not None and label not in self.sizes

    @property
    def summed(self) -> tuple[str, ...]:
        """The letters of operands that no result has."""
        kept = {label for labels in self.results for label in labels}
        return tuple(
            dict.fromkeys(
                label
                for labels in self.operands
                for label in labels
                if label is not None and label not in kept
            )
        )


@dataclass(frozen=True)
class Partitioned:
    """A call that XLA may split: ``whole``, and everything that decides what it computes."""

    name: str
    whole: Callable[..., tuple[jax.Array, ...]]
    kernels_and_params: tuple[Any, ...]
    split: tuple[Any, ...]

    def __call__(self, *operands: jax.Array) -> tuple[jax.Array, ...]:
        """The results of a call with arrays."""
        with jax.named_scope(f"jax_convgrad.{self.name}"):
            return partitioned_call.named(self.whole, self._digest(operands))(*operands)

    def lowered(self, ctx: Any, operands: Sequence[Any]) -> Sequence[Any]:
        """The results of a call that is being lowered."""
        return partitioned_call.lowered(ctx, self.whole, self._digest(ctx.avals_in), operands)

    def _digest(self, operands: Sequence[Any]) -> str:
        types = [(array.shape, array.dtype) for array in operands]
        return partitioned_call.digest(self.name, *self.kernels_and_params, types, self.split)


def splittable(context: Any) -> Any:
    """The context of a lowering for a call that is partitioned by a callback; None if it cannot be.

    A program for one device has nothing to partition. An exported one cannot be, since the callback does not
    exist where the program is loaded. In shard_map, arrays are parts already; JAX cannot describe to a
    callback what XLA splits them over in addition. The older partitioner, GSPMD, reads no Shardy rule.
    """
    lowering = getattr(context.module_context, "lowering_parameters", None)
    devices: Any = getattr(context.module_context, "axis_context", None)
    if (
        not partitioned_call.CAN_BE_NAMED
        or not getattr(jax.config, "jax_use_shardy_partitioner", True)
        or getattr(lowering, "for_export", True)
        or not hasattr(devices, "device_assignment")
        or devices.num_devices == 1
    ):
        return None
    # JAX can name the devices only if a program has one mesh. What a part computes depends on their numbers
    # alone, so any device stands for each.
    numbers = dataclasses.replace(
        devices, device_assignment=(jax.local_devices()[0],) * devices.num_devices, abstract_mesh=None
    )
    return context.replace(module_context=context.module_context.replace(axis_context=numbers))


def partitioned(
    name: str,
    platform: str,
    native: Callable[..., Any],
    factors: Factors,
    params: dict[str, Any],
    devices: int,
    partial_sums: tuple[Callable[..., Any], Callable[..., Any]] | None = None,
) -> Partitioned:
    """``native(*operands, **params)`` as a tuple of results, which XLA may split as ``factors`` say.

    ``name`` distinguishes functions with the same factors and parameters; ``devices`` is a number.

    If a letter that is summed over is split, the devices' results are added up. If ``partial_sums`` is a pair
    of functions, each device computes the first one instead, and the second one finishes the sum.
    """

    @custom_partitioning
    def whole(*operands: jax.Array) -> tuple[jax.Array, ...]:
        return _as_tuple(native(*operands, **params))

    def partition(mesh: Mesh, operands: Sequence[Any], results: Sequence[Any]) -> Any:
        # The context's mesh may differ from the arrays', since a program may have several.
        atoms = atoms_of(arrays := [*results, *operands])
        axes = _agree(factors, atoms, arrays)
        ways = {label: math.prod(atoms.shape[name] for name in names) for label, names in axes.items()}
        local = factors.localize(params, ways)
        reduced = tuple(name for label in factors.summed for name in axes.get(label, ()))
        places = {label: Place(names, ways[label]) for label, names in axes.items() if factors.is_rows(label)}
        call = factors.rows(local, places) if factors.rows and places else Local(local)

        def part(*shards: jax.Array) -> tuple[jax.Array, ...]:
            # Without this, the context's mesh, which is about whole arrays, gets into the sum's own types.
            # And a program may be compiled outside of the `jax.enable_x64` that it was lowered in.
            wide = any(shard.dtype.name in ("float64", "complex128") for shard in shards)
            wide = wide or getattr(jax.config, "jax_enable_x64", False)
            with use_abstract_mesh(_NO_MESH), jax.enable_x64(wide):
                given = call.before(*shards)
                compute, finish = (reduced and partial_sums) or (native, None)
                results = tuple(call.after(*_as_tuple(compute(*given, **call.params))))
                if reduced and factors.merge is not None:
                    results = factors.merge(results, reduced)
                elif reduced:
                    results = tuple(summed(array, reduced) for array in results)
                return results if finish is None else _as_tuple(finish(*results, *given, **call.params))

        def shardings(of: Sequence[Labels]) -> tuple[NamedSharding, ...]:
            specs = [
                PartitionSpec(*(axes.get(label) if label else None for label in labels)) for labels in of
            ]
            return tuple(NamedSharding(atoms, spec) for spec in specs)

        return atoms, part, shardings(factors.results), shardings(factors.operands)

    def rule(mesh: Mesh, operands: Sequence[Any], results: Sequence[Any]) -> tuple[str, dict[str, Any]]:
        return _shardy_rule(factors, [*operands, *results], devices)

    # Shardings come undecoded, since XLA may split over a part of a mesh axis, for which JAX has no name.
    whole.def_partition(partition, sharding_rule=rule, decode_shardings=False)

    split = (factors.operands, factors.results, dict(factors.sizes))
    return Partitioned(name, whole, (partitioned_call.kernels(platform), _facts(params)), split)


def _facts(params: dict[str, Any]) -> dict[str, Any]:
    """The parameters for a digest, the fields of a ``spec`` among them, without a result's dtype of None."""
    spec = params.get("spec")
    if spec is None:
        return params
    facts = {field.name: getattr(spec, field.name) for field in dataclasses.fields(spec)}
    facts |= {name: value for name, value in params.items() if name != "spec"}
    return {name: fact for name, fact in facts.items() if name != "result_dtype" or fact is not None}


def summed(array: jax.Array, names: tuple[str, ...]) -> jax.Array:
    """The sum over devices; 16-bit numbers are added up in float32 and rounded once."""
    if jnp.issubdtype(array.dtype, jnp.floating) and array.dtype.itemsize < 4:
        return lax.psum(array.astype(jnp.float32), names).astype(array.dtype)
    return lax.psum(array, names)


def _as_tuple(results: Any) -> tuple[jax.Array, ...]:
    return tuple(results) if isinstance(results, Sequence) else (results,)


# ------------------------------------------------------------------------------------------ what XLA reads


def _shardy_rule(factors: Factors, types: Sequence[Any], devices: int) -> tuple[str, dict[str, Any]]:
    """Shardy's rule, such as "n s0 s1 c, s2 s3 c k -> n s4 s5 k", and its special letters.

    Different numbers of channels in the same groups are products (g s6) and (g s7), in which g alone may be
    split. With one channel a group they are g itself, since Shardy has no factors of size 1.
    """
    arrays = (*factors.operands, *factors.results)
    channels = {
        t.shape[d]
        for labels, t in zip(arrays, types, strict=True)
        for d, label in enumerate(labels)
        if label == "g"
    }
    products = len(channels) > 1
    # JAX before 0.9.2 fails on a result that is split over a part of a mesh axis. That happens if g, or the
    # fewer rows of two arrays, do not take all of the axis.
    gathered = set()
    if jax.__version_info__ < (0, 9, 2):
        rows = _sizes_of_rows(factors, arrays, types)
        gathered = {label for label, of in rows.items() if len(of) > 1 and any(n % devices for n in of)}
        if products:
            gathered.add("g")
    whole: list[str] = []
    sizes: dict[str, int] = {}

    def unsplit() -> str:
        whole.append(f"s{len(whole)}")
        return whole[-1]

    def term(label: str | None, size: int) -> str:
        if label is None or label in gathered:
            return unsplit()
        if label == "g" and products and size != factors.sizes["g"]:
            inner = unsplit()
            sizes[inner] = size // factors.sizes["g"]
            return f"(g {inner})"
        return label

    terms = [
        [term(label, size) for label, size in zip(labels, t.shape, strict=True)]
        for labels, t in zip(arrays, types, strict=True)
    ]
    # If g is a dimension by itself, its size is read there and must not be given again.
    if sizes and not any("g" in dimensions for dimensions in terms):
        sizes["g"] = factors.sizes["g"]
    written = [" ".join(dimensions) for dimensions in terms]
    split = len(factors.operands)
    text = ", ".join(written[:split]) + " -> " + ", ".join(written[split:])
    permuted = {label for labels in factors.results for label in labels if factors.is_rows(label)}
    return text, {
        "reduction_factors": tuple(label for label in factors.summed if label not in gathered),
        "need_replication_factors": tuple(whole),
        # Rows have as many results as there are, and Shardy asks for the lesser number of the two.
        "permutation_factors": tuple(sorted(permuted - gathered)),
        **sizes,
    }


def _sizes_of_rows(factors: Factors, arrays: Sequence[Labels], types: Sequence[Any]) -> dict[str, set[int]]:
    """The numbers of rows that arrays have along each letter of rows."""
    sizes: dict[str, set[int]] = {}
    for labels, t in zip(arrays, types, strict=True):
        for label, size in zip(labels, t.shape, strict=True):
            if label is not None and factors.is_rows(label):
                sizes.setdefault(label, set()).add(size)
    return sizes


# --------------------------------------------------------------------------- what it decided, and what we do


def _agree(factors: Factors, atoms: AbstractMesh, arrays: Sequence[Any]) -> dict[str, tuple[str, ...]]:
    """One split for each letter; ``arrays`` are the results, then the operands.

    A letter is split only as far as it divides, since the filling of a last, smaller part would be summed
    too. Rows may be split further, since their filling is taken out.
    """
    axes: dict[str, tuple[str, ...]] = {}
    taken: set[str] = set()
    for labels, array in zip((*factors.results, *factors.operands), arrays, strict=True):
        rank = len(labels)
        split = split_of(places_of(array.sharding, rank), rank, atoms) or ((),) * rank
        for label, names in zip(labels, split, strict=True):
            if label is None or label in axes:
                continue
            used: tuple[str, ...] = ()
            ways = 1
            for name in names:
                ways *= atoms.shape[name]
                if name in taken or factors.sizes.get(label, ways) % ways:
                    break
                used += (name,)
            if used:
                axes[label] = used
                taken.update(used)
    return axes
