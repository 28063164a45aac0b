"""Functions with some of their equations replaced: what ``replace_convolutions`` is made of.

While a function runs, each operation that a rule has a substitute for gives way to that
(rewriting_trace.py), and so does each equation of the jaxprs within it. A custom derivative is Python code
that may run long after this, so it is wrapped.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial, wraps
from typing import Any, NamedTuple, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend import core
from jax.extend import linear_util as lu

from jax_convgrad.primitives.eager import debugging_nans
from jax_convgrad.replace.rewriting_trace import RewritingTrace

P = ParamSpec("P")
R = TypeVar("R")


class Substitute(NamedTuple):
    """What computes an equation's results: a function, and the atoms of the jaxpr that it is called with."""

    function: Callable[..., Any]
    operands: Sequence[Any]


class Rule(NamedTuple):
    """Which operations give way to what.

    ``substitute(equation, source)`` is an equation's substitute, or None to leave it. It is asked about those
    of the primitives ``replaced``. ``source(operand)`` is the equation that the operand is a result of where
    that is one of ``passed``, else None.
    """

    replaced: Collection[Any]
    substitute: Callable[[Any, Callable[[Any], Any]], Substitute | None]
    passed: Collection[Any] = ()


def rewritten(
    f: Callable[P, R],
    rule: Rule,
    traced_in: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> Callable[P, R]:
    """``f`` with every equation that the rule has a substitute for replaced; the substitutes' equations too.

    ``f``, and the custom derivatives inside it, are traced in the context that ``traced_in()`` gives.
    """
    return _Rewriting(rule, traced_in).function(f)


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


_UNCHANGED = object()
_WITHOUT_JAXPRS = frozenset((bool, int, float, str, type(None)))
"""Types of most parameters, which need not be looked into."""


class _Rewriting:
    """Rewrites jaxprs; one that occurs in several places, or at several calls, is rewritten once."""

    def __init__(self, rule: Rule, traced_in: Callable[[], AbstractContextManager[Any]]) -> None:
        self.rule = rule
        self._traced_in = traced_in
        self._done: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()

    def function(self, f: Callable[P, R]) -> Callable[P, R]:
        """``f`` with what it calls replaced."""

        @wraps(f)
        def replaced(*args: P.args, **kwargs: P.kwargs) -> R:
            # NumPy's arrays become JAX's, as those are that jit passes on.
            given, named = jax.tree.map(
                lambda leaf: jnp.asarray(leaf) if is_array(leaf) else leaf, (args, kwargs)
            )
            with self._traced_in(), core.set_current_trace(RewritingTrace(self)):
                return f(*given, **named)

        return replaced

    def wrapped(self, fun: Any) -> Any:
        """One of the functions of a custom derivative, in the form in which JAX hands them on."""

        def called(*args: Any) -> Any:
            # As JAX does before it calls one again: in these it puts what kind of results there were.
            for store in getattr(fun, "stores", ()):
                if store:
                    store.reset()
            return fun.call_wrapped(*args)

        return lu.wrap_init(self.function(called), debug_info=fun.debug_info)

    def of(self, jaxpr: Any) -> Any:
        """The jaxpr, open or closed, with its equations replaced; itself where there is none to replace."""
        done = self._done.get(jaxpr)
        if done is None:
            done = self._rewrite(jaxpr)
            self._done[jaxpr] = _UNCHANGED if done is jaxpr else done  # itself would keep it for ever
        return jaxpr if done is _UNCHANGED else done

    def _rewrite(self, jaxpr: Any) -> Any:
        if not isinstance(jaxpr, core.Jaxpr):
            inner = self.of(jaxpr.jaxpr)
            return jaxpr if inner is jaxpr.jaxpr else jaxpr.replace(jaxpr=inner)
        passed = {eqn.outvars[0]: eqn for eqn in jaxpr.eqns if eqn.primitive in self.rule.passed}

        def source(atom: Any) -> Any:
            return None if isinstance(atom, core.Literal) else passed.get(atom)

        result: list[Any] = []
        for equation in jaxpr.eqns:
            substitute = None
            if equation.primitive in self.rule.replaced:
                substitute = self.rule.substitute(equation, source)
            if substitute is None:
                changed = self.changed_params(equation.params)
                result.append(equation.replace(params=equation.params | changed) if changed else equation)
            else:
                result += self._inlined(equation, substitute)
        changed_any = any(a is not b for a, b in zip(result, jaxpr.eqns, strict=False))
        return jaxpr.replace(eqns=result) if changed_any else jaxpr

    def evaluated(self, program: Any, arrays: Sequence[Any]) -> list[Any]:
        """The results of a closed jaxpr, rewritten."""
        with debugging_nans():
            return core.jaxpr_as_fun(self.of(program))(*arrays)

    def changed_params(self, params: dict[str, Any]) -> dict[str, Any]:
        """Those of an equation's parameters that change: jaxprs and custom derivatives are rewritten."""
        changed = {}
        for name, value in params.items():
            if type(value) in _WITHOUT_JAXPRS:
                continue
            if name in ("jvp_jaxpr_fun", "fwd_jaxpr_thunk"):
                changed[name] = self._rewrite_result(value)
            elif name == "bwd":
                changed[name] = self.wrapped(value)
            elif _holds_jaxpr(value):
                leaves, tree = jax.tree.flatten(value, is_leaf=_is_jaxpr)
                inner = [self.of(leaf) if _is_jaxpr(leaf) else leaf for leaf in leaves]
                if any(a is not b for a, b in zip(leaves, inner, strict=True)):
                    changed[name] = jax.tree.unflatten(tree, inner)
        return changed

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


def _holds_jaxpr(value: Any) -> bool:
    """Whether a parameter is a jaxpr, or has one in it."""
    if type(value) in _WITHOUT_JAXPRS:
        return False
    if isinstance(value, tuple | list):
        return any(_holds_jaxpr(part) for part in value if type(part) not in _WITHOUT_JAXPRS)
    return any(map(_holds_jaxpr, value.values())) if isinstance(value, dict) else _is_jaxpr(value)
