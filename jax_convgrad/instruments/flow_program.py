"""The compiled parts of ``gradient_flow``: the gradients, and a few numbers of each array.

For an array a these are the largest magnitude, a scale s near it, the sum of |a|/s and the sum of (|a|/s)²,
in float32, or in float64 for float64. Since elements are divided by s, no square overflows or underflows,
however large or small all of a is; the host multiplies by s, in float64.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Hashable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Inputs(NamedTuple):
    """The arguments in three parts, of which None stands for what is in another.

    Attributes:
      parameters: the tree of params.
      arrays: all other arrays, in the trees (params, (args, kwargs), opt_state).
      statics: all that is no array, in the same trees.
    """

    parameters: Any
    arrays: Any
    statics: Any


def inputs_of(params: Any, batch: Any, opt_state: Any) -> Inputs:
    """Takes the arguments apart."""
    parameters, others = _parted(params, is_parameter)
    return Inputs(parameters, *_parted((others, batch, opt_state), is_array))


def arguments(parameters: Any, arrays: Any, statics: Any) -> tuple[Any, Any, Any]:
    """Puts the arguments together again: ``params``, ``(args, kwargs)`` and ``opt_state``."""
    others, batch, opt_state = _joined(arrays, statics)
    return _joined(parameters, others), batch, opt_state


def _parted(tree: Any, is_wanted: Callable[[Any], bool]) -> tuple[Any, Any]:
    return (
        jax.tree.map(lambda leaf: leaf if is_wanted(leaf) else None, tree),
        jax.tree.map(lambda leaf: None if is_wanted(leaf) else leaf, tree),
    )


def _joined(some: Any, others: Any) -> Any:
    return jax.tree.map(
        lambda one, other: other if one is None else one, some, others, is_leaf=lambda leaf: leaf is None
    )


def is_array(leaf: Any) -> bool:
    """Reports whether it is an array of numbers or keys, of JAX or NumPy; Python's own numbers are not."""
    return isinstance(leaf, jax.Array) or (
        isinstance(leaf, np.ndarray | np.generic) and leaf.dtype.kind not in "OSUMm"
    )


def is_parameter(leaf: Any) -> bool:
    """Reports whether a gradient can be taken with respect to it."""
    return is_array(leaf) and jnp.issubdtype(leaf.dtype, jnp.inexact)


class Sums(NamedTuple):
    """The numbers of one array; the head of this file explains them."""

    largest: Any
    scale: Any
    scaled_sum: Any
    scaled_squares: Any
    zeros: Any
    nonfinite: Any

    def norm(self) -> float:
        """The root of the sum of squares."""
        return float(self.scale) * math.sqrt(self.scaled_squares)

    def mean(self, size: int) -> float:
        """The mean magnitude; 0 of no elements."""
        return float(self.scale) * float(self.scaled_sum) / max(size, 1)


@jax.jit
def sums(array: jax.Array) -> Sums:
    """Compiled once for each shape and dtype: a network has many layers of few shapes."""
    magnitude = jnp.abs(array.astype(_wide(array.dtype)))
    largest = jnp.max(magnitude, initial=0)
    # Not so large that its reciprocal, by which XLA may multiply, is subnormal, which it may take for zero.
    top = 2.0 ** (1000 if magnitude.dtype == jnp.float64 else 120)
    scale = jnp.where((largest > 0) & jnp.isfinite(largest), jnp.minimum(largest, top), 1)
    scaled = magnitude / scale
    return Sums(
        largest,
        scale,
        jnp.sum(scaled),
        jnp.sum(scaled * scaled),
        jnp.count_nonzero(magnitude == 0),
        jnp.count_nonzero(~jnp.isfinite(magnitude)),
    )


def _wide(dtype: Any) -> Any:
    """The dtype to sum in."""
    return dtype if dtype in (jnp.float64, jnp.complex64, jnp.complex128) else jnp.float32


def _gradients(
    loss_ref: Callable[[], Callable[..., Any] | None],
    optimizer: Any,
    has_aux: bool,
    statics: Any,
    parameters: Any,
    arrays: Any,
) -> tuple[jax.Array, list[jax.Array], list[jax.Array]]:
    """The loss, and of each parameter the gradient and the optimizer's update, if there is an optimizer."""
    loss_fn = loss_ref()
    assert loss_fn is not None, "the caller holds it"

    def loss_of(parameters: Any) -> jax.Array:
        params, (args, kwargs), _ = arguments(parameters, arrays, statics)
        result = loss_fn(params, *args, **kwargs)
        return result[0] if has_aux else result

    loss, gradients = jax.value_and_grad(loss_of)(parameters)
    updates = None
    if optimizer is not None:
        _, _, opt_state = arguments(parameters, arrays, statics)
        try:
            state = optimizer.init(parameters) if opt_state is None else opt_state
            updates, _ = optimizer.update(gradients, state, parameters)
        except Exception as error:
            error.add_note(
                "gradient_flow had called the optimizer, as update(gradients, opt_state, params). "
                "An opt_state that is passed must come from the same params and optimizer."
            )
            raise
    return loss, jax.tree.leaves(gradients), jax.tree.leaves(updates)


_kept: weakref.WeakKeyDictionary[Any, dict[Hashable, Callable[..., Any]]] = weakref.WeakKeyDictionary()
"""The programs of jitted loss functions, for as long as these live."""


def program(loss_fn: Callable[..., Any], optimizer: Any, has_aux: bool, statics: Any) -> Callable[..., Any]:
    """``_gradients`` compiled: the same program again if ``loss_fn`` is jitted, and so has to be pure."""
    if isinstance(loss_fn, jax.stages.Wrapped):
        try:
            programs = _kept.setdefault(loss_fn, {})
            leaves, tree = jax.tree.flatten(statics)
            key = (optimizer, has_aux, tree, tuple(leaves))
            if key not in programs:
                # By a weak reference: otherwise the value would keep its key alive.
                programs[key] = jax.jit(
                    partial(_gradients, weakref.ref(loss_fn), optimizer, has_aux, statics)
                )
            return programs[key]
        except TypeError:  # something in it has no hash
            pass
    return jax.jit(partial(_gradients, lambda: loss_fn, optimizer, has_aux, statics))
