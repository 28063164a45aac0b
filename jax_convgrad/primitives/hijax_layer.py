"""A layer with rules for both modes of differentiation, for versions of JAX whose primitives take both.

``custom_vjp`` has no derivative in forward mode. JAX's ``hijax`` primitives, new and still called
experimental, have a rule for each mode. Here that is the layer's own backward pass in reverse mode, and the
derivative of what the layer is made of in forward mode.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.interpreters import ad

HiPrim: Any
linearize_from_jvp: Any
remat_transform: Any
try:
    hijax = importlib.import_module("jax.experimental.hijax")
    HiPrim, linearize_from_jvp = hijax.HiPrim, hijax.linearize_from_jvp
    # It has no public name. The rule for checkpoint, whose policies must see into a layer, needs it.
    remat_transform = importlib.import_module("jax._src.interpreters.remat").remat_transform
    HAS_BOTH_MODES = True
except (ImportError, AttributeError):  # before jax 0.12
    HiPrim, linearize_from_jvp, HAS_BOTH_MODES = object, (None, None), False


class Layer(HiPrim):
    """``layer(*operands, *static)``, with the ``fwd`` and ``bwd`` of ``jax.custom_vjp`` for reverse mode.

    ``places`` says for each operand whether it is given; otherwise it is None.
    """

    def __init__(
        self,
        layer: Callable[..., jax.Array],
        fwd: Callable[..., Any],
        bwd: Callable[..., Any],
        places: tuple[bool, ...],
        static: tuple[Any, ...],
        in_avals: tuple[Any, ...],
    ) -> None:
        self.in_avals = in_avals
        self.params = {"layer": layer, "fwd": fwd, "bwd": bwd, "places": places, "static": static}
        self.out_aval = _result(layer, places, static, in_avals)
        super().__init__()

    def pp_params(self) -> dict[str, Any]:
        """The parameters that a jaxpr shows."""
        return {"name": self.layer.__name__.lstrip("_"), "static": self.static}

    def expand(self, *given: Any) -> Any:
        """The primitives that the layer is made of."""
        return self.layer(*_filled(self.places, given), *self.static)

    def vjp_fwd(self, nonzero: Any, *given: Any) -> Any:
        """The first half of reverse mode: the layer's own rule."""
        return self.fwd(*_filled(self.places, given), *self.static)

    def vjp_bwd_retval(self, kept: Any, dy: Any) -> Any:
        """The second half of reverse mode."""
        gradients = self.bwd(*self.static, kept, ad.instantiate_zeros(dy))
        return tuple(gradient for gradient, given in zip(gradients, self.places, strict=True) if given)

    def jvp(self, primals: Sequence[Any], tangents: Sequence[Any]) -> Any:
        """Forward mode: the derivative of what the layer is made of, in the operands that have tangents."""
        moving = [n for n, tangent in enumerate(tangents) if not isinstance(tangent, ad.Zero)]
        if not moving:
            return self.expand(*primals), ad.Zero(self.out_aval.to_tangent_aval())
        return jax.jvp(
            lambda *some: self.expand(*_replaced(primals, moving, some)),
            tuple(primals[n] for n in moving),
            tuple(tangents[n] for n in moving),
        )

    lin, linearized = linearize_from_jvp

    def transpose(self, dy: Any, *operands: Any) -> None:
        """Transposes a layer that is linear in the operands whose cotangents are accumulated."""
        unknown = [n for n, operand in enumerate(operands) if hasattr(operand, "accum")]
        transposed = jax.linear_transpose(
            lambda *some: self.expand(*_replaced(operands, unknown, some)),
            *(self.in_avals[n] for n in unknown),
        )
        for n, cotangent in zip(unknown, transposed(ad.instantiate_zeros(dy)), strict=True):
            operands[n].accum(cotangent)

    def batch(self, axis_data: Any, given: Any, dims: Any) -> Any:
        """The rule for vmap: the primitives that the layer is made of, whose rules reach every order."""
        return jax.vmap(self.expand, tuple(dims), axis_size=axis_data.size)(*given), 0

    def remat(self, trace: Any, *given: Any) -> Any:
        """The rule for ``checkpoint``: its policy sees each primitive."""
        out, again = remat_transform(
            trace.policy, self.expand, *given, custom_vjp_rules=trace.custom_vjp_rules
        )
        return out, tuple(again.args[0]), again.func


def _filled(places: Sequence[bool], given: Sequence[Any]) -> list[Any]:
    rest = iter(given)
    return [next(rest) if place else None for place in places]


def _replaced(operands: Sequence[Any], places: Sequence[int], by: Sequence[Any]) -> list[Any]:
    result = list(operands)
    for place, operand in zip(places, by, strict=True):
        result[place] = operand
    return result


@functools.lru_cache(4096)
def _result(
    layer: Callable[..., Any], places: tuple[bool, ...], static: tuple[Any, ...], in_avals: tuple[Any, ...]
) -> Any:
    (aval,) = jax.make_jaxpr(lambda *given: layer(*_filled(places, given), *static))(*in_avals).out_avals
    return aval
