"""``compare_with_lax``: one step of a whole model on this package's kernels and on ``jax.lax``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jax_convgrad.instruments.arguments import at_least, loss_of, with_batch
from jax_convgrad.instruments.comparison_report import LaxComparison, ParameterRow
from jax_convgrad.instruments.convolutions_found import found_in, interleaved, own_rules, timed
from jax_convgrad.instruments.leaves import (
    Leaves,
    call_of,
    first_line,
    norm,
    rounding_of,
    unrest_of,
    wide_arrays,
    widened,
)
from jax_convgrad.instruments.on_lax import on_lax
from jax_convgrad.primitives.binding import forward_mode
from jax_convgrad.replace.installation import is_installed
from jax_convgrad.replace.replacement import replace_convolutions

LARGER = 4
"""A difference may be this many times lax's own error, or this many times the unrest."""

ULPS = 8
"""A difference may be this many ulps of the largest entry in any case."""

Step = Callable[[Leaves, Leaves], tuple[jax.Array, list[jax.Array]]]


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

    docs/checking.md describes the method; in short:

    * Errors are in ulps of the largest entry, |ours − lax| / (eps · largest), with the computation's eps.
    * If the model takes float64, ``jax.lax`` computes the gradient once more in it, and a parameter is ok if
      |ours − float64| ≤ 4·|lax − float64| + 8 ulps, in largest entries.
    * Else, and for the loss, |ours − lax| ≤ 4·unrest + 8·(1 + √n·eps32/eps) ulps is ok. The unrest is
      the most that lax's gradient moves if all arguments are multiplied by 1 ± eps. The eps32 is float32's or
      a smaller eps, and n is the size of the largest array that a convolution reads, which bounds its sums.
    * Times are medians of jitted calls, by turns with ``jax.lax``: of each convolution forward as the model
      calls it, with bias and relu if they are one call, and of dX and dW.

    Args:
      model_fn: ``model_fn(params, *args, **kwargs)`` gives a real scalar loss, or (loss, anything) with
        ``has_aux``.
      params: any tree; its floating arrays are differentiated.
      *args: whatever else it takes: a batch, or x and y, a key, a function. What is no array is passed on
        unchanged.
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
    repeats = at_least("repeats", repeats, 0)
    if is_installed():
        raise RuntimeError(
            "compare_with_lax needs lax's own convolutions: call jax_convgrad.uninstall() first"
        )

    args = with_batch(model_fn, args, kwargs)

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
    call = call_of(loss_fn, (params, others), (0, 1))
    count = call.argnums.count(0)
    if not count:
        raise TypeError("params should hold at least one floating array to differentiate")
    leaves, rest = call.leaves[:count], call.leaves[count:]

    def loss(leaves: Leaves, rest: Leaves) -> jax.Array:
        return call.function([*leaves, *rest])[0]

    ours: Step = replace_convolutions(jax.value_and_grad(loss))
    theirs: Step = jax.value_and_grad(on_lax(loss))
    with forward_mode():
        forward = jax.make_jaxpr(replace_convolutions(loss))(leaves, rest)
    found, of_lax = found_in(forward)
    eps = rounding_of(forward)
    our_loss, our_gradients = _computed(ours, leaves, rest)
    lax_loss, lax_gradients = _computed(theirs, leaves, rest)
    exact, reason = _exact(loss, leaves, rest, lax_gradients)
    notes = _notes(len(found), of_lax, own_rules(forward))
    notes += [f"no float64 gradient to compare with: {reason}"] if reason else []
    longest = max((int(np.prod(shape)) for layer in found for shape in layer.shapes), default=1)

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
            call.names[k],
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
    times = {layer: timed(layer, repeats) for layer in found} if repeats else {}
    return LaxComparison(
        loss=(our_loss, lax_loss),
        loss_roundings=abs(our_loss - lax_loss) / one,
        loss_verdict=_loss_verdict(our_loss, lax_loss, abs(our_loss - lax_loss) / one <= allowed),
        parameters=tuple(rows),
        convolutions=tuple((layer, runs, times.get(layer, {})) for layer, runs in found.items()),
        step=interleaved(ours, theirs, (leaves, rest), repeats) if repeats else None,
        notes=tuple(notes),
    )


@dataclass(frozen=True)
class _Number:
    """One of Python's own numbers, which stays one: a function may ask whether it is 0."""

    value: float | complex


def _notes(found: int, of_lax: int, rules: Sequence[str]) -> list[str]:
    notes = []
    if not found:
        notes.append(
            "the model has no convolution that runs on these kernels: both ways are the same program"
        )
    if of_lax:
        notes.append(f"{of_lax} of its convolutions run on lax both ways: these kernels do not support them")
    if rules:
        notes.append(
            f"not checked here, since they run alike both ways: the derivative rules of {', '.join(rules)}; "
            "check_gradients(model_fn, params, batch) does"
        )
    return notes


def _computed(step: Step, leaves: Leaves, rest: Leaves) -> tuple[float, list[np.ndarray]]:
    loss, gradients = jax.jit(step)(leaves, rest)
    return float(loss), wide_arrays(gradients)


def _exact(
    loss: Callable[..., jax.Array],
    leaves: Leaves,
    rest: Leaves,
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
            return None, first_line(error)
    off = norm([a - b for a, b in zip(gradients, by_lax, strict=True)])
    if off <= 0.1 * norm(gradients):
        return gradients, ""
    return None, "in float64 the model is another function (random numbers differ by dtype, as in dropout)"


def _of_sums(longest: int, eps: float) -> float:
    """Returns what another order of additions may change in sums of ``longest`` terms, in ulps of the result.

    The sums run in float32 at least, whatever they are rounded to in the end.
    """
    own = min(eps, float(jnp.finfo(jnp.float32).eps))
    return ULPS * (1 + float(np.sqrt(longest)) * own / eps)


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
    one = eps * all_largest or 1.0  # an ulp

    def ulps(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.max(np.abs(a - b), initial=0.0)) / one

    difference = ulps(ours, by_lax)
    our_error = lax_error = None
    if exact is None:
        is_right = difference <= LARGER * unrest / one + _of_sums(longest, eps)
    else:
        our_error, lax_error = ulps(ours, exact), ulps(by_lax, exact)
        is_right = our_error <= LARGER * lax_error + ULPS
    verdict = "ok" if is_right else "WRONG"
    if not np.isfinite(ours).all():
        verdict = "not finite"
    elif not np.isfinite(by_lax).all():
        verdict = "not finite on lax"
    return ParameterRow(name, leaf.shape, str(leaf.dtype), largest, difference, our_error, lax_error, verdict)
