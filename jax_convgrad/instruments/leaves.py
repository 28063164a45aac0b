"""Arguments of any tree as a list of the arrays that have a gradient, and these widened and moved.

A leaf is one such array. A ``ListFunction`` takes all leaves of a call and returns its outputs.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core
from jax.interpreters import partial_eval

from jax_convgrad.replace.jaxpr_rewriting import equations

Leaves = Sequence[jax.Array]
ListFunction = Callable[[Leaves], list[jax.Array]]


# ------------------------------------------------------------------------------------------------- one call


@dataclass(frozen=True)
class Call:
    """A call of f as a function of its leaves.

    Attributes:
      function: from the leaves to the outputs that have a gradient.
      wide_function: the same for widened leaves; it widens the arrays of all other arguments too.
      leaves: the arrays that have a gradient, in the arguments that were chosen.
      names: where each of them is, as in ``params['w']``.
      argnums: which argument each of them is in.
      others: name and value of what has no gradient in these arguments.
    """

    function: ListFunction
    wide_function: ListFunction
    leaves: list[jax.Array]
    names: list[str]
    argnums: list[int]
    others: list[tuple[str, Any]]


def call_of(f: Callable[..., Any], args: tuple[Any, ...], argnums: Sequence[int]) -> Call:
    """Takes ``f(*args)`` apart; ``argnums`` are the arguments to differentiate."""
    with_paths, tree = jax.tree_util.tree_flatten_with_path(args)
    arguments = _argument_names(f, len(args))
    owners = [path[0].idx for path, _ in with_paths]
    names = [arguments[path[0].idx] + jax.tree_util.keystr(path[1:]) for path, _ in with_paths]
    values = [leaf for _, leaf in with_paths]
    places = [n for n, leaf in enumerate(values) if owners[n] in argnums and has_gradient(leaf)]

    def with_leaves(values: Sequence[Any], leaves: Leaves) -> list[jax.Array]:
        filled = list(values)
        for place, leaf in zip(places, leaves, strict=True):
            filled[place] = leaf
        results = jax.tree.leaves(f(*jax.tree.unflatten(tree, filled)))
        return [jnp.asarray(leaf) for leaf in results if has_gradient(leaf)]

    def wide_function(leaves: Leaves) -> list[jax.Array]:
        # Python's numbers take the dtype of what they meet.
        is_fixed = [
            owner not in argnums and has_gradient(leaf) and not isinstance(leaf, float | complex)
            for owner, leaf in zip(owners, values, strict=True)
        ]
        wider = [
            widened([jnp.asarray(leaf)])[0] if fixed else leaf
            for leaf, fixed in zip(values, is_fixed, strict=True)
        ]
        return with_leaves(wider, leaves)

    return Call(
        lambda leaves: with_leaves(values, leaves),
        wide_function,
        [jnp.asarray(values[n]) for n in places],
        [names[n] for n in places],
        [owners[n] for n in places],
        [(names[n], values[n]) for n in range(len(values)) if owners[n] in argnums and n not in places],
    )


def _argument_names(f: Callable[..., Any], count: int) -> list[str]:
    """The names in f's signature; those of ``*args`` are numbered."""
    try:
        parameters = list(inspect.signature(f).parameters.values())
    except (TypeError, ValueError):  # some callables have none
        parameters = []
    positional = inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD
    names = [parameter.name if parameter.kind in positional else None for parameter in parameters]
    return [(n < len(names) and names[n]) or f"args[{n}]" for n in range(count)]


def has_gradient(leaf: Any) -> bool:
    """Reports whether it is a number or an array of numbers, floating or complex."""
    if isinstance(leaf, float | complex):
        return True
    return hasattr(leaf, "dtype") and hasattr(leaf, "shape") and jnp.issubdtype(leaf.dtype, jnp.inexact)


# ---------------------------------------------------------------------------------------- dtypes and norms


