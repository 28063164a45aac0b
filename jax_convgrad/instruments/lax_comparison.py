"""``compare_with_lax``: one step of a whole model on this package's kernels and on ``jax.lax``."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jax_convgrad.instruments.checked_function import parts_of, widened
from jax_convgrad.instruments.comparison_report import LaxComparison, ParameterRow
from jax_convgrad.instruments.convolutions_found import found_in, interleaved, timed
from jax_convgrad.instruments.finite_differences import rounding_of, wide
from jax_convgrad.instruments.lax_forms import on_lax
from jax_convgrad.instruments.loss_result import loss_of, takes
from jax_convgrad.instruments.own_rules import own_rules
from jax_convgrad.instruments.rounding_moves import unrest_of
from jax_convgrad.primitives.binding import forward_mode
from jax_convgrad.replace.installation import is_installed
from jax_convgrad.replace.replacement import replace_convolutions

LARGER = 4
"""How many times lax's own error, or as many times the unrest, a difference may be."""

ROUNDINGS = 8
"""Roundings of the largest entry that it may be in any case."""

Step = Callable[[Sequence[jax.Array], Sequence[jax.Array]], tuple[jax.Array, list[jax.Array]]]


def compare_with_lax(
    model_fn: Callable[..., Any],
    params: Any,
    *args: Any,
    has_aux: bool = False,
    repeats: int = 10,
    **kwargs: Any,
) -> LaxComparison:
    """Loss, gradients and times of a whole model, on this package's kernels and on ``jax.lax``.

    ```python
    import jax
    import jax.numpy as jnp
    from jax_convgrad import compare_with_lax, conv


    def loss_fn(params, images):
        return jnp.tanh(conv(images, params["w"], params["b"])).sum()


    images = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
    params = {"w": jax.random.normal(jax.random.key(1), (3, 3, 3, 4)), "b": jnp.zeros(4)}
    report = compare_with_lax(loss_fn, params, images)
    print(report)
    assert report.ok
    ```

    ``jax.value_and_grad(model_fn)`` is run both ways: with every ``jax.lax`` convolution replaced by these
    kernels (``replace_convolutions``), and with every convolution and pooling of this package replaced by
    ``jax.lax``'s own, so that it does not matter which of them the model was written with.

    **Errors** are told in roundings: max |ours − lax| / (eps · largest), eps being that of the computation,
    so 1 is the gap between two neighbouring numbers next to the parameter's largest gradient. Sums of n
    products in another order differ by some √n of that; to say whose error it is, the gradient is computed
    once more in float64 by ``jax.lax``, where the model takes float64, and both are held against it. A
    parameter is ok where, in largest entries, one of these holds; the second is the loss's rule, too:

    * |ours − float64| ≤ 4·|lax − float64| + 8 roundings, where there is a float64 to compare with;
    * |ours − lax| ≤ 4·unrest + 8·(1 + √n·eps32/eps) roundings, eps32 being float32's or a smaller eps,

    where n is the number of entries of the largest array that a convolution reads, which bounds its sums,
    and unrest the most that lax's gradient moves when parameters and other arguments are changed by ± eps.

    **Times** of each convolution that the model has, by shapes, steps and dtype: forward as the model calls
    it, with bias and relu where they are one call; dX and dW by themselves. Medians of jitted calls, by turns
    with ``jax.lax``. A call of some microseconds is mostly JAX's own overhead.

    Args:
      model_fn: ``model_fn(params, *args, **kwargs)`` gives a real scalar loss, or (loss, anything) with
        ``has_aux``.
      params: any tree; its floating arrays are differentiated.
      *args: whatever else it takes: a batch, or x and y, a key, a function. What is no array is passed as it
        is.
      has_aux: whether the loss is the first of two results.
      repeats: how many times each op is timed; 0 leaves times out.
      **kwargs: as args.

    Returns:
      A ``LaxComparison``: ``ok``, ``loss``, ``parameters``, ``convolutions``, ``step``; printed, tables.

    Raises:
      TypeError: the loss is not a real scalar, or params hold nothing to differentiate.
      ValueError: ``repeats`` is negative.
      RuntimeError: ``install()`` is in force, under which ``jax.lax`` is these kernels too.
    """
    if not callable(model_fn):
        raise TypeError(f"model_fn must be a function, not {type(model_fn).__name__}")
    repeats = _repeats(repeats)
    if is_installed():
        raise RuntimeError(
            "compare_with_lax needs lax's own convolutions: call jax_convgrad.uninstall() first"
        )

    if not args and "batch" in kwargs and not takes(model_fn, "batch"):
        args = (kwargs.pop("batch"),)  # the second argument's name here, whatever model_fn calls its own

    @wraps(model_fn)
    def loss_fn(params: Any, others: Any) -> jax.Array:
        args, kwargs = jax.tree.map(lambda leaf: leaf.value if isinstance(leaf, _Number) else leaf, others)
        loss = loss_of(model_fn(params, *args, **kwargs), has_aux, "model_fn")
        if loss.shape != ():
            raise TypeError(f"model_fn should return a real scalar loss, not {loss.dtype}{list(loss.shape)}")
        return loss

    others = jax.tree.map(
        lambda leaf: _Number(leaf) if isinstance(leaf, float | complex) else leaf, (args, kwargs)
    )
    parts = parts_of(loss_fn, (params, others), (0, 1))
    of_params = [n for n, place in enumerate(parts.argnums) if place == 0]
    if not of_params:
        raise TypeError("params should hold at least one floating array to differentiate")
    leaves = [parts.leaves[n] for n in of_params]
    rest = [leaf for n, leaf in enumerate(parts.leaves) if n not in of_params]

    def loss(leaves: Sequence[jax.Array], rest: Sequence[jax.Array]) -> jax.Array:
        given, other = iter(leaves), iter(rest)
        return parts.function([next(given if n in of_params else other) for n in range(len(parts.leaves))])[0]

    ours: Step = replace_convolutions(jax.value_and_grad(loss))
    theirs: Step = jax.value_and_grad(on_lax(loss))
    with forward_mode():
        forward = jax.make_jaxpr(replace_convolutions(loss))(leaves, rest)
    found, of_lax = found_in(forward)
    eps = rounding_of(forward)
    notes = []
    if not found:
        notes.append(
            "the model has no convolution that runs on these kernels: both ways are the same program"
        )
    if of_lax:
        notes.append(f"{of_lax} of its convolutions are lax's both ways: these kernels have not their like")

    rules = own_rules(forward)
    if rules:
        notes.append(
            f"not checked here, since they run alike both ways: the derivative rules of {', '.join(rules)}; "
            "check_gradients(model_fn, params, batch) does"
        )

    our_loss, our_gradients = _computed(ours, leaves, rest)
    lax_loss, lax_gradients = _computed(theirs, leaves, rest)
    exact, reason = _exact(loss, leaves, rest, lax_gradients)
    if reason:
        notes.append(f"no float64 gradient to compare with: {reason}")
    longest = max((int(np.prod(shape)) for one in found for shape in one.shapes), default=1)

    def by_lax(both: Sequence[jax.Array]) -> list[np.ndarray]:
        """The gradients, and the loss as one more array."""
        value, gradients = _computed(theirs, both[: len(leaves)], both[len(leaves) :])
        return [*gradients, np.asarray(value)]

    all_of_lax = [*lax_gradients, np.asarray(lax_loss)]
    *unrest, loss_unrest = unrest_of(by_lax, [*leaves, *rest], all_of_lax, eps, tries=2)
    one = eps * max(abs(our_loss), abs(lax_loss)) or 1.0
    allowed = LARGER * loss_unrest / one + _of_sums(longest, eps)
    rows = [
        _row(
            parts.names[of_params[k]],
            leaf,
            our_gradients[k],
            lax_gradients[k],
            exact[k] if exact else None,
            eps=max(eps, float(jnp.finfo(leaf.dtype).eps)),
            unrest=unrest[k],
            longest=longest,
        )
        for k, leaf in enumerate(leaves)
    ]
    times = {one: timed(one, repeats) for one in found} if repeats else {}
    return LaxComparison(
        loss=(our_loss, lax_loss),
        loss_roundings=abs(our_loss - lax_loss) / one,
        loss_verdict=_loss_verdict(our_loss, lax_loss, abs(our_loss - lax_loss) / one <= allowed),
        parameters=tuple(rows),
        convolutions=tuple((one, count, times.get(one, {})) for one, count in found.items()),
        step=interleaved(ours, theirs, (leaves, rest), repeats) if repeats else None,
        notes=tuple(notes),
    )


