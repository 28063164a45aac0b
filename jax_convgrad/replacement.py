"""``replace_convolutions``: a function with every convolution inside it on this package's kernels.

Each equation of ``lax``'s convolution, anywhere in the function's jaxpr (jaxpr_rewriting.py), gives way to
the primitive that computes the same (recognition.py). These have derivatives of their own, so what is
differentiated, mapped or compiled afterwards stays on the kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar

from jax import lax
from jax.extend import core

from jax_convgrad.jaxpr_rewriting import Substitute, rewritten
from jax_convgrad.lax_convolution import before_reversals, contraction_of, is_widening, runner

P = ParamSpec("P")
R = TypeVar("R")


def replace_convolutions(f: Callable[P, R]) -> Callable[P, R]:
    """``f`` with every ``jax.lax`` convolution inside it, and each of their gradients, on these kernels.

    For models whose library calls ``jax.lax`` by itself:

    ```python
    import jax
    import jax.numpy as jnp
    from jax_convgrad import replace_convolutions


    def loss(w, x):
        return jax.lax.conv(x, w, (1, 1), "SAME").sum()


    w, x = jnp.ones((4, 3, 3, 3)), jnp.ones((1, 3, 8, 8))
    dw = jax.jit(jax.grad(replace_convolutions(loss)))(w, x)
    ```

    It may be a loss, a whole training step, or any other function, and be differentiated (in forward mode
    too), vmapped and jitted. It reaches into ``jit``, ``scan``, ``while_loop``, ``cond``, ``checkpoint``,
    ``custom_vjp`` and ``custom_jvp``. Everything else in ``f`` stays as it is, and so does a convolution
    that these kernels have not (of integers, of more than 3 spatial dimensions), or that only comes up
    later: in the rule of a ``jax.custom_batching.custom_vmap`` that is mapped from outside, and in a
    ``custom_vjp`` with ``optimize_remat`` under ``checkpoint``.

    ``f`` is traced at each call, as ``jax.jit`` traces it once: arrays in its arguments become tracers, and
    what else there is (numbers, strings, functions) is passed as it is. Inside ``jax.jit`` that happens
    once.
    """
    return rewritten(f, _rule_in)


def _rule_in(jaxpr: Any) -> Callable[[Any], Substitute | None]:
    passed = (lax.rev_p, lax.convert_element_type_p)
    reversals = {eqn.outvars[0]: eqn for eqn in jaxpr.eqns if eqn.primitive in passed}
    return lambda equation: (
        _substitute(equation, reversals) if equation.primitive is lax.conv_general_dilated_p else None
    )


def _substitute(equation: Any, reversals: dict[Any, Any]) -> Substitute | None:
    """What takes the place of a convolution; None where ``lax`` has to run it."""
    lhs, rhs = equation.invars
    (out,) = equation.outvars

    def reversal(var: Any) -> tuple[Any, Sequence[int]] | None:
        if isinstance(var, core.Literal) or var not in reversals:
            return None
        step = reversals[var]
        (before,) = step.invars
        if step.primitive is lax.rev_p:
            return before, step.params["dimensions"]
        return (before, ()) if is_widening(before.aval.dtype, var.aval.dtype) else None

    start, is_reversed = before_reversals(
        rhs, reversal, rhs.aval.shape, equation.params["dimension_numbers"].rhs_spec
    )
    contraction = contraction_of(lhs.aval, rhs.aval, out.aval, equation.params, is_reversed)
    if contraction is None:
        return None
    if contraction.unreversed or not is_reversed:
        rhs = start
    return Substitute(runner(contraction, equation.params, out.aval), (lhs, rhs))