def wide(dtype: Any) -> Any:
    """The widest dtype of this one's kind, real or complex, that JAX has with its present settings."""
    kind = complex if jnp.issubdtype(dtype, jnp.complexfloating) else float
    return jax.dtypes.canonicalize_dtype(np.dtype(kind))


def widened(leaves: Leaves) -> list[jax.Array]:
    """Each in the widest dtype of its kind."""
    return [leaf.astype(wide(leaf.dtype)) for leaf in leaves]


def wide_arrays(arrays: Leaves) -> list[np.ndarray]:
    """NumPy arrays of the same numbers, each in the widest dtype of its kind."""
    return [np.asarray(array) for array in widened(arrays)]


def rounding_of(jaxpr: Any) -> float:
    """The largest eps of all dtypes that a program computes in, apart from what its results do not need."""
    if isinstance(jaxpr, core.ClosedJaxpr):
        jaxpr = jaxpr.jaxpr
    jaxpr, _ = partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
    found = [
        float(jnp.finfo(out.aval.dtype).eps)
        for equation, _ in equations(jaxpr)
        for out in equation.outvars
        if jnp.issubdtype(getattr(out.aval, "dtype", np.int32), jnp.inexact)
    ]
    return max(found, default=float(jnp.finfo(jnp.result_type(float)).eps))


def norm(arrays: Sequence[np.ndarray]) -> float:
    """The norm of all entries together."""
    return float(np.sqrt(sum(float(np.sum(np.abs(array) ** 2)) for array in arrays)))


def first_line(error: Exception) -> str:
    """The text of an exception, in a line."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


# -------------------------------------------------------------------------------------------- the gradient


def computed(function: ListFunction, leaves: Leaves) -> list[np.ndarray]:
    """The function's results at precision "highest", as wide NumPy arrays."""
    with jax.default_matmul_precision("highest"):
        return wide_arrays(jax.jit(function)(leaves))


def gradient_of(function: ListFunction, weights: Sequence[np.ndarray]) -> ListFunction:
    """The gradient of g = Re Σ c·y in every leaf, by ``jax.vjp``: a function of the leaves again."""

    def gradient(leaves: Leaves) -> list[jax.Array]:
        values, pull_back = jax.vjp(function, list(leaves))
        (result,) = pull_back([jnp.asarray(c, y.dtype) for c, y in zip(weights, values, strict=True)])
        return result

    return gradient


def random_weights(outputs: Sequence[Any], rng: np.random.Generator) -> list[np.ndarray]:
    """Weights c for g = Re Σ c·y: 1 if y is one real number, else ±(0.5, 0.75, ..., 1.5).

    These have few bits, so that they are the same numbers in every dtype. They differ in size, so that two
    outputs in each other's place are noticed.
    """
    are_complex = [jnp.issubdtype(y.dtype, jnp.complexfloating) for y in outputs]
    if [y.shape for y in outputs] == [()] and not are_complex[0]:
        return [np.ones(())]

    def draw(shape: tuple[int, ...]) -> np.ndarray:
        return np.asarray(rng.choice([-1.0, 1.0], shape) * rng.choice([0.5, 0.75, 1.0, 1.25, 1.5], shape))

    return [
        draw(y.shape) + 1j * draw(y.shape) if is_complex else draw(y.shape)
        for y, is_complex in zip(outputs, are_complex, strict=True)
    ]


# ------------------------------------------------------------------------------------------------ moved a bit


def sizes_of(leaf: jax.Array) -> np.ndarray:
    """The size of each entry, for steps in proportion: at least the array's root mean square."""
    sizes = np.abs(wide_arrays([leaf])[0]).astype(np.float64)
    mean = float(np.sqrt(np.mean(sizes**2))) if sizes.size else 0.0
    return np.maximum(sizes, mean if mean > 0 else 1.0)


def moved(leaf: jax.Array, by: Any) -> jax.Array:
    """leaf + by in the leaf's dtype, added in a wider one where there is one."""
    return (leaf.astype(wide(leaf.dtype)) + by).astype(leaf.dtype)


