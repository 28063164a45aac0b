"""One of ``jax.lax``'s own convolutions in a traced program, computed by this package's primitives."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Primitive
from jax.sharding import AxisType, auto_axes

from jax_convgrad.geometry import MAX_AXES, MAX_STEP, are_known
from jax_convgrad.primitives import contractions
from jax_convgrad.primitives.conv_spec import ConvSpec
from jax_convgrad.primitives.number_types import FLOAT32, NUMBERS, converted, for_result, holds
from jax_convgrad.replace.reasons import OnLax
from jax_convgrad.replace.recognition import Contraction, Move, recognise

_MAX_SIZE = 2**31 - 1
_CONTRACTIONS: dict[str, Callable[..., jax.Array]] = {
    "fprop": contractions.fprop,
    "dgrad": contractions.dgrad,
    "wgrad": contractions.wgrad,
}
_PRIMITIVES = {"fprop": contractions.fprop_p, "dgrad": contractions.dgrad_p, "wgrad": contractions.wgrad_p}
_GEOMETRIC = (
    "window_strides",
    "padding",
    "lhs_dilation",
    "rhs_dilation",
    "dimension_numbers",
    "feature_group_count",
    "batch_group_count",
)

Value = TypeVar("Value")


def contraction_of(
    lhs: Any, rhs: Any, out: Any, params: dict[str, Any], rhs_reversed: bool
) -> Contraction | OnLax:
    """The contraction that computes this convolution, or the reason why ``jax.lax`` has to compute it.

    ``lhs``, ``rhs`` and ``out`` are abstract values, ``params`` those of ``lax.conv_general_dilated_p``.
    """
    return _contraction(lhs, rhs, out, tuple(params.items()), rhs_reversed)


@functools.lru_cache(4096)  # a large net has many layers of few kinds
def _contraction(
    lhs: Any, rhs: Any, out: Any, params: tuple[tuple[str, Any], ...], rhs_reversed: bool
) -> Contraction | OnLax:
    named = dict(params)
    why = _left(lhs, rhs, out, named)
    if why is not None:
        return OnLax(why)
    geometric = {name: named[name] for name in _GEOMETRIC}
    return recognise(lhs.shape, rhs.shape, out.shape, **geometric, rhs_reversed=rhs_reversed)


def _left(lhs: Any, rhs: Any, out: Any, params: dict[str, Any]) -> str | None:
    """The dtypes, rank or numbers that the kernels do not support, as a reason; None if they support all."""
    dtypes = {array.dtype.name for array in (lhs, rhs, out)}
    if lhs.dtype != rhs.dtype or not {lhs.dtype.name, out.dtype.name} <= set(NUMBERS):
        return " and ".join(sorted(dtypes))
    # The result's dtype has to represent the operands exactly, which float16 and bfloat16 do not do mutually.
    if not holds(out.dtype, lhs.dtype):
        return f"{lhs.dtype.name} with a result of {out.dtype.name}"
    if lhs.ndim > 2 + MAX_AXES:
        return f"{lhs.ndim - 2} spatial dimensions"
    sizes = (*lhs.shape, *rhs.shape, *out.shape)
    steps = (*params["window_strides"], *params["lhs_dilation"], *params["rhs_dilation"])
    pads = [end for pair in params["padding"] for end in pair]
    # Under shape polymorphism a size may be an expression, and then so may a pad.
    if not are_known((*sizes, *steps, *pads)):
        return "a symbolic size"
    if max((*sizes, *map(abs, pads)), default=0) > _MAX_SIZE:
        return "a size of 2**31 or more"
    return f"a step above {MAX_STEP}" if max(steps, default=1) > MAX_STEP else None


def single_primitive(
    contraction: Contraction, params: dict[str, Any], lhs: Any, rhs: Any, out: Any
) -> tuple[Primitive, tuple[str, ...], dict[str, Any]] | None:
    """The only primitive that ``runner`` binds, if it moves, converts and reshards no array, else None.

    Also gives the names of its operands and its parameters. ``lhs``, ``rhs`` and ``out`` are abstract values.
    """
    moves = (contraction.lhs_move, contraction.rhs_move, contraction.out_move)
    unrounded = lhs.dtype.itemsize == 2 and out.dtype == FLOAT32
    if (
        any(moves)
        or lhs.dtype != rhs.dtype
        or not (lhs.dtype == out.dtype or unrounded)
        or AxisType.Explicit in out.sharding.mesh.axis_types
    ):
        return None
    spec = _spec(contraction, params, FLOAT32 if unrounded else None)
    return _PRIMITIVES[contraction.name], contraction.operands, {"spec": spec}


def _spec(contraction: Contraction, params: dict[str, Any], result_dtype: Any) -> ConvSpec:
    return ConvSpec(contraction.geometry, contraction.dimensions, params["precision"], result_dtype)


def runner(
    contraction: Contraction, params: dict[str, Any], out: Any
) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """The convolution as a function of lhs and rhs (before its reversal if ``contraction.unreversed``).

    The dtype of rhs may be narrower than that of lhs. The result has the dtype of ``out`` and is split over
    explicit mesh axes as ``out`` is.
    """

    def run(lhs: jax.Array, rhs: jax.Array) -> jax.Array:
        groups = contraction.geometry.groups
        lhs, rhs, unrounded = for_result(out.dtype, lhs, converted(rhs, lhs.dtype))
        arrays = {
            "lhs": _moved(lhs, contraction.lhs_move, groups),
            "rhs": _moved(rhs, contraction.rhs_move, groups),
        }
        result = _CONTRACTIONS[contraction.name](
            *(arrays[name] for name in contraction.operands), _spec(contraction, params, unrounded)
        )
        return _moved(result, contraction.out_move, groups)

    return over_explicit_axes(run, out)


def over_explicit_axes(run: Callable[..., jax.Array], out: Any) -> Callable[..., jax.Array]:
    """``run`` with automatic instead of explicit mesh axes, and a result that is split as ``out`` is."""
    mesh = out.sharding.mesh
    explicit = tuple(
        name for name, kind in zip(mesh.axis_names, mesh.axis_types, strict=True) if kind is AxisType.Explicit
    )
    return auto_axes(run, axes=explicit, out_sharding=out.sharding) if explicit else run


def _moved(array: jax.Array, move: Move | None, groups: int) -> jax.Array:
    if move is None:
        return array
    source, target = move
    split = jnp.reshape(
        array, (*array.shape[:source], groups, array.shape[source] // groups, *array.shape[source + 1 :])
    )
    # The groups come before the target, which keeps its place among the remaining dimensions.
    ahead = jnp.moveaxis(split, source, target)
    before, after = ahead.shape[:target], ahead.shape[target + 2 :]
    return jnp.reshape(ahead, (*before, groups * ahead.shape[target + 1], *after))


def before_reversals(
    value: Value,
    step: Callable[[Value], tuple[Value, Sequence[int]] | None],
    sizes: Sequence[int],
    spec: Sequence[int],
) -> tuple[Value, bool]:
    """The array before any reversals of ``value``, and whether they reverse all spatial dimensions together.

    ``step(value)`` returns the array of which ``value`` is a reversal and the reversed dimensions; or the
    array of which it is a copy in a wider dtype, and no dimensions; or None. So the result may have a
    narrower dtype. If the reversals together reverse some spatial dimensions but not all, the result is
    ``value``.
    """
    start, before, turned = value, value, frozenset[int]()
    while (reversal := step(value)) is not None:
        value, dimensions = reversal
        turned ^= frozenset(dimensions)
        if dimensions:
            before = value
    spatial = frozenset(spec[2:])
    if not turned:
        return before, False
    if turned <= spatial and all(sizes[d] == 1 for d in spatial - turned):
        return before, True
    return start, False


def is_widening(narrow: np.dtype, wide: np.dtype) -> bool:
    """Reports whether a conversion changes no number, so that it may be exchanged with a reversal."""
    return {narrow.name, wide.name} <= set(NUMBERS) and holds(wide, narrow)
