"""A JAX trace that replaces operations while a function runs: the outermost part of a rewriting.

JAX passes every operation to the current trace. This trace passes it on to the one that was current before,
so a function is still traced only once. It replaces an operation by its substitute, and rewrites the jaxprs
and derivatives inside it. If an operation contains a function whose operations would not reach this trace
(``shard_map``), the trace first turns that function into a jaxpr.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
from jax.core import Trace, Tracer
from jax.extend import core

from jax_convgrad.primitives.current_trace import find_top_trace, set_current_trace


@dataclass(frozen=True, eq=False)
class Atom:
    """An operand or a result of an operation, with those attributes of a jaxpr's atom that rules use."""

    value: Any
    aval: Any


@dataclass(frozen=True, eq=False)
class Operation:
    """An operation, with those attributes of a jaxpr's equation that rules use."""

    primitive: Any
    params: dict[str, Any]
    invars: list[Atom]
    avals_out: list[Any] = field(default_factory=list)

    @property
    def outvars(self) -> list[Atom]:
        """The results as atoms without values, because the operation has not run yet."""
        return [Atom(None, aval) for aval in self.avals_out]


class RewritingTrace(Trace):
    """Replaces the operations for which ``rewriting`` has substitutes, and passes on all others.

    Enter it with ``set_current_trace``.
    """

    def __init__(self, rewriting: Any) -> None:
        super().__init__()
        self.parent_trace = find_top_trace(())
        self.requires_low = False  # the parent trace decides this
        self._rewriting = rewriting
        self._rule = rewriting.rule
        # The results of operations that the rule may look up, kept so that no other value gets their id.
        self._made: dict[int, tuple[Any, Operation]] = {}

    def __getattr__(self, name: str) -> Any:
        if name.startswith("process_"):
            return lambda *args, **params: self._staged(name, *args, **params)
        return getattr(self.parent_trace, name)

    def stage_value(self, value: Any) -> Any:
        return self.parent_trace.stage_value(value)

    def process_primitive(self, primitive: Any, values: Sequence[Any], params: dict[str, Any], /) -> Any:
        """Runs one operation or its substitute."""
        if primitive in self._rule.replaced:
            results = self._substituted(primitive, values, params)
            if results is not None:
                return results
        changed = self._rewriting.changed_params(params)
        if changed:
            params = params | changed
        before = self.parent_trace
        if before.requires_low and primitive.is_high(*map(jax.typeof, values), **params):
            with set_current_trace(before):
                results = primitive.bind(*values, **params)
        else:
            results = before.process_primitive(primitive, values, params)
        if primitive in self._rule.passed:
            self._made[id(results)] = results, self._operation(primitive, values, params)
        return results

    # JAX's versions differ in the names of these arguments, so they have none here.
    def process_custom_jvp_call(self, *args: Any, **params: Any) -> Any:
        """Wraps the functions, so that operations are replaced whenever they run."""
        primitive, fun, jvp, values = args
        fun, jvp = map(self._rewriting.wrapped, (fun, jvp))
        with set_current_trace(self.parent_trace):
            return self.parent_trace.process_custom_jvp_call(primitive, fun, jvp, values, **params)

    def process_custom_vjp_call(self, *args: Any, **params: Any) -> Any:
        """Wraps the functions, so that operations are replaced whenever they run."""
        primitive, fun, fwd, bwd, values = args
        fun, fwd, bwd = map(self._rewriting.wrapped, (fun, fwd, bwd))
        with set_current_trace(self.parent_trace):
            return self.parent_trace.process_custom_vjp_call(primitive, fun, fwd, bwd, values, **params)

    def process_call(self, *args: Any, **params: Any) -> Any:
        """Turns the function into a jaxpr and rewrites that."""
        return self._staged("process_call", *args, **params)

    def _staged(self, name: str, *args: Any, **params: Any) -> Any:
        (place,) = (n for n, arg in enumerate(args) if isinstance(arg, list | tuple))

        tree: Any = None

        def staged(*values: Any) -> list[Any]:
            nonlocal tree
            process = getattr(find_top_trace(()), name)
            results: Any = process(*args[:place], values, *args[place + 1 :], **params)
            if hasattr(results, "update"):  # a tree; it is kept without its tracers
                results, tree = list(results), results.update([None] * len(list(results)))
            return results

        with set_current_trace(self.parent_trace):
            found = self._rewriting.evaluated(jax.make_jaxpr(staged)(*args[place]), args[place])
        return found if tree is None else tree.update(found)

    def _operation(self, primitive: Any, values: Sequence[Any], params: dict[str, Any]) -> Operation:
        return Operation(primitive, params, [Atom(value, jax.typeof(value)) for value in values])

    def _substituted(self, primitive: Any, values: Sequence[Any], params: dict[str, Any]) -> Any:
        operation = self._operation(primitive, values, params)
        avals = tuple(atom.aval for atom in operation.invars)
        operation.avals_out.extend(
            _results(primitive, avals, tuple(params.items()), jax.sharding.get_abstract_mesh())
        )
        substitute = self._rule.substitute(operation, self._source)
        if substitute is None:
            return None
        with set_current_trace(self):
            return substitute.function(*(atom.value for atom in substitute.operands))

    def _source(self, atom: Atom) -> Operation | None:
        value, operation = self._made.get(id(atom.value), (None, None))
        return operation if value is atom.value else None


@functools.lru_cache(4096)  # a large net has many layers of few kinds
def _results(
    primitive: Any, avals: tuple[Any, ...], params: tuple[tuple[str, Any], ...], mesh: Any
) -> Sequence[Any]:
    """The abstract values of an operation's results, in the context of a mesh."""
    results, _ = primitive.abstract_eval(*avals, **dict(params))
    return tuple(results) if primitive.multiple_results else (results,)


def number(atom: Any) -> Any:
    """The value of an atom if it is a literal or a number that is known at trace time, else None."""
    if isinstance(atom, core.Literal):
        return atom.val
    if not isinstance(atom, Atom) or isinstance(atom.value, Tracer) or atom.aval.ndim:
        return None
    return atom.value


Source = Callable[[Any], Any]
"""Maps an operand to the operation whose result it is, if a rule may look it up."""
