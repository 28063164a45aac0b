"""Which functions of a traced program have a derivative rule that somebody wrote for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
from jax.extend import core

from jax_convgrad.replace.jaxpr_rewriting import equations

_OF_JAX = Path(jax.__file__).parent


def own_rules(jaxpr: Any) -> list[str]:
    """The names of those with a ``custom_vjp`` or ``custom_jvp``, but for JAX's own, like ``jax.nn.relu``."""
    names: dict[str, None] = {}
    for equation, _ in equations(jaxpr):
        if not equation.primitive.name.startswith(("custom_vjp", "custom_jvp")):
            continue
        inner = next(v for v in equation.params.values() if isinstance(v, core.ClosedJaxpr))
        written = inner.jaxpr.debug_info
        if not Path(written.func_filename or "").is_relative_to(_OF_JAX):
            names[written.func_name] = None
    return list(names)