@dataclass(frozen=True)
class _Number:
    """One of Python's own numbers, which stays one: a function may ask whether it is 0."""

    value: float | complex


def _repeats(value: Any) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"repeats must be an integer, not {value!r}") from None
    if number < 0:
        raise ValueError(f"repeats must be at least 0, not {value}")
    return number


def _computed(
    step: Step, leaves: Sequence[jax.Array], rest: Sequence[jax.Array]
) -> tuple[float, list[np.ndarray]]:
    loss, gradients = jax.jit(step)(leaves, rest)
    return float(loss), [np.asarray(g.astype(wide(g.dtype))) for g in gradients]


def _exact(
    loss: Callable[..., jax.Array],
    leaves: Sequence[jax.Array],
    rest: Sequence[jax.Array],
    by_lax: Sequence[np.ndarray],
) -> tuple[list[np.ndarray] | None, str]:
    """The gradients in float64 by ``lax``, or None and why there are none."""
    if all(jnp.finfo(leaf.dtype).bits >= 64 for leaf in leaves):
        return None, "the parameters are float64 themselves"
    with jax.enable_x64(True):
        arguments = widened(leaves), widened(rest)
        try:
            rounding = rounding_of(jax.make_jaxpr(loss)(*arguments))
            if rounding > np.finfo(np.float64).eps:
                return None, f"whatever it is given, the model computes in a dtype with eps {rounding:.2g}"
            _, gradients = _computed(jax.value_and_grad(on_lax(loss)), *arguments)
        except Exception as error:  # whatever the model raises where it is given another dtype
            return None, next(iter(str(error).strip().splitlines()), type(error).__name__)
    off = np.sqrt(sum(np.sum(np.abs(a - b) ** 2) for a, b in zip(gradients, by_lax, strict=True)))
    norm = np.sqrt(sum(np.sum(np.abs(a) ** 2) for a in gradients))
    if not off <= 0.1 * norm:
        return (
            None,
            "in float64 the model is another function (random numbers differ by dtype, as in dropout)",
        )
    return gradients, ""


