"""The text of a call that is partitioned by a callback: what is hashed is what is computed.

JAX's compilation cache knows a program by its text. ``custom_partitioning`` writes the address of its
callback into that text. The address says nothing about what the call computes, and in the next process it
may belong to another callback. Here a digest of everything that decides what the call computes takes its
place. JAX has an option that leaves the address out of what it hashes
(``jax_remove_custom_partitioning_ptr_from_cache_key``), so the digest is in another attribute, too.

The private names of JAX that this needs are here; if they are missing, nothing is partitioned by callback.
"""

from __future__ import annotations

import copy
import enum
import functools
import hashlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
from jax.extend import core
from jax.extend.core import Primitive
from jax.interpreters import mlir
from jax.interpreters.mlir import ir

import jax_convgrad
from jax_convgrad.primitives import targets

try:
    from jax._src import custom_partitioning as _jax_partitioning

    # The address, as bytes, to what is called back; it holds what it knows weakly.
    _callbacks: Any = _jax_partitioning._sharding_callbacks
except (ImportError, AttributeError):
    _callbacks = None
_rule: Any = (
    getattr(_jax_partitioning, "_custom_partitioning_lowering_rule", None) if _callbacks is not None else None
)

CAN_BE_NAMED = _callbacks is not None
"""True if this JAX keeps its callbacks where they can be given another name."""

_TARGET = "CustomSPMDPartitioning"
_lock = threading.Lock()


def digest(*facts: Any) -> str:
    """A digest of the facts by their values, the same in every process.

    Raises:
      TypeError: a fact, such as a function, has no value that outlives the process.
    """
    return hashlib.sha256(repr(_plain(facts)).encode()).hexdigest()


def _plain(fact: Any) -> Any:
    if fact is None or (isinstance(fact, bool | int | float | str) and not isinstance(fact, enum.Enum)):
        return fact
    if isinstance(fact, enum.Enum):
        return type(fact).__name__, fact.name
    if isinstance(fact, tuple | list):
        return type(fact).__name__, *map(_plain, fact)
    if isinstance(fact, dict):
        return "dict", *sorted((_plain(key), _plain(value)) for key, value in fact.items())
    if is_dataclass(fact) and not isinstance(fact, type):
        return type(fact).__name__, *((f.name, _plain(getattr(fact, f.name))) for f in fields(fact))
    if isinstance(fact, np.dtype | type) and np.dtype(fact) != object:  # float32 and jnp.bfloat16 are types
        return "dtype", np.dtype(fact).name
    if isinstance(fact, np.integer):
        return int(fact)
    raise TypeError(f"{fact!r} cannot be part of a digest")


def kernels(platform: str) -> tuple[str, ...]:
    """Identifies a platform's kernels, since the sizes in a call's parts depend on their workspace."""
    backend = targets.backends[platform]
    sets = backend.module.instruction_sets() if hasattr(backend.module, "instruction_sets") else ()
    return (
        platform,
        backend.prefix,
        backend.kernel,
        jax_convgrad.__version__,
        str(sets),
        _build(backend.module),
    )


@functools.cache
def _build(module: Any) -> str:
    """A digest of the module's file, since one version of the package may be built from changed sources."""
    return hashlib.sha256(Path(module.__file__).read_bytes()).hexdigest()


_named_p = Primitive("jax_convgrad_partitioned")
_named_p.multiple_results = True


def named(whole: Callable[..., tuple[jax.Array, ...]], what: str) -> Callable[..., tuple[jax.Array, ...]]:
    """``whole``, one call of ``custom_partitioning``, named in the text by the digest ``what``."""

    def call(*operands: jax.Array) -> tuple[jax.Array, ...]:
        program = jax.make_jaxpr(whole)(*operands)
        return tuple(_named_p.bind(*operands, program=program, what=what))

    return call


def lowered(
    ctx: Any, whole: Callable[..., tuple[jax.Array, ...]], what: str, operands: Sequence[Any]
) -> Sequence[Any]:
    """``named(whole, what)`` of what is being lowered, without tracing it first if possible."""
    program = jax.make_jaxpr(whole)(*ctx.avals_in)
    (equation,) = program.eqns
    if _rule is None or list(equation.invars) != list(program.jaxpr.invars):
        return _lower(ctx, *operands, program=program, what=what)
    results = _rule(ctx.replace(avals_out=program.out_avals), *operands, **equation.params)
    return _with_name(results, what, ctx.module_context)


@_named_p.def_abstract_eval
def _named_avals(*operands: Any, program: Any, what: str) -> Sequence[Any]:
    return program.out_avals


def _lower(ctx: Any, *operands: Any, program: Any, what: str) -> Sequence[Any]:
    results = mlir.lower_fun(core.jaxpr_as_fun(program), multiple_results=True)(ctx, *operands)
    return _with_name(results, what, ctx.module_context)


def _with_name(results: Sequence[Any], what: str, module_context: Any) -> Sequence[Any]:
    call = _custom_call(results[0])
    if call is not None:  # for one device, and if all axes are manual, it is the kernel itself
        _rename(call, what, module_context)
    return results


mlir.register_lowering(_named_p, _lower, cacheable=False)


def _custom_call(value: Any) -> Any:
    """The partitioned call that ``value`` is a result of, or None."""
    while getattr(value.owner, "name", None) == "sdy.sharding_constraint":  # follows each op on explicit axes
        value = value.owner.operation.operands[0]
    if getattr(value.owner, "name", None) != "stablehlo.custom_call":
        return None
    operation = value.owner.operation
    return operation if ir.StringAttr(operation.attributes["call_target_name"]).value == _TARGET else None


def _rename(call: Any, what: str, module_context: Any) -> None:
    """Makes ``call`` ask for its callback by a digest."""
    address = ir.StringAttr(call.attributes["backend_config"]).value
    callback = _callbacks[address.encode()]
    # The devices and their meshes make no difference to a partition; their number does.
    what = digest(what, module_context.axis_context.num_devices)
    with _lock:
        # Programs with the same digest share one callback, which lives as long as one of them does.
        shared = _callbacks.get(what.encode())
        if shared is None or shared.module_context.backend is not module_context.backend:
            shared = copy.copy(callback)
            # Only these are used. The whole context would keep the program alive with which it came.
            shared.module_context = SimpleNamespace(
                platforms=module_context.platforms, backend=module_context.backend
            )
            _callbacks[what.encode()] = shared
    module_context.add_keepalive(shared)
    call.attributes["backend_config"] = ir.StringAttr.get(what)
    call.attributes["mhlo.frontend_attributes"] = ir.DictAttr.get({"jax_convgrad": ir.StringAttr.get(what)})
