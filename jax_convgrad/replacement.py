"""``replace_convolutions``: a function with every convolution inside it on this package's kernels.

The function is traced, and in its jaxpr and all jaxprs within it each equation of ``lax``'s convolution
gives way to the primitive that computes the same (recognition.py). These have derivatives of their own, so
what is differentiated, mapped or compiled afterwards stays on the kernels. A custom derivative is Python
code that may run long after this, so it is wrapped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import jax
import numpy as np
from jax import lax
from jax.extend import core
from jax.extend import linear_util as lu

from jax_convgrad.lax_convolution import before_reversals, contraction_of, runner

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

    @wraps(f)
    def replaced(*args: P.args, **kwargs: P.kwargs) -> R:
        leaves, tree = jax.tree.flatten((args, kwargs))
        places = [place for place, leaf in enumerate(leaves) if _is_array(leaf)]
        results: list[Any] = []
        result_tree: Any = None

        def on_arrays(*arrays: jax.Array) -> list[jax.Array]:
            nonlocal results, result_tree
            filled = list(leaves)
            for place, array in zip(places, arrays, strict=True):
                filled[place] = array
            inner_args, inner_kwargs = jax.tree.unflatten(tree, filled)
            results, result_tree = jax.tree.flatten(f(*inner_args, **inner_kwargs))
            return [leaf for leaf in results if isinstance(leaf, jax.Array)]

        arrays = [leaves[place] for place in places]
        program = _Replacement().of(jax.make_jaxpr(on_arrays)(*arrays))
        computed = iter(core.jaxpr_as_fun(program)(*arrays))
        return jax.tree.unflatten(
            result_tree, [next(computed) if isinstance(leaf, jax.Array) else leaf for leaf in results]
        )

    return replaced


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) or (
        isinstance(leaf, np.ndarray | np.generic) and leaf.dtype.kind not in "OSUMm"
    )


class _Replacement:
    """Rewrites jaxprs; one that occurs in several places is rewritten once, and stays one."""

    def __init__(self) -> None:
        self._done: dict[int, tuple[Any, Any]] = {}

    def of(self, jaxpr: Any) -> Any:
        """The jaxpr, open or closed, with its convolutions replaced; itself where there is none."""
        if id(jaxpr) not in self._done:
            # The original is kept too, so that no other object can have its id meanwhile.
            self._done[id(jaxpr)] = jaxpr, self._rewrite(jaxpr)
        return self._done[id(jaxpr)][1]

    def _rewrite(self, jaxpr: Any) -> Any:
        if not isinstance(jaxpr, core.Jaxpr):
            inner = self.of(jaxpr.jaxpr)
            return jaxpr if inner is jaxpr.jaxpr else jaxpr.replace(jaxpr=inner)
        reversals = {eqn.outvars[0]: eqn for eqn in jaxpr.eqns if eqn.primitive is lax.rev_p}
        equations: list[Any] = []
        for equation in jaxpr.eqns:
            if equation.primitive is lax.conv_general_dilated_p:
                equations += _convolution(equation, reversals)
            else:
                equations.append(self._with_inner(equation))
        changed = any(a is not b for a, b in zip(equations, jaxpr.eqns, strict=False))
        return jaxpr.replace(eqns=equations) if changed else jaxpr

    def _with_inner(self, equation: Any) -> Any:
        """An equation with the jaxprs and the custom derivatives among its parameters rewritten."""
        params = {}
        for name, value in equation.params.items():
            if name in ("jvp_jaxpr_fun", "fwd_jaxpr_thunk"):
                params[name] = self._rewrite_result(value)
            elif name == "bwd":
                bwd = replace_convolutions(value.call_wrapped)
                params[name] = lu.wrap_init(bwd, debug_info=value.debug_info)
            else:
                leaves, tree = jax.tree.flatten(value, is_leaf=_is_jaxpr)
                rewritten = [self.of(leaf) if _is_jaxpr(leaf) else leaf for leaf in leaves]
                if any(a is not b for a, b in zip(leaves, rewritten, strict=True)):
                    params[name] = jax.tree.unflatten(tree, rewritten)
        return equation.replace(params={**equation.params, **params}) if params else equation

    def _rewrite_result(self, thunk: Any) -> Any:
        """A function that gives a jaxpr and more, as custom_jvp and custom_vjp keep their rules."""

        def rewritten(*args: Any) -> tuple[Any, ...]:
            jaxpr, *rest = thunk.call_wrapped(*args)
            return self.of(jaxpr), *rest

        return lu.wrap_init(rewritten, debug_info=thunk.debug_info)


def _is_jaxpr(value: Any) -> bool:
    return isinstance(value, core.Jaxpr | core.ClosedJaxpr)


def _convolution(equation: Any, reversals: dict[Any, Any]) -> Sequence[Any]:
    """The equations that take the place of a convolution's; that one itself where ``lax`` has to run it."""
    lhs, rhs = equation.invars
    (out,) = equation.outvars

    def reversal(var: Any) -> tuple[Any, Sequence[int]] | None:
        if isinstance(var, core.Literal) or var not in reversals:
            return None
        return reversals[var].invars[0], reversals[var].params["dimensions"]

    start, is_reversed = before_reversals(
        rhs, reversal, rhs.aval.shape, equation.params["dimension_numbers"].rhs_spec
    )
    contraction = contraction_of(lhs.aval, rhs.aval, out.aval, equation.params, is_reversed)
    if contraction is None:
        return [equation]
    if contraction.unreversed or not is_reversed:
        rhs = start
    with equation.ctx.manager:
        traced = jax.make_jaxpr(runner(contraction, equation.params, out.aval))(lhs.aval, rhs.aval)
    inner = traced.jaxpr
    rename = dict(zip((*inner.invars, *inner.outvars), (lhs, rhs, out), strict=True))

    def renamed(atoms: Sequence[Any]) -> list[Any]:
        return [atom if isinstance(atom, core.Literal) else rename.get(atom, atom) for atom in atoms]

    return [
        inner_equation.replace(
            invars=renamed(inner_equation.invars),
            outvars=renamed(inner_equation.outvars),
            source_info=equation.source_info,
        )
        for inner_equation in inner.eqns
    ]
