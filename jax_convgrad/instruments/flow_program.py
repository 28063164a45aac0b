"""The compiled parts of ``gradient_flow``: the gradients, and of each array a few numbers.

Of an array a these are the largest magnitude, a scale s near it, the sum of |a|/s and the sum of (|a|/s)²,
taken in float32, or float64 for float64. With elements divided by s no square overflows or underflows,
however large or small all of a is; the products with s are for the host, in float64.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Hashable, Iterable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Frame(NamedTuple):
    """A pytree without its leaves: how to put it together from those that were taken and the others."""

    tree: Any
    is_taken: tuple[bool, ...]

    def join(self, taken: Iterable[Any], others: Iterable[Any]) -> Any:
        """The pytree."""
        taken, others = iter(taken), iter(others)
        return jax.tree.unflatten(self.tree, [next(taken if of else others) for of in self.is_taken])

    def join_taken(self, taken: Iterable[Any]) -> Any:
        """The pytree, None in place of the others."""
        return self.join(taken, [None] * self.is_taken.count(False))


def take(tree: Any, is_wanted: Callable[[Any], bool]) -> tuple[list[Any], list[Any], Frame]:
    """The leaves that are wanted, the others, and the pytree's frame."""
    leaves, structure = jax.tree.flatten(tree)
    is_taken = tuple(map(is_wanted, leaves))
    pairs = list(zip(leaves, is_taken, strict=True))
    return (
        [leaf for leaf, of in pairs if of],
        [leaf for leaf, of in pairs if not of],
        Frame(structure, is_taken),
    )


def is_array(leaf: Any) -> bool:
    """Whether it is an array of numbers or keys, of JAX or NumPy; Python's own numbers are not."""
    return isinstance(leaf, jax.Array) or (
        isinstance(leaf, np.ndarray | np.generic) and leaf.dtype.kind not in "OSUMm"
    )


def is_parameter(leaf: Any) -> bool:
    """Whether a gradient can be taken with respect to it."""
    return is_array(leaf) and jnp.issubdtype(leaf.dtype, jnp.inexact)


class Inputs:
    """The arguments in parts: parameters, all other arrays, and the form that they stand in."""

    def __init__(self, params: Any, batch: Any, opt_state: Any) -> None:
        self.parameters, others, frame = take(params, is_parameter)
        self.arrays, statics, outer = take((others, batch, opt_state), is_array)
        self.form = Form(frame, outer, tuple(statics))
        """What a program is compiled for."""
        self.of_params = sum(map(is_array, others))
        """How many of the arrays are in params."""
        self.of_batch = sum(map(is_array, jax.tree.leaves(batch)))
        """How many, behind those, are in the batch."""


class Form(NamedTuple):
    """The arguments without their arrays. Hashable where what is left of them is."""

    frame: Frame
    outer: Frame
    statics: tuple[Any, ...]

    def arguments(self, parameters: Iterable[Any], arrays: Iterable[Any]) -> tuple[Any, Any, Any]:
        """``params``, all other arguments of the loss as ``batch``, and ``opt_state``."""
        others, batch, opt_state = self.outer.join(arrays, self.statics)
        return self.frame.join(parameters, others), batch, opt_state


class Sums(NamedTuple):
    """Of one array; see this file's head."""

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
    form: Form,
    parameters: list[jax.Array],
    arrays: list[jax.Array],
) -> tuple[jax.Array, list[jax.Array], list[jax.Array]]:
    """The loss, and of each parameter the gradient and the optimizer's update, if there is an optimizer."""
    loss_fn = loss_ref()
    assert loss_fn is not None, "whoever calls has it"

    def loss_of(parameters: list[jax.Array]) -> jax.Array:
        params, (args, kwargs), _ = form.arguments(parameters, arrays)
        result = loss_fn(params, *args, **kwargs)
        return result[0] if has_aux else result

    loss, gradients = jax.value_and_grad(loss_of)(parameters)
    if optimizer is None:
        return loss, gradients, []
    _, _, opt_state = form.arguments(parameters, arrays)
    return loss, gradients, _updates(optimizer, opt_state, form.frame, gradients, parameters)


def _updates(
    optimizer: Any, opt_state: Any, frame: Frame, gradients: list[jax.Array], parameters: list[jax.Array]
) -> list[jax.Array]:
    params = frame.join_taken(parameters)
    try:
        if opt_state is None:
            opt_state = optimizer.init(params)
        updates, _ = optimizer.update(frame.join_taken(gradients), opt_state, params)
    except Exception as error:
        error.add_note(
            "gradient_flow had called the optimizer, as update(gradients, opt_state, params). "
            "An opt_state that is passed must come from the same params and optimizer."
        )
        raise
    return jax.tree.leaves(updates)


_kept: weakref.WeakKeyDictionary[Any, dict[Hashable, Callable[..., Any]]] = weakref.WeakKeyDictionary()
"""The programs of jitted loss functions, for as long as these live."""


def program(loss_fn: Callable[..., Any], optimizer: Any, has_aux: bool, form: Form) -> Callable[..., Any]:
    """``_gradients`` compiled: the same program again where ``loss_fn`` is jitted, which is to say pure."""
    if isinstance(loss_fn, jax.stages.Wrapped):
        try:
            programs = _kept.setdefault(loss_fn, {})
            key = (optimizer, has_aux, form)
            if key not in programs:
                # By a weak reference: else the value would keep its key alive.
                programs[key] = jax.jit(partial(_gradients, weakref.ref(loss_fn), optimizer, has_aux, form))
            return programs[key]
        except TypeError:  # something in it has no hash
            pass
    return jax.jit(partial(_gradients, lambda: loss_fn, optimizer, has_aux, form))
