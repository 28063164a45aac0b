"""What a loss function takes and returns, and what to say where it returns something else."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def loss_of(result: Any, has_aux: bool, name: str) -> jax.Array:
    """The loss in what the function ``name`` has returned: an array of floating-point numbers.

    Raises:
      TypeError: it is none, or ``has_aux`` is not as it should be.
    """
    if has_aux:
        if not (isinstance(result, tuple) and len(result) == 2):
            raise TypeError(f"{name} must return (loss, aux) with has_aux, not {_kind(result)}")
        result = result[0]
    elif isinstance(result, tuple | list):
        kind = type(result).__name__
        raise TypeError(
            f"{name} must return a scalar, not a {kind}; if it returns (loss, aux), pass has_aux=True"
        )
    is_array = hasattr(result, "dtype") and hasattr(result, "shape")
    if not (is_array or isinstance(result, float)):
        raise TypeError(f"{name} must return a scalar array, not {_kind(result)}")
    loss = jnp.asarray(result)
    if not jnp.issubdtype(loss.dtype, jnp.floating):
        raise TypeError(f"{name} must return a real floating-point number, but returned {loss.dtype}")
    return loss


def takes(f: Callable[..., Any], name: str) -> bool:
    """Whether ``f`` has an argument of this name, or any."""
    try:
        parameters = inspect.signature(f).parameters.values()
    except (TypeError, ValueError):  # some callables have none
        return True
    return any(p.name == name or p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters)


def _kind(value: Any) -> str:
    if isinstance(value, jax.Array):  # a tracer's type would say nothing
        return f"an array of shape {value.shape}"
    return "None" if value is None else f"a value of type {type(value).__name__}"
