"""A primitive's evaluation outside of ``jit``: a jitted call of it, looked through for NaN where JAX asks."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive

_debug_nans: ContextVar[bool] = ContextVar("debug_nans", default=False)


@contextmanager
def debugging_nans() -> Iterator[None]:
    """Makes kernels called within look for NaN if ``jax_debug_nans`` is set here, whatever it is inside.

    JAX switches it off while it evaluates a jaxpr.
    """
    token = _debug_nans.set(_debug_nans.get() or getattr(jax.config, "jax_debug_nans", False))
    try:
        yield
    finally:
        _debug_nans.reset(token)


@functools.cache
def _jitted(primitive: Primitive, params: tuple[tuple[str, Any], ...]) -> Callable[..., Any]:
    return jax.jit(functools.partial(primitive.bind, **dict(params)))


def run_eagerly(primitive: Primitive, *operands: jax.Array, **params: Any) -> Any:
    """The primitive's results.

    Raises:
      FloatingPointError: one of them has a NaN or an infinity that JAX's settings forbid.
    """
    # Under jax.disable_jit, jit would come straight back here, and so it would after jax_debug_nans has found
    # a NaN in jit's results. So results are checked here, where the primitive is known.
    with jax.disable_jit(False), jax.debug_nans(False), jax.debug_infs(False):
        results = _jitted(primitive, tuple(params.items()))(*operands)
    _check_for_nans(primitive, operands, results)
    return results


def _check_for_nans(primitive: Primitive, operands: Any, results: Any) -> None:
    """Does what JAX does for its own primitives under ``jax_debug_nans`` and ``jax_debug_infs``."""
    looked_for = {
        "nan": (getattr(jax.config, "jax_debug_nans", False) or _debug_nans.get(), jnp.isnan),
        "inf": (getattr(jax.config, "jax_debug_infs", False), jnp.isinf),
    }
    for value, (is_asked, is_value) in looked_for.items():
        if is_asked:
            with jax.debug_nans(False), jax.debug_infs(False):
                in_results, in_operands = (
                    any(bool(is_value(array).any()) for array in jax.tree.leaves(arrays))
                    for arrays in (results, operands)
                )
            if in_results:
                whence = ", whose operands have it already" if in_operands else ""
                raise FloatingPointError(f"invalid value ({value}) encountered in {primitive.name}{whence}")
