"""``install()`` for windows: ``lax``'s reductions of windows are lowered to this package's pooling.

The rule examines the reduction and calls the kernels, or the rule that ``lax`` had for the platform. In a
program for several platforms it binds a primitive of this module, which JAX lowers for each platform.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from jax.extend.core import Primitive
from jax.interpreters import mlir

from jax_convgrad.primitives import targets
from jax_convgrad.primitives.lowering import lowered_for
from jax_convgrad.replace import exporting, lowering_record
from jax_convgrad.replace.lax_pooling import WINDOW_PRIMITIVES, Zeros, pooling_of, runner
from jax_convgrad.replace.pool_recognition import Pooling
from jax_convgrad.replace.reasons import OnLax

_KERNELS_MAY_BE_ON = ("cpu", "cuda")
_original: dict[Any, dict[str | None, Any]] = {}
"""Maps a primitive and a platform, or None for all others, to ``lax``'s own entry."""


def put(on_platforms: Mapping[str, dict[Any, Any]], elsewhere: dict[Any, Any]) -> None:
    """Replaces ``lax``'s rules by this package's in JAX's tables of rules."""
    for primitive in WINDOW_PRIMITIVES:
        entries: dict[str | None, Any] = {
            platform: table.pop(primitive) for platform, table in on_platforms.items() if primitive in table
        }
        if primitive in elsewhere:
            entries[None] = elsewhere[primitive]
        _original[primitive] = entries
        by_platform = _by_platform[primitive]
        for platform, entry in entries.items():
            mlir.register_lowering(by_platform, partial(_as_lax, entry.rule), platform=platform)
        for platform in _KERNELS_MAY_BE_ON:
            mlir.register_lowering(by_platform, partial(_on_platform, primitive, platform), platform=platform)
        # JAX calls an uncacheable rule in place, where it can see which operations its operands come from.
        # There is one for all platforms, because JAX cannot choose among several such rules at run time.
        mlir.register_lowering(primitive, partial(_lower, primitive), cacheable=False)


def take_back(on_platforms: Mapping[str, dict[Any, Any]], elsewhere: dict[Any, Any]) -> None:
    """Undoes ``put``."""
    for primitive, entries in _original.items():
        for platform, entry in entries.items():
            table = elsewhere if platform is None else on_platforms[platform]
            table[primitive] = entry
        if None not in entries:
            del elsewhere[primitive]
    _original.clear()


def _rule_of_lax(primitive: Any, platform: str) -> Any:
    entries = _original[primitive]
    return (entries.get(platform) or entries[None]).rule


def _lower(primitive: Any, ctx: Any, *operands: Any, **params: Any) -> Sequence[Any]:
    """The rule of one of ``lax``'s primitives for all platforms."""
    platforms = lowered_for(ctx)
    if len(platforms) == 1:
        return _on_platform(primitive, platforms[0], ctx, *operands, **params)
    run = partial(_by_platform[primitive].bind, out=tuple(ctx.avals_out), **params)
    return mlir.lower_fun(run, multiple_results=primitive.multiple_results)(ctx, *operands)


def _by_platform_of(primitive: Any) -> Primitive:
    """A primitive for programs for several platforms, which JAX lowers for each of them separately.

    It has the name of ``lax``'s primitive, which appears in the program's locations and in profiles.
    """
    by_platform = Primitive(primitive.name)
    by_platform.multiple_results = primitive.multiple_results
    by_platform.def_abstract_eval(lambda *_, out, **__: list(out) if primitive.multiple_results else out[0])
    return by_platform


_by_platform = {primitive: _by_platform_of(primitive) for primitive in WINDOW_PRIMITIVES}


def _as_lax(rule: Any, ctx: Any, *operands: Any, out: Any, **params: Any) -> Sequence[Any]:
    return rule(ctx, *operands, **params)


def _on_platform(
    primitive: Any, platform: str, ctx: Any, *operands: Any, out: Any = None, **params: Any
) -> Sequence[Any]:
    rule = _rule_of_lax(primitive, platform)
    if platform not in _KERNELS_MAY_BE_ON:
        return rule(ctx, *operands, **params)
    padded = _padded_with_zeros(operands[0])
    zeros = None if padded is None else padded[1]
    pooling, unpadded = pooling_of(primitive, ctx.avals_in, ctx.avals_out[0], params, zeros)
    if isinstance(pooling, Pooling):
        if platform not in targets.backends:
            pooling = OnLax(f"no kernels for {platform}")
        elif exporting.stays_on_lax(ctx):
            pooling = OnLax("exported")
    runs_on = pooling.kind if isinstance(pooling, Pooling) else pooling
    lowering_record.record(primitive.name, ctx.avals_in, ctx.avals_out[0], [platform], runs_on)
    if isinstance(pooling, OnLax):
        with lowering_record.paused():
            return rule(ctx, *operands, **params)
    if unpadded and padded is not None:
        operands = (padded[0],)
        ctx = ctx.replace(avals_in=[ctx.avals_in[0].update(shape=padded[1].shape)])
    run = runner(pooling, primitive, ctx.avals_out[0])
    return mlir.lower_fun(run, multiple_results=primitive.multiple_results)(ctx, *operands)


def _padded_with_zeros(value: Any) -> tuple[Any, Zeros] | None:
    """The operand of the padding whose result is ``value``, and that padding; None if it is not of zeros."""
    while getattr(value.owner, "name", None) == "sdy.sharding_constraint":  # follows each op on explicit axes
        value = value.owner.operation.operands[0]
    if getattr(value.owner, "name", None) != "stablehlo.pad":
        return None
    operation = value.owner.operation
    operand, filling = operation.operands
    if not _is_zero(filling) or not operand.type.has_static_shape:
        return None  # in MLIR a symbolic size is a large negative number
    config = zip(
        *(
            list(operation.attributes[f"{name}"])
            for name in ("edge_padding_low", "edge_padding_high", "interior_padding")
        ),
        strict=True,
    )
    return operand, Zeros(tuple(operand.type.shape), tuple(config))


_ZERO = re.compile(r"dense<\(?0\.0+[eE][+]00(,\s*0\.0+[eE][+]00\))?>")


def _is_zero(value: Any) -> bool:
    while getattr(value.owner, "name", None) in ("sdy.sharding_constraint", "stablehlo.broadcast_in_dim"):
        value = value.owner.operation.operands[0]
    if getattr(value.owner, "name", None) != "stablehlo.constant":
        return False
    # Compares text, because jaxlib 0.10 has no Python attribute for complex constants.
    return _ZERO.search(str(value.owner.operation)) is not None
