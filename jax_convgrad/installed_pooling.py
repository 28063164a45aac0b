"""``install()`` for windows: the lowering of ``lax``'s reductions of windows is this package's pooling.

For CPU and CUDA each has a rule that sees what is reduced and how, and calls the kernels or the rule that
``lax`` had there. Other platforms keep ``lax``'s.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from jax.interpreters import mlir

from jax_convgrad import exporting, ffi, lowering_record
from jax_convgrad.lax_pooling import WINDOW_PRIMITIVES, Zeros, pooling_of, runner
from jax_convgrad.on_lax import OnLax
from jax_convgrad.pool_recognition import Pooling

_PLATFORMS = ("cpu", "cuda")
_original: dict[tuple[str, Any], Any] = {}
"""Platform and primitive to the entry that lax has there, None where it has but one for all others."""


def put(on_platforms: Mapping[str, dict[Any, Any]], elsewhere: dict[Any, Any]) -> None:
    """Puts this package's rules in the place of ``lax``'s, in JAX's tables of them."""
    for primitive in WINDOW_PRIMITIVES:
        for platform in _PLATFORMS:
            own = on_platforms.get(platform, {}).get(primitive)
            _original[platform, primitive] = own
            rule = (own or elsewhere[primitive]).rule
            # An uncacheable rule is called in place, where it can see what its operands come from.
            mlir.register_lowering(
                primitive, partial(_lower, primitive, platform, rule), platform=platform, cacheable=False
            )


def take_back(on_platforms: Mapping[str, dict[Any, Any]]) -> None:
    """Undoes ``put``."""
    for (platform, primitive), entry in _original.items():
        if entry is None:
            del on_platforms[platform][primitive]
        else:
            on_platforms[platform][primitive] = entry
    _original.clear()


def _lower(
    primitive: Any, platform: str, rule: Any, ctx: Any, *operands: Any, **params: Any
) -> Sequence[Any]:
    padded = _padded_with_zeros(operands[0])
    zeros = None if padded is None else padded[1]
    pooling, unpadded = pooling_of(primitive, ctx.avals_in, ctx.avals_out[0], params, zeros)
    if isinstance(pooling, Pooling):
        if platform not in ffi.backends:
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
    """The operand of the padding that ``value`` is the result of, where it pads with zeros."""
    while getattr(value.owner, "name", None) == "sdy.sharding_constraint":  # follows each op on explicit axes
        value = value.owner.operation.operands[0]
    if getattr(value.owner, "name", None) != "stablehlo.pad":
        return None
    operation = value.owner.operation
    operand, filling = operation.operands
    if not _is_zero(filling):
        return None
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
    # Its text, since jaxlib 0.10 has no attribute in Python for complex constants.
    return _ZERO.search(str(value.owner.operation)) is not None
