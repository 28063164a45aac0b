"""vmap of the primitives: the mapped axis is folded into one that the kernels sum or loop over anyway.

fprop, dgrad and wgrad are one trilinear form Σ x[n,c] · w[c,k] · y[n,k] with one argument left open. So the
rule depends only on which of x, w and y carry the mapped axis (the result always does):

    x and y      into the batch n
    w and y      into the output channels k
    x and w      into the input channels c
    all three    into the groups

An operand that is not mapped is used as it is, never copied, and per-example gradients (dw for each x and dy)
are one grouped call. Pooling treats every image alike, so there the mapped axis joins the batch.

``define`` (define.py) calls a rule with its primitive, the operands and the mapped dimension of each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive

from jax_convgrad.geometry import are_known
from jax_convgrad.primitives.conv_spec import ConvSpec

_FOLDED_INTO = {"xy": "batch", "wy": "output channels", "xw": "input channels", "xwy": "groups"}


def _place(tensor: str, into: str, spec: ConvSpec) -> tuple[int, int]:
    """The dimension of an array that the mapped axis is folded into, and what stays outside of it there.

    Channels are group-major: an axis folded into the channels of each group goes behind the groups. b is an
    array of y's channels.
    """
    x_batch, x_channel = spec.dimensions.x[:2]
    y_batch, y_channel = spec.dimensions.y[:2]
    w_out, w_in = spec.dimensions.w[:2]
    return {
        ("x", "batch"): (x_batch, 1),
        ("y", "batch"): (y_batch, 1),
        ("w", "output channels"): (w_out, spec.groups),
        ("y", "output channels"): (y_channel, spec.groups),
        ("b", "output channels"): (0, spec.groups),
        ("x", "input channels"): (x_channel, spec.groups),
        ("w", "input channels"): (w_in, 1),
        ("x", "groups"): (x_channel, 1),
        ("w", "groups"): (w_out, 1),
        ("y", "groups"): (y_channel, 1),
        ("b", "groups"): (0, 1),
    }[tensor, into]


def _fold(array: jax.Array, mapped: int, place: int, outside: int) -> jax.Array:
    """Merges the mapped dimension into dimension ``place`` of the others: [outside, mapped, rest]."""
    size = array.shape[mapped]
    array = jnp.moveaxis(array, mapped, 0)
    before, here, after = array.shape[1 : place + 1], array.shape[place + 1], array.shape[place + 2 :]
    array = jnp.reshape(array, (size, *before, outside, here // outside, *after))
    array = jnp.moveaxis(array, 0, place + 1)
    return jnp.reshape(array, (*before, size * here, *after))


def _unfold(array: jax.Array, size: int, place: int, outside: int) -> jax.Array:
    """The inverse of ``_fold``; the mapped dimension comes first."""
    before, here, after = array.shape[:place], array.shape[place], array.shape[place + 1 :]
    array = jnp.reshape(array, (*before, outside, size, here // (outside * size), *after))
    array = jnp.moveaxis(array, place + 1, 0)
    return jnp.reshape(array, (size, *before, here // size, *after))


def _mapped_size(args: Sequence[jax.Array], mapped: Sequence[int | None]) -> int:
    return next(array.shape[at] for array, at in zip(args, mapped, strict=True) if at is not None)


def _nothing(
    primitive: Primitive, args: Sequence[jax.Array], mapped: Sequence[int | None], params: dict[str, Any]
) -> tuple[Any, Any]:
    """The result of mapping over an axis of size 0, which cannot be folded into groups or channels."""
    one = [
        jax.ShapeDtypeStruct(
            array.shape if at is None else (*array.shape[:at], *array.shape[at + 1 :]), array.dtype
        )
        for array, at in zip(args, mapped, strict=True)
    ]
    out = jax.eval_shape(lambda *args: primitive.bind(*args, **params), *one)
    empty = jax.tree.map(lambda result: jnp.zeros((0, *result.shape), result.dtype), out)
    return empty, jax.tree.map(lambda _: 0, out)


def _one_by_one(
    primitive: Primitive, args: Sequence[jax.Array], mapped: Sequence[int | None], params: dict[str, Any]
) -> Any:
    """Each example by itself, for a symbolic number of them: there cannot be as many groups."""
    fronted = [a if at is None else jnp.moveaxis(a, at, 0) for a, at in zip(args, mapped, strict=True)]

    def one(examples: Sequence[jax.Array]) -> Any:
        rest = iter(examples)
        given = [a if at is None else next(rest) for a, at in zip(fronted, mapped, strict=True)]
        return primitive.bind(*given, **params)

    return jax.lax.map(one, [a for a, at in zip(fronted, mapped, strict=True) if at is not None])


def contraction_rule(
    operands: str, results: str, step_by_step: Callable[..., jax.Array] | None = None
) -> Callable[..., Any]:
    """The rule of a primitive that takes and gives the arrays named by the letters x, w, y and b.

    b is a bias, which belongs to y's channels, or its gradient. ``step_by_step`` computes the same as a
    primitive that takes b, with other primitives.
    """

    def rule(
        primitive: Primitive,
        args: Sequence[jax.Array],
        mapped: Sequence[int | None],
        *,
        spec: ConvSpec,
        **params: Any,
    ) -> tuple[Any, Any]:
        arrays, at = dict(zip(operands, args, strict=False)), dict(zip(operands, mapped, strict=False))
        size = _mapped_size(args, mapped)
        if size == 0:
            return _nothing(primitive, args, mapped, {"spec": spec, **params})
        if step_by_step is not None and at["w"] is None and at.get("b") is not None:
            # Channels stay as they are, each with a b for every example, which no call has.
            return jax.vmap(partial(step_by_step, spec=spec, **params), tuple(mapped))(*args), 0
        carriers = {name for name, place in at.items() if place is not None} | {results[0]}
        into = _FOLDED_INTO["".join(name for name in "xwy" if name in carriers)]
        if into == "groups" and not are_known([size]):
            out = _one_by_one(primitive, args, mapped, {"spec": spec, **params})
            return out, jax.tree.map(lambda _: 0, out)
        if "b" in arrays and into != "batch":
            b, b_at = arrays["b"], at.pop("b")
            each = jnp.tile(b, (size, 1)) if b_at is None else b
            arrays["b"] = _fold(each, b_at or 0, *_place("b", into, spec))
        folded = [
            array if (place := at.get(name)) is None else _fold(array, place, *_place(name, into, spec))
            for name, array in arrays.items()
        ]
        groups = spec.groups * (size if into == "groups" else 1)
        out = primitive.bind(*folded, spec=spec.with_groups(groups), **params)
        if not primitive.multiple_results:
            return _unfold(out, size, *_place(results, into, spec)), 0
        dw, db = out
        dw = _unfold(dw, size, *_place("w", into, spec))
        if at["y"] is None:  # on which alone db depends
            return [dw, db], [0, None]
        return [dw, _unfold(db, size, *_place("b", into, spec))], [0, 0]

    return rule


def bgrad_rule(
    primitive: Primitive, args: Sequence[jax.Array], mapped: Sequence[int], *, channel_axis: int
) -> tuple[jax.Array, int]:
    """The mapped axis joins the channels, whichever dimension they are."""
    (dy,), (at,) = args, mapped
    if dy.shape[at] == 0:
        return _nothing(primitive, args, mapped, {"channel_axis": channel_axis})
    db = primitive.bind(_fold(dy, at, channel_axis, 1), channel_axis=channel_axis)
    return _unfold(db, dy.shape[at], 0, 1), 0


def spread_rule(
    primitive: Primitive,
    args: Sequence[jax.Array],
    mapped: Sequence[int],
    *,
    shape: tuple[int, ...],
    channel_axis: int,
) -> tuple[jax.Array, int]:
    """A broadcast by one more axis."""
    (b,), (at,) = args, mapped
    rows = jnp.moveaxis(b, at, 0)
    return jax.lax.broadcast_in_dim(rows, (rows.shape[0], *shape), (0, channel_axis + 1)), 0


def pool_rule(primitive: Primitive, args: Sequence[jax.Array], mapped: Sequence[int], **params: Any) -> Any:
    """The rule of a pooling with one operand: the mapped axis joins the batch."""
    (x,), (at,) = args, mapped
    if x.shape[at] == 0:
        return _nothing(primitive, args, mapped, params)
    batch = params["spec"].batch
    out = primitive.bind(_fold(x, at, batch, 1), **params)
    if primitive.multiple_results:
        return [_unfold(array, x.shape[at], batch, 1) for array in out], [0] * len(out)
    return _unfold(out, x.shape[at], batch, 1), 0


def position_rule(
    primitive: Primitive, args: Sequence[jax.Array], mapped: Sequence[int | None], **params: Any
) -> Any:
    """The rule of a pooling that reads one operand at the positions in the other, image by image.

    The kernels read an operand that has fewer images again and again, so one that is not mapped stays as it
    is. But an operand may be mapped here and have fewer images already, because the other alone was mapped
    elsewhere. That one is repeated first, since otherwise its images would meet the wrong ones of the other.
    """
    size = _mapped_size(args, mapped)
    if size == 0:
        return _nothing(primitive, args, mapped, params)
    batch = params["spec"].batch
    # The mapped axis comes right before the images.
    given = [
        array if at is None else jnp.moveaxis(array, at, batch)
        for array, at in zip(args, mapped, strict=True)
    ]
    if not all(are_known(array.shape[batch : batch + 2]) for array in given):
        # If they are symbols, it is unknown which number of images is the larger.
        given = [
            jnp.broadcast_to(
                jnp.expand_dims(array, batch), (*array.shape[:batch], size, *array.shape[batch:])
            )
            if at is None
            else array
            for array, at in zip(given, mapped, strict=True)
        ]
        mapped = [batch] * len(given)
    images = [
        array.shape[batch if at is None else batch + 1] for array, at in zip(given, mapped, strict=True)
    ]
    folded = []
    for array, at, count in zip(given, mapped, images, strict=True):
        if at is not None:
            times = max(images) // count if count else 1
            if times > 1:
                array = jnp.tile(array, (*(1,) * (batch + 1), times, *(1,) * (array.ndim - batch - 2)))
            before, after = array.shape[:batch], array.shape[batch + 2 :]
            array = jnp.reshape(array, (*before, size * array.shape[batch + 1], *after))
        folded.append(array)
    return _unfold(primitive.bind(*folded, **params), size, batch, 1), 0


def norm_rule(
    primitive: Primitive, args: Sequence[jax.Array], mapped: Sequence[int | None], **params: Any
) -> tuple[list[jax.Array], list[int]]:
    """The rule of batch norm: the mapped axis joins the groups, the first dimension of every operand."""
    size = next(array.shape[at] for array, at in zip(args, mapped, strict=True) if at is not None)
    folded = []
    for array, at in zip(args, mapped, strict=True):
        rows = jnp.broadcast_to(array, (size, *array.shape)) if at is None else jnp.moveaxis(array, at, 0)
        folded.append(jnp.reshape(rows, (size * rows.shape[1], *rows.shape[2:])))
    results = primitive.bind(*folded, **params)
    groups = folded[0].shape[0] // size if size else 0
    unfolded = [jnp.reshape(array, (size, groups, *array.shape[1:])) for array in results]
    return unfolded, [0] * len(unfolded)
