"""Functions with some of their equations replaced, which ``replace_convolutions`` uses.

While a function runs, a rule's substitutes replace its operations (rewriting_trace.py) and the equations of
the jaxprs inside them. A custom derivative is Python code that may run much later, so it is wrapped.
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

from jax_convgrad.primitives.current_trace import set_current_trace
from jax_convgrad.primitives.eager import debugging_nans
from jax_convgrad.replace.rewriting_trace import RewritingTrace

P = ParamSpec("P")
R = TypeVar("R")


class Substitute(NamedTuple):
    """A function that computes an equation's results, and the atoms of the jaxpr that are its arguments."""

    function: Callable[..., Any]
    operands: Sequence[Any]


class Rule(NamedTuple):
    """The operations to replace, and what replaces them.

    ``substitute(equation, source)`` is called for the equations of the primitives ``replaced`` and returns an
    equation's substitute, or None to keep the equation. ``source(operand)`` is the equation whose result the
    operand is, if its primitive is one of ``passed``, else None.
    """

    replaced: Collection[Any]
    substitute: Callable[[Any, Callable[[Any], Any]], Substitute | None]
    passed: Collection[Any] = ()


def rewritten(
    f: Callable[P, R],
    rule: Rule,
    traced_in: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> Callable[P, R]:
    """``f`` with its equations replaced by the rule's substitutes, in which equations are replaced too.

    ``f`` and the custom derivatives inside it are traced in the context ``traced_in()``.
    """
    return _Rewriting(rule, traced_in).function(f)


def is_array(leaf: Any) -> bool:
    """Reports whether a leaf becomes a tracer; other leaves are passed to a function unchanged."""
    return isinstance(leaf, jax.Array) or (
        isinstance(leaf, np.ndarray | np.generic) and leaf.dtype.kind not in "OSUMm"
    )


def equations(jaxpr: Any) -> Iterator[tuple[Any, int]]:
    """Every equation of a jaxpr, open or closed, and of the jaxprs inside it, and how often it runs.

    A ``scan`` runs its body ``length`` times. A ``while`` loop counts once, and so does each branch of a
    ``cond``. The equations of a custom derivative do not exist yet, so they are missing.
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
"""The types of most parameters, which contain no jaxpr."""


class _Rewriting:
    """Rewrites jaxprs, each of them once, even if it occurs in several places or calls."""

    def __init__(self, rule: Rule, traced_in: Callable[[], AbstractContextManager[Any]]) -> None:
        self.rule = rule
        self._traced_in = traced_in
        self._done: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()

    def function(self, f: Callable[P, R]) -> Callable[P, R]:
        """``f`` with the operations that it calls replaced."""

        @wraps(f)
        def replaced(*args: P.args, **kwargs: P.kwargs) -> R:
            # NumPy arrays become JAX arrays, as under jit.
            given, named = jax.tree.map(
                lambda leaf: jnp.asarray(leaf) if is_array(leaf) else leaf, (args, kwargs)
            )
            with self._traced_in(), set_current_trace(RewritingTrace(self)):
                return f(*given, **named)

        return replaced

    def wrapped(self, fun: Any) -> Any:
        """One of the functions of a custom derivative, in the form in which JAX passes them on."""

        def called(*args: Any) -> Any:
            # JAX also resets these before it calls such a function again: they hold the trees of its results.
            for store in getattr(fun, "stores", ()):
                if store:
                    store.reset()
            return fun.call_wrapped(*args)

        return lu.wrap_init(self.function(called), debug_info=fun.debug_info)

    def of(self, jaxpr: Any) -> Any:
        """The jaxpr, open or closed, with its equations replaced; the same object if no equation changes."""
        done = self._done.get(jaxpr)
        if done is None:
            done = self._rewrite(jaxpr)
            # A weak dictionary never drops a key that is also its value.
            self._done[jaxpr] = _UNCHANGED if done is jaxpr else done
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
        """The results of a closed jaxpr after rewriting."""
        with debugging_nans():
            return core.jaxpr_as_fun(self.of(program))(*arrays)

    def changed_params(self, params: dict[str, Any]) -> dict[str, Any]:
        """The parameters of an equation that change, because they contain jaxprs or custom derivatives."""
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
        """Wraps a function that returns a jaxpr and more: the rule of a custom_jvp or custom_vjp."""

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
                # A result is an operand, or two results are the same variable: each needs its own equation.
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
    """Reports whether a parameter is or contains a jaxpr."""
    if type(value) in _WITHOUT_JAXPRS:
        return False
    if isinstance(value, tuple | list):
        return any(_holds_jaxpr(part) for part in value if type(part) not in _WITHOUT_JAXPRS)
    return any(map(_holds_jaxpr, value.values())) if isinstance(value, dict) else _is_jaxpr(value)