def _of_sums(longest: int, eps: float) -> float:
    """What another order of additions may make of sums of ``longest`` terms, in roundings of their result.

    The sums run in float32 at least, whatever they are rounded to in the end.
    """
    own = min(eps, float(jnp.finfo(jnp.float32).eps))
    return ROUNDINGS * (1 + float(np.sqrt(longest)) * own / eps)


def _loss_verdict(ours: float, by_lax: float, is_right: bool) -> str:
    if not (np.isfinite(ours) and np.isfinite(by_lax)):
        return "not finite"
    return "ok" if is_right else "WRONG"


def _row(
    name: str,
    leaf: jax.Array,
    ours: np.ndarray,
    by_lax: np.ndarray,
    exact: np.ndarray | None,
    *,
    eps: float,
    unrest: float,
    longest: int,
) -> ParameterRow:
    largest = float(np.max(np.abs(by_lax), initial=0.0))
    all_largest = max(float(np.max(np.abs(g), initial=0.0)) for g in (ours, by_lax, exact) if g is not None)
    one = eps * all_largest or 1.0  # a rounding

    def roundings(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.max(np.abs(a - b), initial=0.0)) / one

    difference = roundings(ours, by_lax)
    our_error = lax_error = None
    if exact is None:
        is_right = difference <= LARGER * unrest / one + _of_sums(longest, eps)
    else:
        our_error, lax_error = roundings(ours, exact), roundings(by_lax, exact)
        is_right = our_error <= LARGER * lax_error + ROUNDINGS
    verdict = "ok" if is_right else "WRONG"
    if not np.isfinite(ours).all():
        verdict = "not finite"
    elif not np.isfinite(by_lax).all():
        verdict = "not finite on lax"
    return ParameterRow(name, leaf.shape, str(leaf.dtype), largest, difference, our_error, lax_error, verdict)
