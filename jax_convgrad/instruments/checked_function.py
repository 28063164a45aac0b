"""One function at one point: its gradient, what the gradient should be, and how far it may be off.

Read ``CheckedFunction`` from top to bottom: first it computes the gradient, then finds the dtype in which to
difference the function; ``rows`` compares each array with finite differences, entry by entry, then a large
one along directions, then all entries with ``lax``'s own gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jax_convgrad.instruments.finite_differences import Differences
from jax_convgrad.instruments.gradient_report import GradientRow
from jax_convgrad.instruments.leaves import (
    Leaves,
    ListFunction,
    are_jumps,
    computed,
    first_line,
    gradient_of,
    norm,
    random_weights,
    rounding_of,
    unrest_of,
    wide,
    wide_arrays,
    widened,
)
from jax_convgrad.instruments.on_lax import has_kernels, on_lax
from jax_convgrad.replace.installation import is_installed

DIRECTIONS = 4
"""Random directions along which an array with too many entries is checked as a whole."""

ULPS = 8
"""A gradient may be off by this many ulps of its largest entry, each of them eps times the entry."""

UNREST = 4
"""A gradient may be off by this many times its move when its arguments move by an eps."""


class Settings(NamedTuple):
    """The settings of ``check_gradients``; None leaves a step or tolerance to the check."""

    eps: float | None
    rtol: float | None
    atol: float | None
    most_entries: int


class CheckedFunction:
    """The gradient of one function at one point, with everything that it is compared with.

    Args:
      functions: the function of the leaves, and the same function for widened leaves.
      leaves: the point.
      names: the names of the leaves.
      order: 1 for the gradient of f, 2 for that of its gradient, and so on.
      settings: step, tolerances and size.
      rng: for weights, entries and directions.

    Attributes:
      notes: what a report should say besides its rows.
      reference: what the gradient is compared with, in words.
    """

    def __init__(
        self,
        functions: tuple[ListFunction, ListFunction],
        leaves: Leaves,
        names: Sequence[str],
        order: int,
        settings: Settings,
        rng: np.random.Generator,
    ) -> None:
        self.notes: list[str] = []
        self._functions, self._leaves, self._names, self._order = functions, leaves, names, order
        self._settings, self._rng = settings, rng
        outputs = jax.eval_shape(functions[0], leaves)
        if not outputs:
            raise TypeError("f should return at least one array of a floating or complex dtype")
        weights = random_weights(outputs, rng)
        self.gradients = gradient_of(functions[0], weights), gradient_of(functions[1], weights)
        """The gradient as functions of the leaves and of widened leaves, which the next order checks."""
        self._found = computed(self.gradients[0], leaves)
        self._rounding = rounding_of(jax.make_jaxpr(self.gradients[0])(leaves))

        self._x64, self._point, is_wide = self._reference_point([y.shape for y in outputs])
        self._gradient_there = self.gradients[is_wide]
        with jax.enable_x64(self._x64):
            self._by_lax = self._gradient_by_lax()
            self._differences = Differences(functions[is_wide], self._point, weights, settings.eps, rng)
            self._is_finite = all(np.isfinite(y).all() for y in wide_arrays(self._differences.values))
        self._unrest = self._measured_unrest()
        self.reference = f"finite differences in {self._dtypes()}"
        if self._by_lax is not None:
            self.reference += " and by lax's own gradient"

    # ------------------------------------------------------------------- what the gradient is compared with

    def _reference_point(self, shapes: Sequence[tuple[int, ...]]) -> tuple[bool, Leaves, bool]:
        """The point in the widest dtypes in which f is the same function.

        Returns:
          Whether to turn x64 on, the point, and whether it is widened.
        """
        x64 = wide(np.dtype(float)) == np.float64
        values = wide_arrays(jax.jit(self._functions[0])(self._leaves))
        for on in (True,) if x64 else (True, False):
            with jax.enable_x64(on):
                leaves = widened(self._leaves)
                name = str(np.dtype(wide(np.dtype(float))))
                try:
                    there = wide_arrays(jax.jit(self._functions[1])(leaves))
                except Exception as error:  # whatever f raises if it is given another dtype
                    self.notes.append(
                        f"f does not take its arguments in {name}: {first_line(error)}; "
                        "arrays that it closes over can be handed over as arguments"
                    )
                    continue
            if [y.shape for y in there] != shapes:
                self.notes.append(f"f returns other shapes where its arguments are {name}")
                continue
            with np.errstate(invalid="ignore"):  # of infinities
                distance = norm([a - b for a, b in zip(there, values, strict=True)])
            # Not <=, which is false for NaN: the rows report that later.
            if distance > norm(values) * self._rounding**0.5:
                self.notes.append(
                    f"f has other values in {name} "
                    "(do its random numbers depend on the dtype, as in dropout?)"
                )
                continue
            return on, leaves, True
        return x64, self._leaves, False

    def _gradient_by_lax(self) -> list[np.ndarray] | None:
        """None if the gradient has nothing of this package in it, or if lax's would be the same."""
        if not has_kernels(self._gradient_there, self._point):
            return None
        if is_installed():
            self.notes.append(
                "not compared with lax's own gradient: under install() it is these kernels', too"
            )
            return None
        return computed(on_lax(self._gradient_there), self._point)

    def _dtypes(self) -> str:
        """The dtypes of the differences."""
        given = [leaf.dtype for leaf in self._point]
        rounding = self._differences.rounding
        if rounding <= max(float(jnp.finfo(dtype).eps) for dtype in given):
            return ", ".join(dict.fromkeys(map(str, given)))
        self.notes.append(f"whatever it is given, f computes in a dtype with eps {rounding:.2g}")
        named = (name for name in ("float32", "float16", "bfloat16") if jnp.finfo(name).eps == rounding)
        return next(named, f"a dtype with eps {rounding:.2g}")

    # ----------------------------------------------------------------------------------------- the tolerance

    def _scale(self, k: int) -> float:
        """The size of gradients of leaf k: of those found, and of what the values of f suggest."""
        largest = float(np.max(np.abs(self._found[k]), initial=0.0))
        size = norm([np.asarray(self._point[k])]) or float(np.sqrt(self._leaves[k].size)) or 1.0
        return largest + self._differences.size_of_values / size

    def _measured_unrest(self) -> list[float]:
        if self._settings.atol is not None:
            return [0.0] * len(self._leaves)
        # A move of more than √eps is a kink's, and no reason to let all entries of the array pass.
        jumps = [self._rounding**0.5 * self._scale(k) for k in range(len(self._leaves))]
        gradient = partial(computed, self.gradients[0])
        return unrest_of(gradient, self._leaves, self._found, self._rounding, 3, jumps)

    def _allowed(self, k: int, expected: Any) -> np.ndarray:
        """Returns how far an entry may be off by the gradient's own rounding."""
        _, rtol, atol, _ = self._settings
        if rtol is None:
            rtol = ULPS * self._rounding
        if atol is None:
            atol = ULPS * self._rounding * self._scale(k) + UNREST * self._unrest[k]
        return atol + rtol * np.abs(expected)

    # ------------------------------------------------------------------------------------------- the compare

    def rows(self) -> list[GradientRow]:
        """The result for each array."""
        with jax.enable_x64(self._x64):
            return [self._row(k) for k in range(len(self._leaves))]

    def _row(self, k: int) -> GradientRow:
        leaf, found = self._leaves[k], self._found[k].reshape(-1)
        row = GradientRow(self._names[k], self._order, leaf.shape, str(leaf.dtype), "ok")
        if leaf.size == 0:
            return replace(row, note="empty, so there is nothing to check")
        if not self._is_finite:
            return replace(row, verdict="not finite", note="a value of f itself is not finite")
        wrong = np.flatnonzero(~np.isfinite(found))
        if wrong.size:
            note = f"{wrong.size} of {found.size} entries of the gradient are not finite, the first at "
            return replace(row, verdict="not finite", note=note + str(list(self._index(k, wrong[0]))))

        distances = None if self._by_lax is None else np.abs(found - self._by_lax[k].reshape(-1))
        places = self._places(found, distances)
        row, kinks = self._by_entries(k, places, row)
        if row.verdict == "ok" and len(places) < leaf.size:
            row = self._by_directions(k, row)
        return row if distances is None else self._beside_lax(k, row, distances, kinks)

    def _index(self, k: int, place: Any) -> tuple[int, ...]:
        return tuple(int(i) for i in np.unravel_index(place, self._leaves[k].shape))

    def _places(self, found: np.ndarray, distances: np.ndarray | None) -> np.ndarray:
        """The entries to difference: all, or a sample with the largest and those furthest from lax's."""
        most = self._settings.most_entries
        if found.size <= most:
            return np.arange(found.size)
        count = max(1, most // 4)
        chosen = [self._rng.choice(found.size, count, replace=False), np.argsort(-np.abs(found))[:1]]
        if distances is not None:
            chosen.append(np.argsort(-distances)[:count])
        return np.unique(np.concatenate(chosen))

    def _by_entries(self, k: int, places: np.ndarray, row: GradientRow) -> tuple[GradientRow, set[int]]:
        """The row with the entry that uses up most of its tolerance, and the places that lie on kinks."""
        found = self._found[k].reshape(-1)[places]

        def gradient(leaves: Leaves) -> np.ndarray:
            return computed(self._gradient_there, leaves)[k].reshape(-1)[places]

        expected, noise, is_kink = self._differences.of_entries(
            k, places, found, lambda expected: self._allowed(k, expected)
        )
        error = np.abs(found - expected)
        tolerance = self._allowed(k, expected) + noise
        if (error > tolerance)[~is_kink].any():
            jumps = are_jumps(gradient, self._point, self._rounding, self._rng, found, expected, tolerance)
            is_kink |= (error > tolerance) & jumps
        kinks = set(places[is_kink].tolist())
        row = replace(row, entries=len(places), kinks=len(kinks))
        if np.isnan(error[~is_kink]).any():
            at = places[np.flatnonzero(np.isnan(error))[0]]
            note = f"f is not finite within a step of {list(self._index(k, at))}"
            return replace(row, verdict="not finite", entries=0, note=note), kinks
        share = np.where(is_kink, -1, error / np.where(tolerance > 0, tolerance, 1e-300))
        wrong = int(np.count_nonzero(share > 1))
        # On a kink the differences are no derivatives, and may be any size.
        largest = np.max(np.abs(np.where(is_kink, found, expected)))
        worst = int(np.argmax(share))
        row = self._with(row, k, places[worst], error[worst], tolerance[worst], expected[worst], largest)
        note = f"{wrong} of {len(places)} entries are beyond their tolerance" if wrong else ""
        return replace(row, verdict="WRONG" if wrong else "ok", note=note), kinks

    def _with(
        self, row: GradientRow, k: int, place: Any, error: Any, tolerance: Any, expected: Any, largest: Any
    ) -> GradientRow:
        """The row with the numbers of one entry; ``largest`` is of the expected entries."""
        return replace(
            row,
            index=self._index(k, place),
            found=self._found[k].reshape(-1)[place].item(),
            expected=expected.item(),
            error=float(error),
            relative_error=float(error / largest) if largest else 0.0,
            tolerance=float(tolerance),
        )

    def _by_directions(self, k: int, row: GradientRow) -> GradientRow:
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

        None if there is no such entry. An entry as wrong as the direction would show in every half that it is
        in, so the direction was wrong by noise.
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
                return None
        confirmed, _ = self._by_entries(k, np.array([low]), row)
        if confirmed.verdict != "WRONG":
            return None
        note = "found along a random direction; there may be more"
        return replace(confirmed, directions=DIRECTIONS, entries=row.entries + 1, note=note)

    def _beside_lax(self, k: int, row: GradientRow, distances: np.ndarray, kinks: set[int]) -> GradientRow:
        """The row, WRONG if ``lax``'s own gradient is further off than both may be rounded."""
        assert self._by_lax is not None
        row = replace(row, lax_error=float(distances.max()))
        by_lax = self._by_lax[k].reshape(-1)
        beyond = np.flatnonzero(distances > 2 * self._allowed(k, by_lax))
        if row.verdict != "ok" or not beyond.size:
            return row
        place = int(beyond[np.argmax(distances[beyond])])
        if place in kinks:
            return row
        tolerance = 2 * self._allowed(k, by_lax[place])
        row = self._with(row, k, place, distances[place], tolerance, by_lax[place], np.max(np.abs(by_lax)))
        note = f"lax's own gradient differs in {beyond.size} entries, by less than differences can tell"
        return replace(row, verdict="WRONG", note=note)
