"""``check_gradients``: a function's gradients against finite differences, and against ``lax``'s own."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jax_convgrad.instruments.arguments import at_least
from jax_convgrad.instruments.checked_function import CheckedFunction, Settings
from jax_convgrad.instruments.gradient_report import GradientReport, GradientRow
from jax_convgrad.instruments.leaves import call_of


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
    """Compares ``jax.grad`` of ``f`` at ``args`` with finite differences, entry by entry.

    ```python
    import jax
    import jax.numpy as jnp
    from jax_convgrad import check_gradients, conv

    x, w = jax.random.normal(jax.random.key(0), (1, 8, 3)), jnp.ones((5, 3, 2))
    report = check_gradients(lambda x, w: jnp.tanh(conv(x, w)).sum(), x, w)
    print(report)
    assert report.ok
    ```

    docs/checking.md describes the method; in short:

    * With all outputs y of f and fixed random weights c, the check compares the gradient of g = Re Σ c·y that
      ``jax.vjp`` gives, in the dtypes of args, with four-point differences of g (finite_differences.py has
      formula, step and source). These run in float64 if f takes it, whether x64 is on or not; else in f's own
      dtype. The report says which, and why. Products run at precision "highest" unless f sets another.
    * If f contains convolutions or poolings of this package, every entry is also compared with ``lax``'s own
      gradient of the same function (not under ``install()``, where ``lax``'s would be these kernels too).
    * On a kink, such as relu's at 0, any value between the derivatives to both sides passes, and is counted.
    * The tolerance of an entry with expected value e is ``atol + rtol·|e|`` + 6·noise/step, where the noise
      is measured in g's values. By default rtol = 8·eps and atol = 8·eps·(max|v| + ‖c·y‖/‖x‖) + 4·unrest. The
      eps is the largest of all dtypes that the gradient is computed in, the maximum is over the array's
      gradient v, and the unrest is the most that an entry of v moves if all arguments are multiplied by
      1 ± eps.
    * An array of more than ``most_entries`` entries is sampled, and differenced as a whole along 4 random
      directions; if one of these is wrong, halving the array finds the entry.

    Args:
      f: a function that ``jax.jit`` can trace. It returns arrays, any tree of them, at least one of a
        floating or complex dtype; others are left out.
      *args: where to check: arrays, or trees of them. Leaves that have no gradient, such as integers and
        what is no array, stay as they are, and the report names them.
      eps: the step of the differences, in the arguments' own units; None for the one above.
      order: the highest order to check. 2 checks the gradient and the gradient of its random projection,
        reverse over reverse; 3 also the gradient of that one's projection; and so on.
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
      GradientError: ``raise_on_error`` is set and the report is not ok.
      TypeError: f returns nothing that has a gradient, args hold nothing that has one, or an argument that
        should be a number is not.
      ValueError: ``order``, ``argnums`` or a tolerance is out of range.
    """
    if not callable(f):
        raise TypeError(f"f must be a function, not {type(f).__name__}")
    _check_numbers(eps=eps, rtol=rtol, atol=atol)
    order = at_least("order", order, 1)
    most_entries, seed = at_least("most_entries", most_entries, 1), at_least("seed", seed, 0)
    settings = Settings(eps, rtol, atol, most_entries)
    call = call_of(f, args, _chosen(argnums, len(args)))
    if not call.leaves:
        raise TypeError("args should hold at least one array of a floating or complex dtype to differentiate")

    rows: list[GradientRow] = []
    notes: list[str] = []
    reference = ""
    functions = call.function, call.wide_function
    for level in range(1, order + 1):
        rng = np.random.default_rng((seed, level))
        checked = CheckedFunction(functions, call.leaves, call.names, level, settings, rng)
        reference = reference or checked.reference
        rows += checked.rows()
        notes += checked.notes
        if not all(row.ok for row in rows):
            if level < order:
                notes.append(f"order {level + 1} builds on order {level}, and was not checked")
            break
        functions = checked.gradients
    for name, leaf in call.others:
        dtype = str(getattr(leaf, "dtype", type(leaf).__name__))
        rows.append(GradientRow(name, 1, tuple(getattr(leaf, "shape", ())), dtype, "skipped"))
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
