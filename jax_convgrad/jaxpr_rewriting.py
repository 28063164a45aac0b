"""Functions with some of their equations replaced: what ``replace_convolutions`` is made of.

A function is traced, and in its jaxpr and all jaxprs within it each equation that a rule has a substitute
for gives way to that. A custom derivative is Python code that may run long after this, so it is wrapped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial, wraps
from typing import Any, NamedTuple, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend import core
from jax.extend import linear_util as lu

from jax_convgrad.lowering import debugging_nans

P = ParamSpec("P")
R = TypeVar("R")

_ARRAY = object()
"""In an array's place among a function's results."""


class Substitute(NamedTuple):
    """What computes an equation's results: a function, and the atoms of the jaxpr that it is called with."""

    function: Callable[..., Any]
    operands: Sequence[Any]


RuleIn = Callable[[Any], Callable[[Any], Substitute | None]]
"""From an open jaxpr to the rule in it: from one of its equations to the substitute, or None to leave it."""


def rewritten(
    f: Callable[P, R],
    rule_in: RuleIn,
    traced_in: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> Callable[P, R]:
    """``f`` with every equation that the rule has a substitute for replaced; the substitutes' equations too.

    ``f``, and the custom derivatives inside it, are traced in the context that ``traced_in()`` gives.
    """

    @wraps(f)
    def replaced(*args: P.args, **kwargs: P.kwargs) -> R:
        leaves, tree = jax.tree.flatten((args, kwargs))
        places = [place for place, leaf in enumerate(leaves) if is_array(leaf)]
        others: list[Any] = []  # what f gives beside arrays; of these no tracer may outlive the trace
        result_tree: Any = None

        def on_arrays(*arrays: jax.Array) -> list[jax.Array]:
            nonlocal others, result_tree
            filled = list(leaves)
            for place, array in zip(places, arrays, strict=True):
                filled[place] = array
            inner_args, inner_kwargs = jax.tree.unflatten(tree, filled)
            results, result_tree = jax.tree.flatten(f(*inner_args, **inner_kwargs))
            others = [_ARRAY if isinstance(leaf, jax.Array) else leaf for leaf in results]
            return [leaf for leaf in results if isinstance(leaf, jax.Array)]

        arrays = [leaves[place] for place in places]
        with traced_in():
            traced = jax.make_jaxpr(on_arrays)(*arrays)
        program = _Rewriting(rule_in, traced_in).of(traced)
        with debugging_nans():
            computed = iter(core.jaxpr_as_fun(program)(*arrays))
        return jax.tree.unflatten(
            result_tree, [next(computed) if leaf is _ARRAY else leaf for leaf in others]
        )

    return replaced


def is_array(leaf: Any) -> bool:
    """Whether a leaf becomes a tracer; what else there is, is passed to a function as it is."""
    return isinstance(leaf, jax.Array) or (
        isinstance(leaf, np.ndarray | np.generic) and leaf.dtype.kind not in "OSUMm"
    )


def equations(jaxpr: Any) -> Iterator[tuple[Any, int]]:
    """Every equation of a jaxpr, open or closed, and of those within it, and how often it is run.

    A ``scan`` runs its body ``length`` times. A ``while`` loop is counted once, and so is each branch of a
    ``cond``. What a custom derivative holds is not there yet.
    """
    for equation in (jaxpr.jaxpr if isinstance(jaxpr, core.ClosedJaxpr) else jaxpr).eqns:
        yield equation, 1
        runs = equation.params["length"] if equation.primitive is lax.scan_p else 1
        for value in jax.tree.leaves(list(equation.params.values()), is_leaf=_is_jaxpr):
            if _is_jaxpr(value):
                for inner, times in equations(value):
                    yield inner, runs * times


class _Rewriting:
    """Rewrites jaxprs; one that occurs in several places is rewritten once, and stays one."""

    def __init__(self, rule_in: RuleIn, traced_in: Callable[[], AbstractContextManager[Any]]) -> None:
        self._rule_in = rule_in
        self._traced_in = traced_in
        self._done: dict[int, tuple[Any, Any]] = {}

    def of(self, jaxpr: Any) -> Any:
        """The jaxpr, open or closed, with its equations replaced; itself where there is none to replace."""
        if id(jaxpr) not in self._done:
            # The original is kept too, so that no other object can have its id meanwhile.
            self._done[id(jaxpr)] = jaxpr, self._rewrite(jaxpr)
        return self._done[id(jaxpr)][1]

    def _rewrite(self, jaxpr: Any) -> Any:
        if not isinstance(jaxpr, core.Jaxpr):
            inner = self.of(jaxpr.jaxpr)
            return jaxpr if inner is jaxpr.jaxpr else jaxpr.replace(jaxpr=inner)
        rule = self._rule_in(jaxpr)
        result: list[Any] = []
        for equation in jaxpr.eqns:
            substitute = rule(equation)
            if substitute is None:
                result.append(self._with_inner(equation))
            else:
                result += self._inlined(equation, substitute)
        changed = any(a is not b for a, b in zip(result, jaxpr.eqns, strict=False))
        return jaxpr.replace(eqns=result) if changed else jaxpr

    def _with_inner(self, equation: Any) -> Any:
        """An equation with the jaxprs and the custom derivatives among its parameters rewritten."""
        params = {}
        for name, value in equation.params.items():
            if name in ("jvp_jaxpr_fun", "fwd_jaxpr_thunk"):
                params[name] = self._rewrite_result(value)
            elif name == "bwd":
                bwd = rewritten(value.call_wrapped, self._rule_in, self._traced_in)
                params[name] = lu.wrap_init(bwd, debug_info=value.debug_info)
            else:
                leaves, tree = jax.tree.flatten(value, is_leaf=_is_jaxpr)
                inner = [self.of(leaf) if _is_jaxpr(leaf) else leaf for leaf in leaves]
                if any(a is not b for a, b in zip(leaves, inner, strict=True)):
                    params[name] = jax.tree.unflatten(tree, inner)
        return equation.replace(params={**equation.params, **params}) if params else equation

    def _rewrite_result(self, thunk: Any) -> Any:
        """A function that gives a jaxpr and more, as custom_jvp and custom_vjp keep their rules."""

        def result_rewritten(*args: Any) -> tuple[Any, ...]:
            with self._traced_in():
                jaxpr, *rest = thunk.call_wrapped(*args)
            return self.of(jaxpr), *rest

        return lu.wrap_init(result_rewritten, debug_info=thunk.debug_info)

    def _inlined(self, equation: Any, substitute: Substitute) -> list[Any]:
        """The substitute's equations, between the operands' and the results' variables."""
        function, operands = substitute
        avals = [operand.aval for operand in operands]
        with equation.ctx.manager:
            inner = jax.make_jaxpr(function)(*avals).jaxpr
            if len(set(map(id, (*inner.invars, *inner.outvars)))) < len(avals) + len(equation.outvars):
                # A result is an operand, or two are one. Each needs an equation of its own.
                copied = partial(_copied, function)
                inner = jax.make_jaxpr(copied)(*avals).jaxpr
        inner = self.of(inner)
        rename = dict(zip((*inner.invars, *inner.outvars), (*operands, *equation.outvars), strict=True))

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


def _copied(function: Callable[..., Any], *operands: jax.Array) -> Any:
    return jax.tree.map(jnp.copy, function(*operands))


def _is_jaxpr(value: Any) -> bool:
    return isinstance(value, core.Jaxpr | core.ClosedJaxpr)
