"""vmap of the primitives: the mapped axis is folded into one that the kernels sum or loop over anyway.

fprop, dgrad and wgrad are one trilinear form Σ x[n,c] · w[c,k] · y[n,k] with one argument left open, so what
to do depends only on which of x, w and y carry the mapped axis (the result always does):

    x and y      into the batch n
    w and y      into the output channels k
    x and w      into the input channels c
    all three    into the groups

An operand that is not mapped is used as it is, never copied, and per-example gradients (dw for each x and dy)
are one grouped call. Pooling treats every image alike, so there the mapped axis joins the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive

from jax_convgrad.geometry import ConvGeometry, are_known
from jax_convgrad.primitives.ffi import Dims

_FOLDED_INTO = {"xy": "batch", "wy": "output channels", "xw": "input channels", "xwy": "groups"}


def _place(tensor: str, into: str, dims: Dims, groups: int) -> tuple[int, int]:
    """The dimension of x, w or y that the mapped axis is folded into, and what stays outside of it there.

    Channels are group-major: an axis folded into the channels of each group goes behind the groups.
    """
    x_batch, x_channel = dims.x[:2]
    y_batch, y_channel = dims.y[:2]
    w_out, w_in = dims.w[:2]
    return {
        ("x", "batch"): (x_batch, 1),
        ("y", "batch"): (y_batch, 1),
        ("w", "output channels"): (w_out, groups),
        ("y", "output channels"): (y_channel, groups),
        ("x", "input channels"): (x_channel, groups),
        ("w", "input channels"): (w_in, 1),
        ("x", "groups"): (x_channel, 1),
        ("w", "groups"): (w_out, 1),
        ("y", "groups"): (y_channel, 1),
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
    """The result of mapping over an axis of size 0, which no group or channel can take in."""
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
    """Each example by itself, where their number is a symbol: there cannot be as many groups."""
    fronted = [a if at is None else jnp.moveaxis(a, at, 0) for a, at in zip(args, mapped, strict=True)]

    def one(examples: Sequence[jax.Array]) -> Any:
        rest = iter(examples)
        given = [a if at is None else next(rest) for a, at in zip(fronted, mapped, strict=True)]
        return primitive.bind(*given, **params)

    return jax.lax.map(one, [a for a, at in zip(fronted, mapped, strict=True) if at is not None])


def contraction_rule(primitive: Primitive, operands: str, result: str) -> Callable[..., Any]:
    """The rule of a primitive that takes two of x, w and y, as named, and gives the third."""

    def rule(
        args: Sequence[jax.Array],
        mapped: Sequence[int | None],
        *,
        geometry: ConvGeometry,
        dimensions: Dims,
        **params: Any,
    ) -> tuple[jax.Array, int]:
        size = _mapped_size(args, mapped)
        if size == 0:
            params |= {"geometry": geometry, "dimensions": dimensions}
            return _nothing(primitive, args, mapped, params)
        carriers = [name for name, at in zip(operands, mapped, strict=True) if at is not None]
        into = _FOLDED_INTO["".join(name for name in "xwy" if name in carriers or name == result)]
        if into == "groups" and not are_known([size]):
            params |= {"geometry": geometry, "dimensions": dimensions}
            return _one_by_one(primitive, args, mapped, params), 0
        folded = [
            array if at is None else _fold(array, at, *_place(name, into, dimensions, geometry.groups))
            for name, array, at in zip(operands, args, mapped, strict=True)
        ]
        groups = geometry.groups * (size if into == "groups" else 1)
        out = primitive.bind(
            *folded, geometry=ConvGeometry(geometry.axes, groups), dimensions=dimensions, **params
        )
        return _unfold(out, size, *_place(result, into, dimensions, geometry.groups)), 0

    return rule


def fprop_epilogue_rule(primitive: Primitive, step_by_step: Callable[..., jax.Array]) -> Callable[..., Any]:
    """As fprop's; b goes with y's channels where the mapped axis is folded into them.

    ``step_by_step`` computes the same with other primitives.
    """

    def rule(
        args: Sequence[jax.Array],
        mapped: Sequence[int | None],
        *,
        geometry: ConvGeometry,
        dimensions: Dims,
        **params: Any,
    ) -> tuple[jax.Array, int]:
        size = _mapped_size(args, mapped)
        if size == 0:
            params |= {"geometry": geometry, "dimensions": dimensions}
            return _nothing(primitive, args, mapped, params)
        (x, w, *b), (x_at, w_at, *b_at) = args, mapped
        if w_at is None and b_at not in ([], [None]):
            # Channels stay as they are, each with a b for every example: no call has that.
            apart = partial(step_by_step, geometry=geometry, dimensions=dimensions, **params)
            return jax.vmap(apart, tuple(mapped))(*args), 0
        into = _FOLDED_INTO[
            "".join(name for name, at in (("x", x_at), ("w", w_at), ("y", 0)) if at is not None)
        ]
        if into == "groups" and not are_known([size]):
            params |= {"geometry": geometry, "dimensions": dimensions}
            return _one_by_one(primitive, args, mapped, params), 0
        place, outside = _place("y", into, dimensions, geometry.groups)
        if into != "batch":
            each = [
                jnp.tile(bias, (size, 1)) if at is None else bias for bias, at in zip(b, b_at, strict=True)
            ]
            b = [_fold(bias, at or 0, 0, outside) for bias, at in zip(each, b_at, strict=True)]
        if x_at is not None:
            x = _fold(x, x_at, *_place("x", into, dimensions, geometry.groups))
        if w_at is not None:
            w = _fold(w, w_at, *_place("w", into, dimensions, geometry.groups))
        groups = geometry.groups * (size if into == "groups" else 1)
        y = primitive.bind(
            x, w, *b, geometry=ConvGeometry(geometry.axes, groups), dimensions=dimensions, **params
        )
        return _unfold(y, size, place, outside), 0

    return rule


def wgrad_bgrad_rule(primitive: Primitive) -> Callable[..., Any]:
    """As wgrad's; db has the channels of dy, and is mapped where dy is."""

    def rule(
        args: Sequence[jax.Array],
        mapped: Sequence[int | None],
        *,
        geometry: ConvGeometry,
        dimensions: Dims,
        **params: Any,
    ) -> tuple[list[jax.Array], list[int | None]]:
        size = _mapped_size(args, mapped)
        if size == 0:
            params |= {"geometry": geometry, "dimensions": dimensions}
            return _nothing(primitive, args, mapped, params)
        (x, dy), (x_at, dy_at) = args, mapped
        into = _FOLDED_INTO[
            "".join(name for name, at in (("x", x_at), ("w", 0), ("y", dy_at)) if at is not None)
        ]
        if into == "groups" and not are_known([size]):
            params |= {"geometry": geometry, "dimensions": dimensions}
            return _one_by_one(primitive, args, mapped, params), [0, 0]
        if x_at is not None:
            x = _fold(x, x_at, *_place("x", into, dimensions, geometry.groups))
        if dy_at is not None:
            dy = _fold(dy, dy_at, *_place("y", into, dimensions, geometry.groups))
        groups = geometry.groups * (size if into == "groups" else 1)
        dw, db = primitive.bind(
            x, dy, geometry=ConvGeometry(geometry.axes, groups), dimensions=dimensions, **params
        )
        dw = _unfold(dw, size, *_place("w", into, dimensions, geometry.groups))
        if dy_at is None:
            return [dw, db], [0, None]
        outside = _place("y", into, dimensions, geometry.groups)[1]
        return [dw, _unfold(db, size, 0, outside)], [0, 0]

    return rule


