"""Recognises the contraction in one of ``jax.lax``'s convolutions, from shapes and numbers alone.

``lax.conv_general_dilated`` ties a position i of lhs, r of rhs and o of the result, and indices b, f, q:

    out[b,o,q] = Σ lhs[b,i,f] · rhs[r,f,q]   over   o·stride + r·rhs_dilation − pad_lo = i·lhs_dilation

This is the trilinear form of docs/derivation.md, in which two arrays share each of the three indices.
One index is the batch n. The array without it is the filter w and the other two are x and y, which
determines the contraction. ``lax`` writes all of a layer's derivatives as convolutions, with the indices in
other places:

    written by lax as                      n    filter   contraction
    y  = conv(x, w)                        b    rhs      fprop
    dx = conv(dy, rev w)                   b    rhs      dgrad
    dw = conv(x, dy)                       f    out      wgrad
    dx = conv(t, rev dy),  t for dw        q    lhs      dgrad      (dw differentiated once more)

The relation allows each of these readings for any convolution. They differ in the summed letters and in the
order of dimensions that suits the kernels. The order of dimensions reveals the batch: it comes first in the
two arrays that have it, in every order that libraries use. If rhs is reversed, n is b or q; otherwise n is b
or f. If the orders decide neither, the sizes do: the filter has fewer positions than an image.

The relation is solved for the new roles. n = f swaps o and r:

    r·rhs_dilation + o·stride − pad_lo = i·lhs_dilation

n = b with a reversed filter, where r means R−1−r, swaps o and i: ``Axis.transpose``. n = q
with a reversed rhs makes i the tap and r the output:

    r·rhs_dilation + i·lhs_dilation − ((R−1)·rhs_dilation − pad_lo) = o·stride

Feature groups split f and q, batch groups b and q, as the outer factor of these dimensions; rhs has q's
groups and one group of f. The kernels split the channels of x and y and the outer channels of w in the same
way, and expect one group of w's inner channels. If the two differ, the groups are moved between two
dimensions of an array.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Literal, NamedTuple

from jax_convgrad.geometry import Axis, ConvGeometry
from jax_convgrad.primitives.conv_spec import Dims


class Move(NamedTuple):
    """A move of the groups from one dimension of an array to another; they are the outer factor of both."""

    source: int
    target: int


@dataclass(frozen=True)
class Contraction:
    """One of ``lax``'s convolutions as a contraction of this package.

    ``operands`` names the contraction's two operands, in its own order. With ``unreversed``, rhs means the
    array before the reversal. The moves are applied to lhs and rhs before the contraction and to its result
    after it.
    """

    name: Literal["fprop", "dgrad", "wgrad"]
    geometry: ConvGeometry
    dimensions: Dims
    operands: tuple[Literal["lhs", "rhs"], Literal["lhs", "rhs"]] = ("lhs", "rhs")
    unreversed: bool = False
    lhs_move: Move | None = None
    rhs_move: Move | None = None
    out_move: Move | None = None


def recognise(
    lhs_shape: Sequence[int],
    rhs_shape: Sequence[int],
    out_shape: Sequence[int],
    *,
    window_strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    lhs_dilation: Sequence[int],
    rhs_dilation: Sequence[int],
    dimension_numbers: tuple[Sequence[int], Sequence[int], Sequence[int]],
    feature_group_count: int = 1,
    batch_group_count: int = 1,
    rhs_reversed: bool = False,
) -> Contraction:
    """The contraction that computes this convolution.

    ``rhs_reversed`` says that rhs is the reversal of another array. The other parameters are those of
    ``lax.conv_general_dilated_p``, with padding in pairs and specs as (batch, feature, spatial...),
    (out, in, spatial...) and (batch, feature, spatial...).
    """
    lhs_spec, rhs_spec, out_spec = (tuple(spec) for spec in dimension_numbers)
    lhs_b, lhs_f, rhs_q, rhs_f, out_b, out_q = *lhs_spec[:2], *rhs_spec[:2], *out_spec[:2]
    axes = [
        Axis(lhs_shape[i], rhs_shape[r], out_shape[o], stride, lo, of_lhs, of_rhs)
        for i, r, o, stride, (lo, _), of_lhs, of_rhs in zip(
            lhs_spec[2:],
            rhs_spec[2:],
            out_spec[2:],
            window_strides,
            padding,
            lhs_dilation,
            rhs_dilation,
            strict=True,
        )
    ]
    groups = feature_group_count * batch_group_count  # one of them is 1
    batch = _batch_index(lhs_b < lhs_f, rhs_f < rhs_q, out_b < out_q, axes, rhs_reversed)

    if batch == "f":
        return Contraction(
            "wgrad",
            ConvGeometry(tuple(_swap_output_and_tap(axis) for axis in axes), groups),
            Dims((lhs_f, lhs_b, *lhs_spec[2:]), (out_q, out_b, *out_spec[2:]), (rhs_f, rhs_q, *rhs_spec[2:])),
            lhs_move=Move(lhs_f, lhs_b) if feature_group_count > 1 else None,
        )

    lhs_move = Move(lhs_b, lhs_f) if batch_group_count > 1 else None
    if not rhs_reversed:
        return Contraction(
            "fprop",
            ConvGeometry(tuple(axes), groups),
            Dims(lhs_spec, rhs_spec, out_spec),
            lhs_move=lhs_move,
        )
    rhs_move = Move(rhs_q, rhs_f) if groups > 1 else None
    if batch == "b":
        return Contraction(
            "dgrad",
            ConvGeometry(tuple(axis.transpose() for axis in axes), groups),
            Dims(out_spec, (rhs_f, rhs_q, *rhs_spec[2:]), lhs_spec),
            unreversed=True,
            lhs_move=lhs_move,
            rhs_move=rhs_move,
        )
    return Contraction(
        "dgrad",
        ConvGeometry(tuple(_tap_from_input(axis) for axis in axes), groups),
        Dims((out_q, out_b, *out_spec[2:]), (lhs_f, lhs_b, *lhs_spec[2:]), rhs_spec),
        operands=("rhs", "lhs"),
        unreversed=True,
        lhs_move=lhs_move,
        rhs_move=rhs_move,
        out_move=Move(out_b, out_q) if groups > 1 else None,
    )


def _batch_index(
    b_before_f: bool, f_before_q: bool, b_before_q: bool, axes: Sequence[Axis], rhs_reversed: bool
) -> Literal["b", "f", "q"]:
    """The layer's batch: lhs's batch b, the contracted feature f or rhs's output feature q."""
    if b_before_f and b_before_q:
        return "b"
    if rhs_reversed:
        if not b_before_q and not f_before_q:
            return "q"
        return "q" if prod(axis.input for axis in axes) < prod(axis.taps for axis in axes) else "b"
    if not b_before_f and f_before_q:
        return "f"
    return "f" if prod(axis.output for axis in axes) < prod(axis.taps for axis in axes) else "b"


def _swap_output_and_tap(axis: Axis) -> Axis:
    """The relation o·s + r·f − p = i·d with o and r exchanged."""
    return Axis(
        input=axis.input,
        taps=axis.output,
        output=axis.taps,
        stride=axis.filter_dilation,
        pad_lo=axis.pad_lo,
        input_dilation=axis.input_dilation,
        filter_dilation=axis.stride,
    )


def _tap_from_input(axis: Axis) -> Axis:
    """The relation r·f + i·d − ((R−1)·f − p) = o·s: r from the far end, i as the tap and o as the input."""
    return Axis(
        input=axis.output,
        taps=axis.input,
        output=axis.taps,
        stride=axis.filter_dilation,
        pad_lo=(axis.taps - 1) * axis.filter_dilation - axis.pad_lo,
        input_dilation=axis.stride,
        filter_dilation=axis.input_dilation,
    )
