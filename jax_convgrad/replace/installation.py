"""``install()``: ``lax``'s own convolution is lowered to this package's kernels, in the whole process.

installed_pooling.py does the same for windows.

Tracing does not change: it uses ``lax``'s primitive with its derivatives, forward mode and vmap. Only the
lowering for a platform that has kernels turns each convolution into its contraction (recognition.py). This
module contains all private names of JAX that this needs.

The rule for ``lax``'s primitive checks whether a filter is the reversal of another array, and binds a
primitive of this module. JAX lowers that for each platform separately: to this package's kernels, or by the
rule that ``lax`` had there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
from jax import lax
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.extend.mlir.dialects import stablehlo
from jax.interpreters import mlir
from jax.interpreters.mlir import ir

from jax_convgrad.primitives import targets
from jax_convgrad.primitives.define import rules
from jax_convgrad.primitives.lowering import lowered_for
from jax_convgrad.replace import exporting, installed_pooling, lowering_record
from jax_convgrad.replace.lax_convolution import before_reversals, contraction_of, runner, single_primitive
from jax_convgrad.replace.lax_pooling import WINDOW_PRIMITIVES
from jax_convgrad.replace.reasons import OnLax
from jax_convgrad.replace.recognition import Contraction

_convolution_p = lax.conv_general_dilated_p
_original: dict[str | None, Any] = {}
"""Maps a platform, or None for all others, to ``lax``'s own entry while this package's is installed."""


def install(*, export: bool = False, verbose: bool = False) -> None:
    """Runs every ``jax.lax`` convolution and pooling window of this process on these kernels.

    This includes all operations of Flax, Haiku, Equinox, Keras and other code that call ``jax.lax``, on CPU
    and CUDA, and everything that JAX derives from them: gradients of any order, forward mode, vmap. Windows
    are those of ``lax.reduce_window`` with a maximum, a minimum or a sum, over 1 to 3 dimensions of an array,
    in any order. Their values and gradients are those of ``jax.lax``, except that sums of 16-bit numbers run
    in float32. Among equal maxima, forward mode chooses the first, as reverse mode does; in a padded window
    of two dimensions XLA determines which one ``jax.lax`` chooses.

    Unsupported operations stay on ``jax.lax``: integers, more than 3 spatial dimensions, symbolic sizes,
    custom reduction functions, cumulative sums. ``installed_report()`` lists each operation, what runs it,
    and the reason if that is ``jax.lax``.

    Programs that ``jax.export`` exports contain ``jax.lax``'s own operations, so that they run wherever JAX
    does. With ``export=True`` they call the kernels: then loading them needs this package, and exporting them
    needs ``export_checks()`` as ``disabled_checks``.

    ``install`` clears JAX's caches (``jax.clear_caches``), so that functions are compiled again. Programs
    that were compiled ahead of time (``jax.jit(f).lower(...).compile()``) do not change. Calling ``install``
    again has no effect, except that the last ``export`` counts.

    Args:
      export: whether exported programs call the kernels too.
      verbose: whether to print a line for each convolution and window when a program with it is lowered.

    Raises:
      RuntimeError: this version of JAX keeps its lowering rules elsewhere.
    """
    if exporting.set_with_kernels(bool(export)) and _original:
        jax.clear_caches()
    if _original:
        lowering_record.speak(verbose)
        return
    on_platforms, elsewhere = _rules()
    lowering_record.begin(verbose)
    entries: dict[str | None, Any] = {
        platform: table[_convolution_p] for platform, table in on_platforms.items() if _convolution_p in table
    }
    entries[None] = elsewhere[_convolution_p]
    for platform, entry in entries.items():
        _original[platform] = entry
        mlir.register_lowering(_by_platform_p, partial(_as_lax, entry.rule), platform=platform)
        if platform is not None:
            del on_platforms[platform][_convolution_p]
    for platform in ("cpu", "cuda"):
        rule = entries.get(platform, entries[None]).rule
        mlir.register_lowering(_by_platform_p, partial(_on_kernels, platform, rule), platform=platform)
    # JAX calls an uncacheable rule in place, where it can see which operations its operands come from.
    mlir.register_lowering(_convolution_p, _lower, cacheable=False)
    installed_pooling.put(on_platforms, elsewhere)
    jax.clear_caches()


def is_installed() -> bool:
    """Reports whether ``install()`` is in force."""
    return bool(_original)


def uninstall() -> None:
    """Undoes ``install()``: convolutions and windows run on ``jax.lax`` again. Clears JAX's caches."""
    if not _original:
        return
    on_platforms, elsewhere = _rules()
    for platform, entry in _original.items():
        table = elsewhere if platform is None else on_platforms[platform]
        table[_convolution_p] = entry
    _original.clear()
    installed_pooling.take_back(on_platforms, elsewhere)
    lowering_record.end()
    _make_cacheable()
    jax.clear_caches()


def _taken_primitives() -> tuple[Any, ...]:
    return _convolution_p, *WINDOW_PRIMITIVES


def _rules() -> tuple[Mapping[str, dict[Any, Any]], dict[Any, Any]]:
    """JAX's lowering rules by platform, and those for all others: each maps a primitive to an entry."""
    try:
        rules = mlir._platform_specific_lowerings, mlir._lowerings
        rules[1][_convolution_p].rule  # noqa: B018  # only checks that the entry exists
    except (AttributeError, KeyError):
        raise RuntimeError(
            f"jax_convgrad.install() does not support jax {jax.__version__}; use replace_convolutions instead"
        ) from None
    return rules


def _make_cacheable() -> None:
    """Undoes ``cacheable=False``, which changes how JAX calls a rule, not its result."""
    try:
        from jax._src.interpreters.mlir import _uncacheable_primitives
    except ImportError:
        return
    _uncacheable_primitives.difference_update(_taken_primitives())


