"""The contents of a program: the primitives of a jaxpr, and the operations of lax or XLA left in it."""

import re

import jax
from jax.extend import core

FOREIGN_PRIMITIVES = re.compile(
    r"conv_general_dilated|dot_general|reduce_window|select_and_scatter|select_and_gather|cumulative_"
)
# Operations before and after XLA's passes. The second list has no reduce-window, because XLA may turn any
# large sum into one.
FOREIGN_STABLEHLO = re.compile(r"stablehlo\.(convolution|dot_general|reduce_window|select_and_scatter)\b")
FOREIGN_HLO = re.compile(r"\b(convolution|dot|select-and-scatter)\(")


def primitives(jaxpr):
    """The names of all primitives of a jaxpr, and of every jaxpr in its equations' parameters."""
    for equation in jaxpr.eqns:
        yield equation.primitive.name
        for parameter in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda p: isinstance(p, core.Jaxpr | core.ClosedJaxpr)
        ):
            if isinstance(parameter, core.ClosedJaxpr):
                yield from primitives(parameter.jaxpr)
            elif isinstance(parameter, core.Jaxpr):
                yield from primitives(parameter)


def foreign(f, args):
    """The operations in a traced and compiled f that are not this package's, and its custom calls."""
    found = {p for p in primitives(jax.make_jaxpr(f)(*args).jaxpr) if FOREIGN_PRIMITIVES.search(p)}
    lowered = jax.jit(f).lower(*args)
    found |= {match.group() for match in FOREIGN_STABLEHLO.finditer(lowered.as_text())}
    text = lowered.compile().as_text()
    targets = set(re.findall(r'custom_call_target="([^"]+)"', text))
    found |= {match.group() for match in FOREIGN_HLO.finditer(text)}
    return found | {t for t in targets if not t.startswith("jax_convgrad_")}, targets
