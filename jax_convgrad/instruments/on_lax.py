"""``on_lax``: a function with every convolution and pooling of this package computed by ``jax.lax``.

It is the inverse of ``replace_convolutions``. The function is traced in ``forward_mode()``, in which this
package's layers do not have their own derivatives. So a gradient of the result is ``lax``'s own gradient of
``lax``'s own operation, and shares nothing with the rules and kernels of this package.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, ParamSpec, TypeVar

import jax

from jax_convgrad.primitives.binding import forward_mode
from jax_convgrad.primitives.define import lax_forms
from jax_convgrad.replace.jaxpr_rewriting import Rule, Substitute, equations, rewritten

P = ParamSpec("P")
R = TypeVar("R")


def on_lax(f: Callable[P, R]) -> Callable[P, R]:
    """``f``, in which ``jax.lax`` computes all that this package's kernels compute, derivatives included.

    It reaches as far as ``replace_convolutions``, and like that runs ``f`` at each call. A custom derivative
    inside ``f`` that is not this package's stays, and the convolutions in its rules run on ``lax``.
    """
    return rewritten(f, Rule(lax_forms.keys(), _substitute), forward_mode)


def _substitute(equation: Any, source: Any) -> Substitute:
    return Substitute(partial(lax_forms[equation.primitive], **equation.params), equation.invars)


def has_kernels(f: Callable[..., Any], *args: Any) -> bool:
    """Says whether ``f``, traced with these arguments, computes anything with this package's primitives."""
    return any(equation.primitive in lax_forms for equation, _ in equations(jax.make_jaxpr(f)(*args)))