def bgrad_rule(primitive: Primitive) -> Callable[..., Any]:
    """The mapped axis joins the channels, whichever they are."""

    def rule(args: Sequence[jax.Array], mapped: Sequence[int], *, channel_axis: int) -> tuple[jax.Array, int]:
        (dy,), (at,) = args, mapped
        if dy.shape[at] == 0:
            return _nothing(primitive, args, mapped, {"channel_axis": channel_axis})
        db = primitive.bind(_fold(dy, at, channel_axis, 1), channel_axis=channel_axis)
        return _unfold(db, dy.shape[at], 0, 1), 0

    return rule


def spread_rule(
    args: Sequence[jax.Array], mapped: Sequence[int], *, shape: tuple[int, ...], channel_axis: int
) -> tuple[jax.Array, int]:
    """A broadcast by one more axis."""
    (b,), (at,) = args, mapped
    rows = jnp.moveaxis(b, at, 0)
    return jax.lax.broadcast_in_dim(rows, (rows.shape[0], *shape), (0, channel_axis + 1)), 0


def pool_rule(primitive: Primitive) -> Callable[..., Any]:
    """The batching rule of a primitive with one operand."""

    def rule(args: Sequence[jax.Array], mapped: Sequence[int], **params: Any) -> Any:
        (x,), (at,) = args, mapped
        if x.shape[at] == 0:
            return _nothing(primitive, args, mapped, params)
        batch = params["dimensions"][0]
        out = primitive.bind(_fold(x, at, batch, 1), **params)
        if primitive.multiple_results:
            return [_unfold(array, x.shape[at], batch, 1) for array in out], [0] * len(out)
        return _unfold(out, x.shape[at], batch, 1), 0

    return rule


def position_rule(primitive: Primitive) -> Callable[..., Any]:
    """Of a primitive that reads one operand at the positions in the other, image by image.

    The kernels read an operand that has fewer images again and again, so one that is not mapped stays as it
    is. But an operand that is mapped here, and has fewer images already because the other alone was mapped
    elsewhere, is repeated first: its turns would not be the result's.
    """

    def rule(args: Sequence[jax.Array], mapped: Sequence[int | None], **params: Any) -> Any:
        size = _mapped_size(args, mapped)
        if size == 0:
            return _nothing(primitive, args, mapped, params)
        batch = params["dimensions"][0]
        # The mapped axis comes right before the images.
        given = [
            array if at is None else jnp.moveaxis(array, at, batch)
            for array, at in zip(args, mapped, strict=True)
        ]
        if not all(are_known(array.shape[batch : batch + 2]) for array in given):
            # Of symbols nobody can tell which is the larger number of images.
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

    return rule
