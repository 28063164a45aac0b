"""One function's gradient at one point, array by array: what ``check_gradients`` does for each order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jax_convgrad.instruments.checked_function import (
    Leaves,
    ListFunction,
    distance,
    gradient_of,
    norm,
    random_weights,
    wide_arrays,
    widened,
)
from jax_convgrad.instruments.finite_differences import Differences, rounding_of, wide
from jax_convgrad.instruments.gradient_report import GradientRow
from jax_convgrad.instruments.lax_forms import has_kernels, on_lax
from jax_convgrad.instruments.rounding_moves import are_jumps, unrest_of
from jax_convgrad.replace.installation import is_installed

DIRECTIONS = 4
"""Random directions along which an array that is too large to difference each entry is checked as a whole."""

ROUNDINGS = 8
"""How many eps of the largest entry a gradient may be off by."""

UNREST = 4
"""How many times as far as it moves where its arguments are moved by an eps a gradient may be off."""


class PointCheck:
    """One order's check: the gradient of one function at one point.

    ``functions`` are the function, and the same for leaves that are widened.
    """

    def __init__(
        self,
        functions: tuple[ListFunction, ListFunction],
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
        function = functions[0]
        outputs = jax.eval_shape(function, leaves)
        if not outputs:
            raise TypeError("f should return at least one array of a floating or complex dtype")
        weights = random_weights(outputs, rng)
        self.gradient_functions = gradient_of(function, weights), gradient_of(functions[1], weights)
        self._found = self._gradient(self.gradient_functions[0], leaves)
        self._rounding = rounding_of(jax.make_jaxpr(self.gradient_functions[0])(leaves))
        self._x64, self._reference, is_wide = self._reference_point(functions, outputs)
        self._reference_gradient = self.gradient_functions[is_wide]
        self._by_lax: list[np.ndarray] | None = None
        with jax.enable_x64(self._x64):
            kernels = has_kernels(self._reference_gradient, self._reference)
            if kernels and is_installed():
                self.notes.append(
                    "not compared with lax's own gradient: under install() it is these kernels', too"
                )
            elif kernels:
                self._by_lax = self._gradient(on_lax(self._reference_gradient), self._reference)
            self._differences = Differences(functions[is_wide], self._reference, weights, eps, rng)
            values = wide_arrays(self._differences.values)
        self._size_of_values = norm([c * y for c, y in zip(weights, values, strict=True)])
        self._has_finite_values = all(np.isfinite(y).all() for y in values)
        self._unrest = self._measured_unrest() if atol is None else [0.0] * len(leaves)
        self.reference = f"finite differences in {self._dtypes()}"
        if self._by_lax is not None:
            self.reference += " and by lax's own gradient"

    @staticmethod
    def _gradient(function: ListFunction, leaves: Leaves) -> list[np.ndarray]:
        with jax.default_matmul_precision("highest"):
            return wide_arrays(jax.jit(function)(leaves))

    def _dtypes(self) -> str:
        """Those of the differences."""
        given = [leaf.dtype for leaf in self._reference]
        rounding = self._differences.rounding
        if rounding <= max(float(jnp.finfo(dtype).eps) for dtype in given):
            return ", ".join(dict.fromkeys(map(str, given)))
        self.notes.append(f"whatever it is given, f computes in a dtype with eps {rounding:.2g}")
        return next(
            (name for name in ("float32", "float16", "bfloat16") if jnp.finfo(name).eps == rounding),
            f"a dtype with eps {rounding:.2g}",
        )

    def _scale(self, k: int) -> float:
        """The size of gradients of leaf k: those found, and what the values of f let expect."""
        largest = float(np.max(np.abs(self._found[k]), initial=0.0))
        size = norm([np.asarray(self._reference[k])]) or float(np.sqrt(self._leaves[k].size)) or 1.0
        return largest + self._size_of_values / size

    def _measured_unrest(self) -> list[float]:
        # A move of more than √eps is a kink's, and no reason to let pass all entries of the array.
        jumps = [self._rounding**0.5 * self._scale(k) for k in range(len(self._leaves))]
        gradient = partial(self._gradient, self.gradient_functions[0])
        return unrest_of(gradient, self._leaves, self._found, self._rounding, 3, jumps)

    def _reference_point(
        self, functions: tuple[ListFunction, ListFunction], outputs: Sequence[Any]
    ) -> tuple[bool, list[jax.Array], bool]:
        """Whether to turn x64 on, the point in the widest dtypes in which f is the same, whether widened."""
        x64 = wide(np.dtype(float)) == np.float64
        values = wide_arrays(jax.jit(functions[0])(self._leaves))
        for on in (True,) if x64 else (True, False):
            with jax.enable_x64(on):
                leaves = widened(self._leaves)
                name = str(np.dtype(wide(np.dtype(float))))
                try:
                    there = wide_arrays(jax.jit(functions[1])(leaves))
                except Exception as error:  # whatever f raises where it is given another dtype
                    reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
                    self.notes.append(
                        f"f does not take its arguments in {name}: {reason}; "
                        "arrays that it closes over can be handed over as arguments"
                    )
                    continue
            if [y.shape for y in there] != [y.shape for y in outputs]:
                self.notes.append(f"f returns other shapes where its arguments are {name}")
                continue
            # Not <=, which NaN would fail: that is told of later.
            if distance(there, values) > norm(values) * self._rounding**0.5:
                self.notes.append(
                    f"f has other values in {name} "
                    "(do its random numbers depend on the dtype, as in dropout?)"
                )
                continue
            return on, leaves, True
        return x64, list(self._leaves), False

    def _are_jumps(
        self, k: int, places: np.ndarray, expected: np.ndarray, tolerance: np.ndarray
    ) -> np.ndarray:
        def entries(leaves: Leaves) -> np.ndarray:
            return self._gradient(self._reference_gradient, leaves)[k].reshape(-1)[places]

        found = self._found[k].reshape(-1)[places]
        return are_jumps(entries, self._reference, self._rounding, self._rng, found, expected, tolerance)

    # ------------------------------------------------------------------------------------------ one array

    def rows(self) -> list[GradientRow]:
        """One for each array."""
        with jax.enable_x64(self._x64):
            return [self._row(k) for k in range(len(self._leaves))]

    def _row(self, k: int) -> GradientRow:
        leaf, found = self._leaves[k], self._found[k].reshape(-1)
        row = GradientRow(self._names[k], self._order, leaf.shape, str(leaf.dtype), "ok")
        if leaf.size == 0:
            return replace(row, note="empty, so there is nothing to check")
        if not self._has_finite_values:
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
            atol = ROUNDINGS * self._rounding * self._scale(k) + UNREST * self._unrest[k]
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
            is_kink |= (error > tolerance) & self._are_jumps(k, places, difference.expected, tolerance)
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
            located = self._located(k, direction, row) if excess > 1 else None
            if located is not None:
                return located
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

    def _located(self, k: int, direction: np.ndarray, row: GradientRow) -> GradientRow | None:
        """The row with a wrong entry, which is in that half of the entries whose direction is wrong too.

        None where there is no such entry: one as wrong as the direction would have shown in every part that
        it is in, so that was noise.
        """
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
        return None

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
