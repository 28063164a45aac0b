"""How a layer meets JAX's differentiation: ``jax.custom_vjp``, or forward mode where that is asked for.

A function bound with ``custom_vjp`` has no derivative in forward mode. What it is made of has one, so inside
``forward_mode()`` a layer is traced without the binding, and every mode in every order is there.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import wraps
from typing import Any

import jax

# Part of what jit caches by, so that a function traced outside is traced again inside.
_forward_mode = jax.make_user_context(False)


def forward_mode() -> AbstractContextManager[None]:
    """A context in which the layers can be differentiated in forward mode too.

    Inside it ``jax.jvp``, ``jax.linearize``, ``jax.jacfwd`` and ``jax.linear_transpose`` go straight through
    this package's functions, and ``jax.grad`` gives what it gives outside, by the same kernels::

        with jax_convgrad.forward_mode():
            y, t = jax.jvp(lambda x: conv(x, w), (x,), (dx,))

    Forward over reverse, as in ``jax.hessian``, needs it only where the innermost derivative is forward.
    """
    return _forward_mode(True)


def bind(
    layer: Callable[..., Any], fwd: Callable[..., Any], bwd: Callable[..., Any], static: tuple[int, ...]
) -> Callable[..., Any]:
    """``layer`` with ``jax.custom_vjp``; ``static`` are the places of the arguments that are no arrays."""
    with_vjp = jax.custom_vjp(layer, nondiff_argnums=static)
    with_vjp.defvjp(fwd, bwd)

    @wraps(layer)
    def bound(*args: Any) -> Any:
        return layer(*args) if _forward_mode.value else with_vjp(*args)

    return bound
