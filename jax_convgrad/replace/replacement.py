"""``replace_convolutions``: runs every convolution and window inside a function on this package's kernels.

It replaces each of ``lax``'s convolutions and reductions of windows, anywhere in the function
(jaxpr_rewriting.py), by primitives that compute the same (recognition.py, pool_recognition.py). These have
their own derivatives, so everything that is later differentiated, mapped or compiled stays on the kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar

from jax import lax

from jax_convgrad.replace import lax_pooling
from jax_convgrad.replace.jaxpr_rewriting import Rule, Substitute, rewritten
from jax_convgrad.replace.lax_convolution import before_reversals, contraction_of, is_widening, runner
from jax_convgrad.replace.lax_pooling import WINDOW_PRIMITIVES, Zeros, pooling_of
from jax_convgrad.replace.reasons import OnLax
from jax_convgrad.replace.rewriting_trace import Source, number

P = ParamSpec("P")
R = TypeVar("R")


def replace_convolutions(f: Callable[P, R]) -> Callable[P, R]:
    """Runs every ``jax.lax`` convolution and window in ``f``, and their gradients, on these kernels.

    Use it for models whose library calls ``jax.lax``:

    ```python
    import jax
    import jax.numpy as jnp
    from jax_convgrad import replace_convolutions


    def loss(w, x):
        return jax.lax.conv(x, w, (1, 1), "SAME").sum()


    w, x = jnp.ones((4, 3, 3, 3)), jnp.ones((1, 3, 8, 8))
    dw = jax.jit(jax.grad(replace_convolutions(loss)))(w, x)
    ```

    ``f`` may be a loss, a whole training step, or any other function. The function that is returned can be
    differentiated (also in forward mode), vmapped and jitted. It reaches into ``jit``, ``scan``,
    ``while_loop``, ``cond``, ``checkpoint``, ``custom_vjp`` and ``custom_jvp``, and replaces the same windows
    of ``lax.reduce_window`` as ``install``. Unsupported operations stay on ``jax.lax`` (integers, more than 3
    spatial dimensions). So do operations that are created later: in the rule of a
    ``jax.custom_batching.custom_vmap`` that is mapped from outside, and in a ``custom_vjp`` with
    ``optimize_remat`` under ``checkpoint``.

    Each call runs ``f`` and replaces the operations while it runs. This also works outside of ``jax.jit``,
    where each operation runs separately.
    """
    return rewritten(f, _RULE)


def _replacing(equation: Any, source: Source) -> Substitute | None:
    if equation.primitive is lax.conv_general_dilated_p:
        return _substitute(equation, source)
    return _pooling(equation, source)


def _substitute(equation: Any, source: Source) -> Substitute | None:
    """The substitute for a convolution; None if ``lax`` has to run it."""
    lhs, rhs = equation.invars
    (out,) = equation.outvars

    def reversal(var: Any) -> tuple[Any, Sequence[int]] | None:
        step = source(var)
        if step is None or step.primitive not in (lax.rev_p, lax.convert_element_type_p):
            return None
        (before,) = step.invars
        if step.primitive is lax.rev_p:
            return before, step.params["dimensions"]
        return (before, ()) if is_widening(before.aval.dtype, var.aval.dtype) else None

    start, is_reversed = before_reversals(
        rhs, reversal, rhs.aval.shape, equation.params["dimension_numbers"].rhs_spec
    )
    contraction = contraction_of(lhs.aval, rhs.aval, out.aval, equation.params, is_reversed)
    if isinstance(contraction, OnLax):
        return None
    if contraction.unreversed or not is_reversed:
        rhs = start
    return Substitute(runner(contraction, equation.params, out.aval), (lhs, rhs))


def _pooling(equation: Any, source: Source) -> Substitute | None:
    """The substitute for a reduction of windows; None if ``lax`` has to run it."""
    operands = equation.invars
    out = equation.outvars[0].aval
    pad = source(operands[0])
    zeros = None
    if pad is not None and pad.primitive is lax.pad_p and number(pad.invars[1]) == 0:
        zeros = Zeros(pad.invars[0].aval.shape, pad.params["padding_config"])
    avals = [operand.aval for operand in operands]
    pooling, unpadded = pooling_of(equation.primitive, avals, out, equation.params, zeros)
    if isinstance(pooling, OnLax):
        return None
    if unpadded and pad is not None:
        operands = [pad.invars[0]]
    return Substitute(lax_pooling.runner(pooling, equation.primitive, out), operands)


_RULE = Rule(
    frozenset((lax.conv_general_dilated_p, *WINDOW_PRIMITIVES)),
    _replacing,
    passed=frozenset((lax.rev_p, lax.convert_element_type_p, lax.pad_p)),
)
