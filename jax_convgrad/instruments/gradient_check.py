"""``check_gradients``: a function's gradients against finite differences, and against ``lax``'s own."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from jax_convgrad.instruments.checked_function import (
    Leaves,
    ListFunction,
    gradient_of,
    parts_of,
    random_weights,
    widened,
)
from jax_convgrad.instruments.finite_differences import Difference, Differences, rounding_of, wide
from jax_convgrad.instruments.gradient_report import GradientReport, GradientRow
from jax_convgrad.instruments.lax_forms import has_kernels, on_lax

DIRECTIONS = 4
"""Random directions along which an array that is too large to difference each entry is checked as a whole."""

ROUNDINGS = 8
"""How many eps of the largest entry a gradient may be off by."""


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

        print(check_gradients(loss, params, images))

    **What is compared.** With all outputs y of f and fixed weights c, the gradient of g = Re Σ c·y, as
    ``jax.vjp`` gives it, against four-point differences of g (finite_differences.py has formula, step and
    source). A single real output has c = 1; otherwise c are random numbers of 0.5 to 1.5 in size. The
    gradient is taken in the dtypes that args have. The differences run in float64 where x64 is on
    (``jax.config.update("jax_enable_x64", True)``), else in float32, if f takes its arguments so; else in
    their own dtypes. Turn x64 on where you can: float32 differences of a float32 function see errors from
    some 1e-4 of the gradient on, float64 ones of 1e-6. All is multiplied at precision "highest", where f
    leaves that open.

    Where f contains convolutions or poolings of this package, anywhere inside, every entry is also compared
    with ``lax``'s own gradient of the same function on ``lax``'s own operations, and an array's largest
    disagreements are differenced.

    **Step.** (eps of the dtype)^(1/4) times an entry's size, and where that disagrees with the gradient,
    smaller ones. So a kink beside an entry (a relu that turns on, a maximum that changes place) is no error.
    On a kink, any value between the derivatives to both sides passes, and is counted.

    **Tolerance**, for a gradient's entry v with expected value e: ``atol + rtol·|e|`` + 6·noise/step, with

        rtol = 8·eps,    atol = 8·eps·(max|v| + ‖c·y‖/‖x‖)

    where eps is the largest of all dtypes that the gradient is computed in, the maximum is over the array x,
    and ‖c·y‖/‖x‖ is the size of gradients that the values of f let expect, for where they cancel. The last
    term is that of the differences themselves, for the noise measured in g's values. An entry beyond that is
    let pass as a kink, too, where the gradient in the differences' dtype is right and jumps as far when the
    arguments are changed by eps: rounding has put a relu on its other side.

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
    function = parts.function
    for level in range(1, order + 1):
        rng = np.random.default_rng((seed, level))
        check = _Check(function, parts.leaves, parts.names, level, eps, rtol, atol, most_entries, rng)
        reference = reference or check.reference
        rows += check.rows()
        notes += check.notes
        if not all(row.ok for row in rows):
            if level < order:
                notes.append(f"order {level + 1} builds on order {level}, and was not checked")
            break
        function = check.gradient_function
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
    """Of a leaf that has no gradient."""
    dtype = str(leaf.dtype) if hasattr(leaf, "dtype") else type(leaf).__name__
    return GradientRow(name, 1, tuple(getattr(leaf, "shape", ())), dtype, "skipped")


class _Check:
    """One order's check: the gradient of one function at one point."""

    def __init__(
        self,
        function: ListFunction,
        leaves: Leaves,
        names: Sequence[str],
        order: int,
        eps: float | None,
        rtol: float | None,
        atol: float | None,
        most_entries: int,
        rng: np.random.Generator,
    ) -> None:
        self._leaves, self._names, self._order = leaves, names, order
        self._rtol, self._atol, self._most_entries = rtol, atol, most_entries
        self._rng = rng
        self.notes: list[str] = []
        outputs = jax.eval_shape(function, leaves)
        if not outputs:
            raise TypeError("f should return at least one array of a floating or complex dtype")
        weights = random_weights(outputs, rng)
        self.gradient_function = gradient_of(function, weights)
        self._found = self._gradient(self.gradient_function, leaves)
        self._rounding = rounding_of(jax.make_jaxpr(self.gradient_function)(leaves))
        reference = self._reference_leaves(function, outputs)
        self._by_lax: list[np.ndarray] | None = None
        if has_kernels(self.gradient_function, leaves):
            self._by_lax = self._gradient(on_lax(self.gradient_function), reference)
        self._reference = reference
        self._differences = Differences(function, reference, weights, eps, rng)
        self._size_of_values = _norm(
            [
                c * np.asarray(y.astype(wide(y.dtype)))
                for c, y in zip(weights, self._differences.values, strict=True)
            ]
        )
        dtypes = ", ".join(dict.fromkeys(str(leaf.dtype) for leaf in reference))
        self.reference = f"finite differences in {dtypes}"
        if self._by_lax is not None:
            self.reference += " and by lax's own gradient"
        if wide(np.dtype(float)) != np.float64:
            self.notes.append(
                "x64 is off, so the differences are float32's, and coarse: "
                'jax.config.update("jax_enable_x64", True) before any array is made gives those of float64'
            )

    @staticmethod
    def _gradient(function: ListFunction, leaves: Leaves) -> list[np.ndarray]:
        with jax.default_matmul_precision("highest"):
            return [np.asarray(v.astype(wide(v.dtype))) for v in jax.jit(function)(leaves)]

    def _reference_leaves(self, function: ListFunction, outputs: Sequence[Any]) -> list[jax.Array]:
        """The point in wide dtypes, if f takes them and gives what it gave."""
        leaves = widened(self._leaves)
        try:
            wide_outputs = jax.eval_shape(function, leaves)
        except Exception as error:  # whatever f raises where it is given another dtype
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            self.notes.append(f"f does not take its arguments in {leaves[0].dtype}: {reason}")
            return list(self._leaves)
        if [y.shape for y in wide_outputs] != [y.shape for y in outputs]:
            self.notes.append(f"f returns other shapes where its arguments are {leaves[0].dtype}")
            return list(self._leaves)
        return leaves

    def _is_jump(
        self, k: int, places: np.ndarray, difference: Difference, tolerance: np.ndarray
    ) -> np.ndarray:
        """Where the gradient in the reference's dtype is right, and jumps when arguments change by an eps."""
        right = self._gradient(self.gradient_function, self._reference)[k].reshape(-1)[places]
        jump = np.zeros(len(places))
        for _ in range(4):
            moved = [
                leaf * (1 + self._rounding * self._rng.choice([-1.0, 1.0], leaf.shape)).astype(leaf.dtype)
                for leaf in self._reference
            ]
            there = self._gradient(self.gradient_function, moved)[k].reshape(-1)[places]
            jump = np.fmax(jump, np.abs(there - right))
        found = self._found[k].reshape(-1)[places]
        return (np.abs(right - difference.expected) <= tolerance) & (np.abs(found - right) <= 2 * jump)

    # ------------------------------------------------------------------------------------------ one array

    def rows(self) -> list[GradientRow]:
        """One for each array."""
        return [self._row(k) for k in range(len(self._leaves))]

    def _row(self, k: int) -> GradientRow:
        leaf, found = self._leaves[k], self._found[k].reshape(-1)
        row = GradientRow(self._names[k], self._order, leaf.shape, str(leaf.dtype), "ok")
        if leaf.size == 0:
            return replace(row, note="empty, so there is nothing to check")
        if not all(np.isfinite(np.asarray(y.astype(wide(y.dtype)))).all() for y in self._differences.values):
            return replace(row, verdict="not finite", note="a value of f itself is not finite")
        if not np.isfinite(found).all():
            place = int(np.flatnonzero(~np.isfinite(found))[0])
            count = int(np.count_nonzero(~np.isfinite(found)))
            note = f"{count} of {found.size} entries of the gradient are not finite, the first at "
            return replace(row, verdict="not finite", note=note + f"{list(self._index(k, place))}")

        places, lax_error = self._places(k, found)
        row = self._of_entries(k, places, row)
        if row.verdict == "ok" and len(places) < leaf.size:
            row = self._of_directions(k, row)
        if lax_error is None:
            return row
        return self._beside_lax(k, replace(row, lax_error=float(lax_error.max())), lax_error)

    def _index(self, k: int, place: int) -> tuple[int, ...]:
        return tuple(int(i) for i in np.unravel_index(place, self._leaves[k].shape))

    def _allowed(self, k: int, expected: Any) -> np.ndarray:
        """How far an entry may be off by the gradient's own rounding."""
        rtol = ROUNDINGS * self._rounding if self._rtol is None else self._rtol
        atol = self._atol
        if atol is None:
            largest = float(np.max(np.abs(self._found[k])))
            size = _norm([np.asarray(self._reference[k])]) or np.sqrt(self._leaves[k].size)
            atol = ROUNDINGS * self._rounding * (largest + self._size_of_values / size)
        return atol + rtol * np.abs(expected)

    def _places(self, k: int, found: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """The entries to difference, and all entries' distances from ``lax``'s gradient."""
        distances = None if self._by_lax is None else np.abs(found - self._by_lax[k].reshape(-1))
        if found.size <= self._most_entries:
            return np.arange(found.size), distances
        count = max(1, self._most_entries // 4)
        largest = np.argsort(-np.abs(found))[:1]
        chosen = [self._rng.choice(found.size, count, replace=False), largest]
        if distances is not None:
            chosen.append(np.argsort(-distances)[:count])
        return np.unique(np.concatenate(chosen)), distances

    def _of_entries(self, k: int, places: np.ndarray, row: GradientRow) -> GradientRow:
        """The row with its entries compared, and the numbers of the one whose tolerance is used up most."""
        found = self._found[k].reshape(-1)[places]
        difference = self._differences.of_entries(k, places, found, lambda e: self._allowed(k, e))
        error = np.abs(found - difference.expected)
        tolerance = self._allowed(k, difference.expected) + difference.noise
        is_kink = difference.is_kink
        if (error > tolerance)[~is_kink].any():
            is_kink |= (error > tolerance) & self._is_jump(k, places, difference, tolerance)
        self._kinks = set(places[is_kink].tolist())
        row = replace(row, entries=len(places), kinks=int(is_kink.sum()))
        if np.isnan(error[~is_kink]).any():
            at = int(places[np.flatnonzero(np.isnan(error))[0]])
            note = f"f is not finite within a step of {list(self._index(k, at))}"
            return replace(row, verdict="not finite", entries=0, note=note)
        share = np.where(is_kink, -1, error / np.where(tolerance > 0, tolerance, 1e-300))
        worst, wrong = int(np.argmax(share)), int(np.count_nonzero(share > 1))
        # On a kink the differences are no derivatives, and may be any size.
        largest = float(np.max(np.abs(np.where(is_kink, found, difference.expected))))
        return replace(
            row,
            verdict="WRONG" if wrong else "ok",
            error=float(error[worst]),
            relative_error=float(error[worst]) / largest if largest else 0.0,
            index=self._index(k, int(places[worst])),
            found=found[worst].item(),
            expected=difference.expected[worst].item(),
            tolerance=float(tolerance[worst]),
            note=f"{wrong} of {len(places)} entries are beyond their tolerance" if wrong else "",
        )

    # --------------------------------------------------------------------------------- an array as a whole

    def _of_directions(self, k: int, row: GradientRow) -> GradientRow:
        """The row of a large array, after a look along directions in which every entry has part."""
        shape = self._leaves[k].shape
        for _ in range(DIRECTIONS):
            direction = self._rng.choice([-1.0, 1.0], shape)
            if np.iscomplexobj(self._found[k]):
                direction = direction + 1j * self._rng.choice([-1.0, 1.0], shape)
            excess = self._excess(k, direction)
            if excess > 1:
                return self._located(k, direction, row)
        return replace(row, directions=DIRECTIONS)

    def _excess(self, k: int, direction: np.ndarray) -> float:
        """The error of the gradient along a direction, over its tolerance."""
        found = self._found[k]
        expected, off = self._differences.along(k, direction)
        # The roundings of the entries are independent, and add up as such.
        own = np.where(direction != 0, self._allowed(k, found), 0)
        allowed = float(np.sqrt(np.sum(own**2))) + off
        error = abs(float(np.sum(np.real(found * direction))) - expected)
        return error / allowed if np.isfinite(error) and np.isfinite(allowed) else 0.0

    def _located(self, k: int, direction: np.ndarray, row: GradientRow) -> GradientRow:
        """The row with a wrong entry, which is in that half of the entries whose direction is wrong too."""
        low, high = 0, direction.size
        while high - low > 1:
            middle = (low + high) // 2
            halves = {}
            for part in ((low, middle), (middle, high)):
                masked = np.zeros(direction.size, direction.dtype)
                masked[slice(*part)] = direction.reshape(-1)[slice(*part)]
                halves[part] = self._excess(k, masked.reshape(direction.shape))
            low, high = max(halves, key=lambda part: halves[part])
            if halves[low, high] <= 1:
                break
        else:
            confirmed = self._of_entries(k, np.array([low]), row)
            if confirmed.verdict == "WRONG":
                note = "found along a random direction; there may be more"
                return replace(confirmed, directions=DIRECTIONS, entries=row.entries + 1, note=note)
        # An entry as wrong as the direction would have shown in every part that it is in. So this was noise.
        return replace(row, directions=DIRECTIONS)

    def _beside_lax(self, k: int, row: GradientRow, distances: np.ndarray) -> GradientRow:
        """The row after a look at where ``lax``'s own gradient is further off than both may be rounded."""
        assert self._by_lax is not None
        by_lax = self._by_lax[k].reshape(-1)
        beyond = np.flatnonzero(distances > 2 * self._allowed(k, by_lax))
        if row.verdict != "ok" or not beyond.size:
            return row
        place = int(beyond[np.argmax(distances[beyond])])
        if place in self._kinks:
            return row
        found, expected = self._found[k].reshape(-1)[place], by_lax[place]
        return replace(
            row,
            verdict="WRONG",
            error=float(distances[place]),
            relative_error=float(distances[place] / (np.max(np.abs(by_lax)) or 1)),
            index=self._index(k, place),
            found=found.item(),
            expected=expected.item(),
            tolerance=float(2 * self._allowed(k, expected)),
            note=f"lax's own gradient differs in {beyond.size} entries, by less than differences can tell",
        )


def _norm(arrays: Sequence[np.ndarray]) -> float:
    """That of all entries together."""
    return float(np.sqrt(sum(float(np.sum(np.abs(array) ** 2)) for array in arrays)))
