"""``install()``: the lowering of ``lax``'s own convolution is this package's kernels, for the whole process.

Windows likewise: installed_pooling.py.

What is traced stays ``lax``'s: its primitive with its derivatives and its vmap, forward mode included. Only
where a program is lowered for a platform that has kernels, each convolution becomes the contraction that it
is (recognition.py). All private names of JAX that this needs are here.

The rule for ``lax``'s primitive sees whether a filter is the reversal of another, and hands on to a
primitive of this module, which JAX lowers for each platform by itself: on this package's kernels, or by the
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

from jax_convgrad.primitives import ffi
from jax_convgrad.primitives.define import rules
from jax_convgrad.primitives.lowering import lowered_for
from jax_convgrad.replace import exporting, installed_pooling, lowering_record
from jax_convgrad.replace.lax_convolution import before_reversals, contraction_of, runner, single_primitive
from jax_convgrad.replace.lax_pooling import WINDOW_PRIMITIVES
from jax_convgrad.replace.on_lax import OnLax
from jax_convgrad.replace.recognition import Contraction

_convolution_p = lax.conv_general_dilated_p
_original: dict[str | None, Any] = {}
"""Platform, or None for all others, to the entry that lax has there, while this package's is installed."""


def install(*, export: bool = False, verbose: bool = False) -> None:
    """Runs every ``jax.lax`` convolution and pooling window of this process on these kernels, as it stands.

    That holds for those of Flax, Haiku, Equinox, Keras and all else that calls ``jax.lax``, on CPU and CUDA,
    and for all that JAX makes of them: gradients of any order, forward mode, vmap. Windows are those of
    ``lax.reduce_window`` with a maximum, a minimum or a sum, over 1 to 3 dimensions of an array, in any
    order. Their values and gradients are ``jax.lax``'s; sums of 16-bit numbers run in float32. Among equal
    maxima forward mode takes the first, as reverse mode does; which one ``jax.lax``'s takes in a padded
    window of two dimensions XLA decides.

    Unsupported operations stay on ``jax.lax``: integers, more than 3 spatial dimensions, symbolic sizes,
    custom reduction functions, cumulative sums. ``installed_report()`` lists each operation, what runs it,
    and the reason if that is ``jax.lax``.

    What ``jax.export`` exports meanwhile has ``jax.lax``'s own operations, so that it runs wherever JAX
    does, unless ``export`` asks for the kernels; then it needs this package where it is loaded, and
    ``export_checks()`` as ``disabled_checks`` where it is exported.

    It clears JAX's caches (``jax.clear_caches``), so that functions compiled before are compiled anew. What
    was compiled ahead of time (``jax.jit(f).lower(...).compile()``) stays as it is. Calling it again has no
    effect, except that the last ``export`` counts.

    Args:
      export: whether exported programs call the kernels too.
      verbose: print a line for each convolution and window when a program with it is lowered.

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
    # An uncacheable rule is called in place, where it can see what its operands come from.
    mlir.register_lowering(_convolution_p, _lower, cacheable=False)
    installed_pooling.put(on_platforms, elsewhere)
    jax.clear_caches()


def is_installed() -> bool:
    """Whether ``install()`` is in force."""
    return bool(_original)


def uninstall() -> None:
    """Undoes ``install()``: convolutions and windows are ``jax.lax``'s own again. Clears JAX's caches too."""
    if not _original:
        return
    on_platforms, elsewhere = _rules()
    for platform, entry in _original.items():
        table = elsewhere if platform is None else on_platforms[platform]
        table[_convolution_p] = entry
    _original.clear()
    installed_pooling.take_back(on_platforms, elsewhere)
    lowering_record.begin(verbose=False)
    _make_cacheable()
    jax.clear_caches()


def _taken_primitives() -> tuple[Any, ...]:
    return _convolution_p, *WINDOW_PRIMITIVES


def _rules() -> tuple[Mapping[str, dict[Any, Any]], dict[Any, Any]]:
    """JAX's lowering rules, by platform and for all others: primitive to an entry with its ``rule``."""
    try:
        rules = mlir._platform_specific_lowerings, mlir._lowerings
        rules[1][_convolution_p].rule  # noqa: B018  # looked at only to see that it is there
    except (AttributeError, KeyError):
        raise RuntimeError(
            f"jax_convgrad.install() does not know its way about jax {jax.__version__}; "
            "replace_convolutions does without"
        ) from None
    return rules


def _make_cacheable() -> None:
    """Takes back ``cacheable=False``, which changes how a rule is called and not what it gives."""
    try:
        from jax._src.interpreters.mlir import _uncacheable_primitives
    except ImportError:
        return
    _uncacheable_primitives.difference_update(_taken_primitives())


# ------------------------------------------------------------------------------------------------- the rules


def _lower(ctx: Any, lhs: Any, rhs: Any, **params: Any) -> Sequence[Any]:
    """The rule of ``lax``'s convolution: what it is, whatever the platform."""
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
    elif before.type != rhs.type:  # it was widened on the way
        before = stablehlo.ConvertOp(rhs.type, before).result
    for platform in ctx.module_context.platforms:
        if platform in ("cpu", "cuda"):
            runs_on: str | OnLax = OnLax(f"no kernels for {platform}")
            if isinstance(contraction, OnLax) or platform in ffi.backends:
                runs_on = contraction if isinstance(contraction, OnLax) else contraction.name
            lowering_record.record(_convolution_p.name, ctx.avals_in, out_aval, [platform], runs_on)
    if on_lax is not None:
        return on_lax(ctx, lhs, rhs, **params)

    def by_platform(lhs: jax.Array, rhs: jax.Array, before: jax.Array) -> jax.Array:
        return _by_platform_p.bind(lhs, rhs, before, out=out_aval, contraction=contraction, **params)

    ctx = ctx.replace(avals_in=[lhs_aval, rhs_aval, rhs_aval])
    platform = _only_platform(ctx)
    if platform is not None:  # which spares tracing the primitive, and much of a large net's lowering
        rule = _original.get(platform, _original[None]).rule
        on_platform = (
            partial(_on_kernels, platform, rule) if platform in ffi.backends else partial(_as_lax, rule)
        )
        return on_platform(ctx, lhs, rhs, before, out=out_aval, contraction=contraction, **params)
    return mlir.lower_fun(by_platform, multiple_results=False)(ctx, lhs, rhs, before)


def _only_platform(ctx: Any) -> str | None:
    """The one platform that an equation is lowered for; None where it has several, or one of its own."""
    platforms = lowered_for(ctx)
    return platforms[0] if len(platforms) == 1 else None


def _only_rule(ctx: Any) -> Any:
    """``lax``'s rule on every platform that an equation is lowered for; None where it has several."""
    found = [_original.get(platform, _original[None]).rule for platform in lowered_for(ctx)]
    return found[0] if found and all(rule is found[0] for rule in found) else None


def _reversal(value: Any) -> tuple[Any, Sequence[int]] | None:
    """What ``value`` is the reversal, or a wider copy, of, and the dimensions: see before_reversals."""
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
"""A convolution of lhs and rhs for ``lax``, of lhs and rhs before its reversal for the contraction."""


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
    if isinstance(contraction, OnLax) or platform not in ffi.backends:
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
