"""``install()``: the lowering of ``lax``'s own convolution is this package's kernels, for the whole process.

What is traced stays ``lax``'s: its primitive with its derivatives and its vmap, forward mode included. Only
where a program is lowered for a platform that has kernels, each convolution becomes the contraction that it
is (recognition.py). All private names of JAX that this needs are here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
from jax import lax
from jax.interpreters import mlir

from jax_convgrad import ffi
from jax_convgrad.lax_convolution import before_reversals, contraction_of, runner

_PLATFORMS = ("cpu", "cuda")
_convolution_p = lax.conv_general_dilated_p
_original: dict[str, Any] = {}
"""Platform to the entry that lax's own lowering has there, while this package's is installed."""


def install() -> None:
    """Runs every ``jax.lax`` convolution of this process on these kernels, without any change to its code.

    That holds for those of Flax, Haiku, Equinox, Keras and all else that calls ``jax.lax``, on CPU and
    CUDA, and for all that JAX makes of them: gradients of any order, forward mode, vmap. Convolutions that
    these kernels have not stay ``jax.lax``'s: other dtypes, more than 3 spatial dimensions,
    ``out_sharding``.

    It clears JAX's caches (``jax.clear_caches``), so that functions compiled before are compiled anew. What
    was compiled ahead of time (``jax.jit(f).lower(...).compile()``) stays as it is. Twice is as good as
    once.

    Raises:
      RuntimeError: this version of JAX keeps its lowering rules elsewhere.
    """
    if _original:
        return
    rules = _rules()
    entries = {platform: rules[platform].get(_convolution_p) for platform in _PLATFORMS}
    if any(not hasattr(entry, "rule") for entry in entries.values()):
        raise RuntimeError(
            f"jax_convgrad.install() does not know its way about jax {jax.__version__}; "
            "replace_convolutions does without"
        )
    _original.update(entries)
    for platform in _PLATFORMS:
        # An uncacheable rule is called in place, where it can see that a filter is another's reversal.
        mlir.register_lowering(_convolution_p, partial(_lower, platform), platform=platform, cacheable=False)
    jax.clear_caches()


def uninstall() -> None:
    """Undoes ``install()``: convolutions are ``jax.lax``'s own again. Clears JAX's caches too."""
    if not _original:
        return
    rules = _rules()
    for platform, entry in _original.items():
        rules[platform][_convolution_p] = entry
    _original.clear()
    _make_cacheable()
    jax.clear_caches()


def _rules() -> Mapping[str, dict[Any, Any]]:
    """JAX's lowering rules: platform to primitive to an entry whose ``rule`` is the function."""
    return getattr(mlir, "_platform_specific_lowerings", {platform: {} for platform in _PLATFORMS})


def _make_cacheable() -> None:
    """Takes back ``cacheable=False``, which changes how a rule is called and not what it gives."""
    try:
        from jax._src.interpreters.mlir import _uncacheable_primitives
    except ImportError:
        return
    _uncacheable_primitives.discard(_convolution_p)


def _lower(platform: str, ctx: Any, lhs: Any, rhs: Any, **params: Any) -> Sequence[Any]:
    """The lowering rule: this package's where it can be, else the one that it took the place of."""
    lhs_aval, rhs_aval = ctx.avals_in
    (out_aval,) = ctx.avals_out
    start, is_reversed = before_reversals(
        rhs, _reversal, rhs_aval.shape, params["dimension_numbers"].rhs_spec
    )
    contraction = None
    if platform in ffi.backends:
        contraction = contraction_of(lhs_aval, rhs_aval, out_aval, params, is_reversed)
    if contraction is None:
        return _original[platform].rule(ctx, lhs, rhs, **params)
    if contraction.unreversed or not is_reversed:
        rhs = start
    run = runner(contraction, params, out_aval.dtype)
    return mlir.lower_fun(run, multiple_results=False)(ctx, lhs, rhs)


def _reversal(value: Any) -> tuple[Any, Sequence[int]] | None:
    """The operand and the dimensions of the reversal that ``value`` is the result of."""
    operation = value.owner
    if getattr(operation, "name", None) != "stablehlo.reverse":
        return None
    operation = operation.operation
    return operation.operands[0], list(operation.attributes["dimensions"])