# ------------------------------------------------------------------------------------------------- the rules


def _lower(ctx: Any, lhs: Any, rhs: Any, **params: Any) -> Sequence[Any]:
    """The rule of ``lax``'s convolution for all platforms: it recognises the contraction."""
    lhs_aval, rhs_aval = ctx.avals_in
    (out_aval,) = ctx.avals_out
    before, is_reversed = before_reversals(
        rhs, _reversal, rhs_aval.shape, params["dimension_numbers"].rhs_spec
    )
    contraction = contraction_of(lhs_aval, rhs_aval, out_aval, params, is_reversed)
    if exporting.stays_on_lax(ctx):
        contraction = OnLax("exported")
    on_lax = _only_rule(ctx) if isinstance(contraction, OnLax) else None
    if isinstance(contraction, OnLax) or (is_reversed and not contraction.unreversed):
        before = rhs
    elif before.type != rhs.type:  # the program widened it before it reversed it
        before = stablehlo.ConvertOp(rhs.type, before).result
    for platform in ctx.module_context.platforms:
        if platform in ("cpu", "cuda"):
            runs_on: str | OnLax = OnLax(f"no kernels for {platform}")
            if isinstance(contraction, OnLax) or platform in targets.backends:
                runs_on = contraction if isinstance(contraction, OnLax) else contraction.name
            lowering_record.record(_convolution_p.name, ctx.avals_in, out_aval, [platform], runs_on)
    if on_lax is not None:
        return on_lax(ctx, lhs, rhs, **params)

    def by_platform(lhs: jax.Array, rhs: jax.Array, before: jax.Array) -> jax.Array:
        return _by_platform_p.bind(lhs, rhs, before, out=out_aval, contraction=contraction, **params)

    ctx = ctx.replace(avals_in=[lhs_aval, rhs_aval, rhs_aval])
    platform = _only_platform(ctx)
    if platform is not None:  # no need to trace the primitive, which saves much of a large net's lowering
        rule = _original.get(platform, _original[None]).rule
        on_platform = (
            partial(_on_kernels, platform, rule) if platform in targets.backends else partial(_as_lax, rule)
        )
        return on_platform(ctx, lhs, rhs, before, out=out_aval, contraction=contraction, **params)
    return mlir.lower_fun(by_platform, multiple_results=False)(ctx, lhs, rhs, before)


def _only_platform(ctx: Any) -> str | None:
    """The platform that an equation is lowered for; None if it is lowered for several."""
    platforms = lowered_for(ctx)
    return platforms[0] if len(platforms) == 1 else None


def _only_rule(ctx: Any) -> Any:
    """``lax``'s rule on every platform that an equation is lowered for; None if the rules differ."""
    found = [_original.get(platform, _original[None]).rule for platform in lowered_for(ctx)]
    return found[0] if found and all(rule is found[0] for rule in found) else None


def _reversal(value: Any) -> tuple[Any, Sequence[int]] | None:
    """The array of which ``value`` is the reversal or a wider copy, and the dimensions (before_reversals)."""
    while getattr(value.owner, "name", None) == "sdy.sharding_constraint":  # follows each op on explicit axes
        value = value.owner.operation.operands[0]
    name = getattr(value.owner, "name", None)
    if name not in ("stablehlo.reverse", "stablehlo.convert"):
        return None
    operation = value.owner.operation
    before = operation.operands[0]
    if name == "stablehlo.reverse":
        return before, list(operation.attributes["dimensions"])
    narrow, wide = (str(ir.RankedTensorType(array.type).element_type) for array in (before, value))
    return (before, []) if (narrow, wide) in _WIDENINGS else None


_WIDENINGS = {
    ("bf16", "f32"),
    ("f16", "f32"),
    ("bf16", "f64"),
    ("f16", "f64"),
    ("f32", "f64"),
    ("complex<f32>", "complex<f64>"),
}


_by_platform_p = Primitive("jax_convgrad_by_platform")
"""A convolution for one platform: ``lax`` uses rhs, a contraction may use rhs before its reversal."""


@_by_platform_p.def_abstract_eval
def _by_platform_aval(lhs: Any, rhs: Any, before: Any, *, out: ShapedArray, **_: Any) -> ShapedArray:
    return out


def _as_lax(
    rule: Any, ctx: Any, lhs: Any, rhs: Any, before: Any, *, out: Any, contraction: Any, **params: Any
) -> Sequence[Any]:
    return rule(ctx.replace(avals_in=list(ctx.avals_in)[:2]), lhs, rhs, **params)


def _on_kernels(
    platform: str,
    rule: Any,
    ctx: Any,
    lhs: Any,
    rhs: Any,
    before: Any,
    *,
    out: ShapedArray,
    contraction: Contraction | OnLax,
    **params: Any,
) -> Sequence[Any]:
    if isinstance(contraction, OnLax) or platform not in targets.backends:
        return _as_lax(rule, ctx, lhs, rhs, before, out=out, contraction=contraction, **params)
    lhs_aval, _, before_aval = ctx.avals_in
    single = single_primitive(contraction, params, lhs_aval, before_aval, out)
    if single is not None:
        primitive, names, own_params = single
        given = {"lhs": (lhs, lhs_aval), "rhs": (before, before_aval)}
        values, avals = zip(*(given[name] for name in names), strict=True)
        return rules[primitive, platform](ctx.replace(avals_in=list(avals)), *values, **own_params)
    run = runner(contraction, params, out)
    ctx = ctx.replace(avals_in=[lhs_aval, before_aval])
    return mlir.lower_fun(run, multiple_results=False)(ctx, lhs, before)
