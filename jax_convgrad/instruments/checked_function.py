"""A function of arguments that are trees, as one of the arrays in them that have a gradient."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jax_convgrad.instruments.finite_differences import wide

Leaves = Sequence[jax.Array]
ListFunction = Callable[[Leaves], list[jax.Array]]


@dataclass(frozen=True)
class Parts:
    """A call of f: the arrays that have a gradient, the rest, and f as a function of the former.

    ``names`` and ``argnums`` say which array of which argument each of ``leaves`` is. ``wide_function`` is
    for leaves that are widened: it widens the arrays of all other arguments, too.
    """

    function: ListFunction
    wide_function: ListFunction
    names: list[str]
    leaves: list[jax.Array]
    argnums: list[int]
    others: list[tuple[str, Any]]


def parts_of(f: Callable[..., Any], args: tuple[Any, ...], argnums: Sequence[int]) -> Parts:
    """Takes the call ``f(*args)`` apart; only arrays in the arguments ``argnums`` are given a gradient."""
    with_paths, tree = jax.tree_util.tree_flatten_with_path(args)
    arguments = _argument_names(f, len(args))
    names = [arguments[path[0].idx] + jax.tree_util.keystr(path[1:]) for path, _ in with_paths]
    values = [leaf for _, leaf in with_paths]
    of_chosen = [path[0].idx in argnums for path, _ in with_paths]
    places = [n for n, leaf in enumerate(values) if of_chosen[n] and has_gradient(leaf)]

    # Python's numbers take the dtype of what they meet.
    fixed = [
        (n, jnp.asarray(leaf))
        for n, leaf in enumerate(values)
        if not of_chosen[n] and has_gradient(leaf) and not isinstance(leaf, float | complex)
    ]

    def with_values(values: list[Any], leaves: Leaves) -> list[jax.Array]:
        filled = list(values)
        for place, leaf in zip(places, leaves, strict=True):
            filled[place] = leaf
        results = jax.tree.leaves(f(*jax.tree.unflatten(tree, filled)))
        return [jnp.asarray(leaf) for leaf in results if has_gradient(leaf)]

    def function(leaves: Leaves) -> list[jax.Array]:
        return with_values(values, leaves)

    def wide_function(leaves: Leaves) -> list[jax.Array]:
        widest = list(values)
        for n, leaf in fixed:
            (widest[n],) = widened([leaf])
        return with_values(widest, leaves)

    others = [
        (name, leaf)
        for n, (name, leaf) in enumerate(zip(names, values, strict=True))
        if of_chosen[n] and n not in places
    ]
    return Parts(
        function,
        wide_function,
        [names[n] for n in places],
        [jnp.asarray(values[n]) for n in places],
        [with_paths[n][0][0].idx for n in places],
        others,
    )


def _argument_names(f: Callable[..., Any], count: int) -> list[str]:
    """As f's signature has them; those of ``*args`` are numbered."""
    try:
        parameters = list(inspect.signature(f).parameters.values())
    except (TypeError, ValueError):  # some callables have none
        parameters = []
    names = []
    for n in range(count):
        named = n < len(parameters) and parameters[n].kind in (
            inspect.Parameter.POSITIONAL_ONLY,
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
        )
        names.append(parameters[n].name if named else f"args[{n}]")
    return names


def has_gradient(leaf: Any) -> bool:
    """Whether it is a number or an array of numbers, floating or complex."""
    if isinstance(leaf, float | complex):
        return True
    return hasattr(leaf, "dtype") and hasattr(leaf, "shape") and jnp.issubdtype(leaf.dtype, jnp.inexact)


def widened(leaves: Leaves) -> list[jax.Array]:
    """Each in the widest dtype of its kind."""
    return [leaf.astype(wide(leaf.dtype)) for leaf in leaves]


def random_weights(outputs: Sequence[Any], rng: np.random.Generator) -> list[np.ndarray]:
    """Weights c for g = Re Σ c·y: 1 where y is one real number, else ±(0.5, 0.75, ..., 1.5).

    These have few bits, so that they are the same numbers in every dtype, and differ in size, so that outputs
    in each other's place are noticed.
    """
    if len(outputs) == 1 and outputs[0].shape == () and not _is_complex(outputs[0]):
        return [np.ones(())]

    def draw(shape: tuple[int, ...]) -> np.ndarray:
        return rng.choice([-1.0, 1.0], shape) * rng.choice([0.5, 0.75, 1.0, 1.25, 1.5], shape)

    return [
        draw(y.shape) + 1j * draw(y.shape) if _is_complex(y) else np.asarray(draw(y.shape)) for y in outputs
    ]


def _is_complex(array: Any) -> bool:
    return bool(jnp.issubdtype(array.dtype, jnp.complexfloating))


def gradient_of(function: ListFunction, weights: Sequence[np.ndarray]) -> ListFunction:
    """The gradient of g in every leaf, by ``jax.vjp``, in reverse mode: a function of the leaves again."""

    def gradient(leaves: Leaves) -> list[jax.Array]:
        values, pull_back = jax.vjp(function, list(leaves))
        (result,) = pull_back([jnp.asarray(c, y.dtype) for c, y in zip(weights, values, strict=True)])
        return result

    return gradient


def wide_arrays(arrays: Sequence[jax.Array]) -> list[np.ndarray]:
    """As NumPy's, in the widest dtype of each one's kind."""
    return [np.asarray(array.astype(wide(array.dtype))) for array in arrays]


def distance(some: Sequence[np.ndarray], others: Sequence[np.ndarray]) -> float:
    """The norm of the differences of all entries."""
    with np.errstate(invalid="ignore"):  # of infinities
        return norm([a - b for a, b in zip(some, others, strict=True)])


def norm(arrays: Sequence[np.ndarray]) -> float:
    """That of all entries together."""
    return float(np.sqrt(sum(float(np.sum(np.abs(array) ** 2)) for array in arrays)))
