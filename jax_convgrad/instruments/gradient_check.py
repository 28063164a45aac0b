"""``check_gradients``: a function's gradients against finite differences, and against ``lax``'s own."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jax_convgrad.instruments.checked_function import parts_of
from jax_convgrad.instruments.gradient_report import GradientReport, GradientRow
from jax_convgrad.instruments.point_check import PointCheck


def check_gradients(
    f: Callable[..., Any],
    *args: Any,
    eps: float | None = None,
    order: int = 1,
    argnums: int | Sequence[int] | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    most_entries: int = 256,
    seed: int = 0,
    raise_on_error: bool = False,
) -> GradientReport:
    """Is this gradient right? ``jax.grad`` of ``f`` at ``args`` against finite differences, entry by entry.

    ```python
    import jax
    import jax.numpy as jnp
    from jax_convgrad import check_gradients, conv

    x, w = jax.random.normal(jax.random.key(0), (1, 8, 3)), jnp.ones((5, 3, 2))
    report = check_gradients(lambda x, w: jnp.tanh(conv(x, w)).sum(), x, w)
    print(report)
    assert report.ok
    ```

    **What is compared.** With all outputs y of f and fixed weights c, the gradient of g = Re Σ c·y, as
    ``jax.vjp`` gives it, against four-point differences of g (finite_differences.py has formula, step and
    source). A single real output has c = 1; otherwise c are random numbers of 0.5 to 1.5 in size. The
    gradient is taken in the dtypes that args have. The differences run in float64, whether x64 is on or not,
    if f takes its arguments so and computes in it; else in float32, or in their own dtypes. The report says
    which, and why: float64 differences of a float32 function see errors from some 1e-6 of the gradient on,
    float32 ones of 1e-4, and of 1e-2 where there are many kinks. All is multiplied at precision "highest",
    where f leaves that open.

    Where f contains convolutions or poolings of this package, anywhere inside, every entry is also compared
    with ``lax``'s own gradient of the same function on ``lax``'s own operations, and an array's largest
    disagreements are differenced. (Not under ``install()``, where ``lax``'s would be these kernels too.)

    **Step.** (eps of the dtype)^(1/4) times an entry's size, and where that disagrees with the gradient,
    smaller ones. So a kink beside an entry (a relu that turns on, a maximum that changes place) is no error.
    On a kink, any value between the derivatives to both sides passes, and is counted; on several at once,
    any from about the range that the gradient has where the arguments are moved off them by an eps.

    **Tolerance**, for a gradient's entry v with expected value e: ``atol + rtol·|e|`` + 6·noise/step, with
    rtol = 8·eps and atol = 8·eps·(max|v| + ‖c·y‖/‖x‖) + 4·unrest, where eps is the largest of all dtypes that
    the gradient is computed in, the maximum is over the array x, and ‖c·y‖/‖x‖ is the size of gradients that
    the values of f let expect. The unrest is the most by which an entry of the array's gradient moves where
    all arguments are multiplied by 1 ± eps, in three draws: it tells of terms that cancel inside. (Moves of
    over √eps of those sizes are jumps, and left out.) The last term is that of the differences themselves,
    for the noise measured in g's values. An entry beyond that is let pass as a kink, too, where the gradient
    in the differences' dtype is right and jumps as far when the arguments are changed by eps: rounding has
    put a relu on its other side.

    **Large arrays.** Up to ``most_entries`` entries each is differenced. Of a larger array, a quarter as
    many, drawn at random with the largest among them; and the whole array along 4 random directions, in which
    every entry has part: an error anywhere is noticed if it exceeds the tolerance of the direction. It is
    then looked for by halving the array, so that its place is named too.

    Args:
      f: a function that ``jax.jit`` can trace. It returns arrays, any tree of them, at least one of a
        floating or complex dtype; others are left out.
      *args: where to check: arrays, or trees of them. Leaves that have no gradient, integers say, stay as
        they are, and are told in the report; so are leaves that are no arrays.
      eps: the step of the differences, in the arguments' own units; None for the one above.
      order: the highest order to check. 2 checks the gradient and the gradient of its random projection,
        reverse over reverse; 3 that one's; and so on.
      argnums: which of args to differentiate; None for all.
      rtol: in place of the one above; relative to the expected value.
      atol: in place of the one above.
      most_entries: up to how many entries of an array are each differenced. Each costs four to sixteen
        evaluations of f.
      seed: of the random weights, entries and directions: the same seed, the same check.
      raise_on_error: whether to raise where the report is not ok.

    Returns:
      A ``GradientReport``: ``ok``, ``rows``, ``raise_if_wrong()``; printed, it is a table.

    Raises:
      GradientError: ``raise_on_error`` and the report is not ok.
      TypeError: f returns nothing that has a gradient, args hold nothing, or a number is none.
      ValueError: ``order``, ``argnums`` or a tolerance is out of range.
    """
    if not callable(f):
        raise TypeError(f"f must be a function, not {type(f).__name__}")
    _check_numbers(eps=eps, rtol=rtol, atol=atol)
    order = _at_least("order", order, 1)
    most_entries, seed = _at_least("most_entries", most_entries, 1), _at_least("seed", seed, 0)
    parts = parts_of(f, args, _chosen(argnums, len(args)))
    if not parts.leaves:
        raise TypeError("args should hold at least one array of a floating or complex dtype to differentiate")

    rows, notes, reference = [], [], ""
    functions = parts.function, parts.wide_function
    for level in range(1, order + 1):
        rng = np.random.default_rng((seed, level))
        check = PointCheck(functions, parts.leaves, parts.names, level, eps, rtol, atol, most_entries, rng)
        reference = reference or check.reference
        rows += check.rows()
        notes += check.notes
        if not all(row.ok for row in rows):
            if level < order:
                notes.append(f"order {level + 1} builds on order {level}, and was not checked")
            break
        functions = check.gradient_functions
    rows += [_row_of_other(name, leaf) for name, leaf in parts.others]
    report = GradientReport(tuple(rows), reference, tuple(dict.fromkeys(notes)))
    if raise_on_error:
        report.raise_if_wrong()
    return report


def _check_numbers(**numbers: float | None) -> None:
    for name, number in numbers.items():
        if number is None:
            continue
        if isinstance(number, bool) or not isinstance(number, int | float | np.number):
            raise TypeError(f"{name} must be a number or None, not {number!r}")
        if not np.isfinite(number) or number < 0 or (name == "eps" and number == 0):
            raise ValueError(f"{name} must be {'positive' if name == 'eps' else 'at least 0'}, not {number}")


def _at_least(name: str, value: Any, least: int) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, not {value!r}") from None
    if isinstance(value, bool) or number < least:
        raise ValueError(f"{name} must be at least {least}, not {value}")
    return number


def _chosen(argnums: int | Sequence[int] | None, count: int) -> tuple[int, ...]:
    if argnums is None:
        return tuple(range(count))
    try:
        numbers = (argnums,) if isinstance(argnums, int) else tuple(operator.index(n) for n in argnums)
    except TypeError:
        raise TypeError(f"argnums must be an integer, integers or None, not {argnums!r}") from None
    if not all(-count <= n < count for n in numbers):
        raise ValueError(f"argnums must be of the {count} arguments given, but is {argnums!r}")
    return tuple(n % count for n in numbers)


def _row_of_other(name: str, leaf: Any) -> GradientRow:
    """The result for a leaf that has no gradient."""
    dtype = str(leaf.dtype) if hasattr(leaf, "dtype") else type(leaf).__name__
    return GradientRow(name, 1, tuple(getattr(leaf, "shape", ())), dtype, "skipped")
