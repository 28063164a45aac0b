"""Checks of what the instruments are given: integers, a loss function's arguments and its result."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def at_least(name: str, value: Any, least: int) -> int:
    """The value as an integer.

    Raises:
      TypeError: it is not an integer.
      ValueError: it is smaller than ``least``.
    """
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, not {value!r}") from None
    if isinstance(value, bool) or number < least:
        raise ValueError(f"{name} must be at least {least}, not {value}")
    return number


def with_batch(f: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    """The arguments behind params; a keyword ``batch`` is the first of them if f calls its own otherwise."""
    if args or "batch" not in kwargs:
        return args
    try:
        parameters = inspect.signature(f).parameters.values()
    except (TypeError, ValueError):  # some callables have none
        return args
    if any(p.name == "batch" or p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters):
        return args
    return (kwargs.pop("batch"),)


def loss_of(result: Any, has_aux: bool, name: str) -> jax.Array:
    """The loss in what the function ``name`` returned: an array of floating-point numbers.

    Raises:
      TypeError: there is no such loss in it, or ``has_aux`` does not fit.
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


def _kind(value: Any) -> str:
    if isinstance(value, jax.Array):  # a tracer's type would say nothing
        return f"an array of shape {value.shape}"
    return "None" if value is None else f"a value of type {type(value).__name__}"