def multiplied(leaves: Leaves, eps: float, rng: np.random.Generator) -> list[jax.Array]:
    """Each entry times 1 + eps or 1 − eps, at random."""
    factors = [1 + eps * rng.choice([-1.0, 1.0], leaf.shape) for leaf in leaves]
    return [
        (leaf.astype(wide(leaf.dtype)) * jnp.asarray(factor)).astype(leaf.dtype)
        for leaf, factor in zip(leaves, factors, strict=True)
    ]


def unrest_of(
    gradient: Callable[[Leaves], list[np.ndarray]],
    leaves: Leaves,
    found: Sequence[np.ndarray],
    eps: float,
    tries: int,
    jumps: Sequence[float] | None = None,
) -> list[float]:
    """Measures how far an entry of each gradient moves, at most, if all arguments are multiplied by 1 ± eps.

    This is the rounding to expect where terms cancel: a bias before a batch normalisation has a gradient of
    0, which is computed as a sum of terms that are not 0.

    Args:
      gradient: a function of the leaves.
      leaves: the arguments; they are moved in their own dtypes.
      found: the gradient at the leaves.
      eps: of the dtype that the gradient is computed in.
      tries: how many random signs to try.
      jumps: for each gradient, the distance from which on a move is a jump, which a kink makes, and is left
        out; None leaves out only moves that are not finite.
    """
    rng = np.random.default_rng(0)
    largest = [0.0] * len(found)
    for _ in range(tries):
        for k, there in enumerate(gradient(multiplied(leaves, eps, rng))):
            with np.errstate(invalid="ignore"):  # an infinity minus itself is NaN, and no move
                moves = np.abs(there - found[k])
            is_move = moves < (np.inf if jumps is None else jumps[k])
            largest[k] = max(largest[k], float(np.max(moves, initial=0.0, where=is_move)))
    return largest


def are_jumps(
    gradient: Callable[[Leaves], np.ndarray],
    leaves: Leaves,
    eps: float,
    rng: np.random.Generator,
    found: np.ndarray,
    expected: np.ndarray,
    tolerance: np.ndarray,
) -> np.ndarray:
    """Finds the entries of a gradient that may be as found because it jumps within an eps of the leaves.

    Either rounding has put a kink on its other side: then the gradient in the leaves' own dtypes is as
    expected. Or the leaves are exactly on kinks, several at once: then both the found and the expected
    entries are near the values around the leaves. Arrays are moved by an eps of their size there: if they
    were multiplied, zeros would stay zeros.

    Args:
      gradient: the entries, as a function of the leaves.
      leaves: in the dtype of the differences.
      eps: of the dtype in which ``found`` was computed.
      rng: for the signs of the moves.
      found: the gradient's entries.
      expected: the same by differences.
      tolerance: by how much these may differ.
    """
    here = gradient(leaves)
    jump = np.zeros(here.shape)
    for _ in range(4):
        jump = np.fmax(jump, np.abs(gradient(multiplied(leaves, eps, rng)) - here))
    is_beside = (np.abs(here - expected) <= tolerance) & (np.abs(found - here) <= 2 * jump)

    around = []
    for _ in range(8):
        shifts = [eps * sizes_of(leaf) * rng.choice([-1.0, 1.0], leaf.shape) for leaf in leaves]
        # In pairs, so that the mean of a single kink's two derivatives is half way between them.
        for sign in (1, -1):
            around.append(
                gradient([moved(x, jnp.asarray(sign * by)) for x, by in zip(leaves, shifts, strict=True)])
            )
    middle = np.mean(around, 0)
    spread = np.max(np.abs(around - middle), 0)
    is_on = (spread > tolerance) & (np.abs(found - middle) <= 2 * spread)
    return is_beside | (is_on & (np.abs(expected - middle) <= 2 * spread))
