"""The binding of a layer to its derivatives: by ``jax.custom_vjp``, or without it inside ``forward_mode()``.

A function bound with ``custom_vjp`` has no derivative in forward mode. The primitives that it is made of have
one, so inside ``forward_mode()`` a layer is traced without the binding, and every mode in every order works.
From jax 0.12 on a layer is bound by a primitive with rules for both modes (hijax_layer.py); its rule for
reverse mode is the same.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import wraps
from inspect import signature
from typing import Any

import jax

from jax_convgrad.primitives import hijax_layer
from jax_convgrad.primitives.axis_types import Split, Splits, with_axis_types
from jax_convgrad.primitives.current_trace import find_top_trace

# Part of what jit caches by, so that a function traced outside is traced again inside.
_forward_mode = jax.make_user_context(False)


def forward_mode() -> AbstractContextManager[None]:
    """A context in which the layers can be differentiated in forward mode too, on every version of JAX.

    From jax 0.12 on this works outside of it as well. Inside it ``jax.jvp``, ``jax.linearize``,
    ``jax.jacfwd`` and ``jax.linear_transpose`` go straight through this package's functions, and
    ``jax.grad`` gives the same result as outside, by the same kernels:

    ```python
    import jax
    import jax.numpy as jnp
    from jax_convgrad import conv, forward_mode

    x, dx, w = jnp.ones((1, 8, 3)), jnp.ones((1, 8, 3)), jnp.ones((5, 3, 2))
    with forward_mode():
        y, dy = jax.jvp(lambda x: conv(x, w), (x,), (dx,))
    ```

    Forward over reverse, as in ``jax.hessian``, needs it only where the innermost derivative is forward.
    """
    return _forward_mode(True)


def bind(
    layer: Callable[..., Any],
    fwd: Callable[..., Any],
    bwd: Callable[..., Any],
    arrays: int,
    result_split: Callable[..., Split | Splits],
    both_modes: bool = True,
) -> Callable[..., Any]:
    """``layer`` with ``jax.custom_vjp``, or with the same rules and one for forward mode.

    ``fwd(*arguments)`` gives the result and what the backward pass needs, ``bwd(*static, kept, dy)`` one
    gradient for each array. The first ``arrays`` of the arguments are arrays or None, the others are static.
    ``result_split(splits, *static)`` says how the result is split over explicit mesh axes, from how the
    arrays are. Without ``both_modes`` the layer is bound by ``custom_vjp`` on every version of JAX: it may
    have several results and compute over a named axis.
    """
    count = len(signature(layer).parameters)
    with_vjp = jax.custom_vjp(layer, nondiff_argnums=tuple(range(arrays, count)))
    with_vjp.defvjp(fwd, bwd)

    def of_given(places: tuple[bool, ...], static: tuple[Any, ...], *given: jax.Array) -> Any:
        rest = iter(given)
        return with_vjp(*(next(rest) if place else None for place in places), *static)

    # custom_vjp traces its function at each call, jit once for all equal layers; inline removes the jit.
    staged = jax.jit(of_given, static_argnums=(0, 1), inline=True)

    @wraps(layer)
    def bound(*args: Any) -> Any:
        operands, static = args[:arrays], args[arrays:]

        def run(*given: jax.Array) -> jax.Array:
            rest = iter(given)
            filled = (None if operand is None else next(rest) for operand in operands)
            if _forward_mode.value:
                return layer(*filled, *static)
            if both_modes and hijax_layer.HAS_BOTH_MODES:
                places = tuple(operand is not None for operand in operands)
                avals = tuple(map(jax.typeof, given))
                return hijax_layer.Layer(layer, fwd, bwd, places, static, avals)(*given)
            try:
                if _is_staging():
                    return staged(tuple(operand is not None for operand in operands), static, *given)
                return with_vjp(*filled, *static)
            except TypeError as error:
                if "forward-mode" in str(error):
                    error.add_note(
                        "jax_convgrad's layers have forward mode inside jax_convgrad.forward_mode()."
                    )
                raise

        given = [operand for operand in operands if operand is not None]
        return with_axis_types(run, given, lambda splits: result_split(splits, *static))

    return bound


def _is_staging() -> bool:
    """Reports whether a program is being traced, with no derivative of it or map over it in between."""
    return type(find_top_trace(())).__name__ == "DynamicJaxprTrace"
