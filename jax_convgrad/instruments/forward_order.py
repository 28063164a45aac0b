"""The order in which a forward pass uses its parameters, read from its jaxpr.

A pytree with dicts is in the order of its keys' spelling: "conv_10" comes before "conv_2", "head" before
"stem". Depth is a property of the computation: a parameter's place is where it first meets the data, in the
first equation with one operand that depends on the data and another that is made of this parameter. Casts,
norms and other operations on parameters alone do not count.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from jax.extend import core

Origin = frozenset[int] | None
"""The numbers of the parameters that a value is made of, empty for a constant; None if data is in it."""

CONSTANT: frozenset[int] = frozenset()


def forward_order(jaxpr: core.Jaxpr, origins: Sequence[Origin]) -> list[int]:
    """The parameters' numbers in the order in which they meet the data, without those that never do.

    Args:
      jaxpr: the forward pass.
      origins: of each input of the jaxpr.
    """
    met: dict[int, None] = {}  # a set that keeps its order
    _walk(jaxpr, origins, met)
    return list(met)


def _walk(jaxpr: core.Jaxpr, origins: Sequence[Origin], met: dict[int, None]) -> list[Origin]:
    """Adds to ``met``; returns the outputs' origins."""
    of: dict[Any, Origin] = dict(zip(jaxpr.invars, origins, strict=True))

    def origin(atom: Any) -> Origin:
        return CONSTANT if isinstance(atom, core.Literal) else of.get(atom, CONSTANT)

    for equation in jaxpr.eqns:
        operands = [origin(atom) for atom in equation.invars]
        results: list[Origin] | None = None
        if equation.params.get("length") is not None and None in operands:
            # A scan. An operand made of several parameters is a stack of layers, and each turn takes one of
            # them. So they count in the stack's order, not by the operation of a turn that uses them.
            met.update(dict.fromkeys(sorted(CONSTANT.union(*(of for of in operands if of and len(of) > 1)))))
        for inner, skipped in _inner(equation):
            results = _walk(inner, operands[skipped:], met)
        if results is None:
            parameters = CONSTANT.union(*(operand for operand in operands if operand is not None))
            if None in operands:
                for operand in operands:
                    met.update(dict.fromkeys(sorted(operand or ())))
                results = [None] * len(equation.outvars)
            else:
                results = [parameters] * len(equation.outvars)
        of.update(zip(equation.outvars, results, strict=True))
    return [origin(atom) for atom in jaxpr.outvars]


def _inner(equation: Any) -> Iterator[tuple[core.Jaxpr, int]]:
    """The jaxprs that an equation runs on its operands, and how many operands come before theirs.

    ``cond`` has several, whose operands follow an index. If no jaxpr of a ``while_loop`` takes all operands,
    the loop counts as one operation.
    """
    branches = equation.params.get("branches", ())
    for value in (*branches, *equation.params.values()):
        inner = value.jaxpr if isinstance(value, core.ClosedJaxpr) else value
        if isinstance(inner, core.Jaxpr):
            skipped = len(equation.invars) - len(inner.invars)
            if skipped == (1 if branches else 0) and len(inner.outvars) == len(equation.outvars):
                yield inner, skipped
                if not branches:
                    return
