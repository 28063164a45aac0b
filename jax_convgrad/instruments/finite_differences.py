"""Derivatives of a real function by finite differences, each with how far it can be off.

``g(x) = Re Σ c·f(x)`` is the function: all outputs of f under fixed weights c. Along a direction d the
four-point formula (Fornberg, Mathematics of Computation 51, 1988, table 1, order 4) gives

    g'(x)·d  =  (4·D(h) − D(2h)) / 3,      D(h) = (g(x + h·d) − g(x − h·d)) / 2h

with a truncation error of h⁴·g⁽⁵⁾/30 and a rounding error of about noise/h, noise being that of one value
of g. In units of x's own size the two balance near h = eps^(1/5); h = eps^(1/4) leans to the smaller side,
where a step meets fewer kinks. Because of kinks, differences that disagree with the gradient are made again
with smaller steps: what a relu or a maximum beside x does to a difference goes away with the step, a wrong
gradient stays. If a kink is too close for that, the derivatives to the two sides differ, or D(h) and D(2h)
do: with one kink of height J at a distance t < h, D(h) and D(2h) differ by J·t/4h, and the sides by
J·(1 − t/h). The formula is off by J·|6 − 7·t/h|/12, and one of the two covers that for every t. Several such
kinks show because the differences of two steps do not agree.

The noise is measured: fourth differences of g over steps that are too small for g itself to show in them
(Hamming's table; Moré and Wild, Estimating Computational Noise, SIAM J. Sci. Comput. 33, 2011).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jax_convgrad.instruments.leaves import (
    Leaves,
    ListFunction,
    moved,
    norm,
    rounding_of,
    sizes_of,
    wide,
    wide_arrays,
)

SHRINKING = 4.0 ** -np.arange(8)
"""Steps, in units of the first, until a difference agrees with the gradient."""

NOISE = 6
"""A difference of four values may be off by this many times the noise of one; its deviation is about 1."""

_OFFSETS = np.array([-2.0, -1.0, 1.0, 2.0])
_CHUNK = 32


class Difference(NamedTuple):
    """The answer of the differences about some entries of a gradient; each field has one number an entry.

    ``noise`` is how far ``expected`` may be off because g's values are rounded. ``is_kink``: there is a kink
    closer than any step that noise allows, and the gradient has a value that it may have there.
    """

    expected: np.ndarray
    noise: np.ndarray
    is_kink: np.ndarray


class _Slopes:
    """The derivatives that four changes of g tell, over −2h, −h, h and 2h; one row an entry."""

    def __init__(self, changes: np.ndarray, h: np.ndarray) -> None:
        low2, low, high, high2 = changes.T
        narrow, wider = (high - low) / (2 * h), (high2 - low2) / (4 * h)
        self.estimate = (4 * narrow - wider) / 3
        self.disagreement = np.abs(narrow - wider)
        self.left, self.right = -low / h, high / h
        self.wider_gap = np.abs((high2 + low2) / (2 * h))
        """Between the derivatives to the right and to the left, over twice the step."""


class Differences:
    """Finite differences of ``g = Re Σ weights·f(leaves)`` about one point.

    ``eps`` is a step in x's own units for all entries, or None for one in proportion to each entry. f's
    products run at precision "highest": TF32 would leave little of a difference. ``rounding`` is the eps of
    the coarsest dtype that f computes in.
    """

    def __init__(
        self,
        f: ListFunction,
        leaves: Leaves,
        weights: Sequence[np.ndarray],
        eps: float | None,
        rng: np.random.Generator,
    ) -> None:
        self.leaves = list(leaves)
        self._f = f
        self._weights = [jnp.asarray(c, wide(c.dtype)) for c in weights]
        self._eps = eps
        self._sizes = [sizes_of(leaf) for leaf in leaves]
        self._entries = jax.jit(self._entry_changes)
        self._steps = jax.jit(self._changes_along)
        with jax.default_matmul_precision("highest"):
            self.rounding = rounding_of(jax.make_jaxpr(f)(self.leaves))
            self.values = [jnp.asarray(y) for y in jax.jit(f)(self.leaves)]
        values = zip(weights, wide_arrays(self.values), strict=True)
        self.size_of_values = norm([c * y for c, y in values])
        self.noise = self._measured_noise(rng)

    def _measured_noise(self, rng: np.random.Generator) -> float:
        """The noise of one value of g, at least the rounding of f's outputs."""
        # In whole gaps between numbers, so that it is not the rounding of x + h·d that is measured.
        directions = [
            self.rounding * 2.0 ** np.floor(np.log2(sizes)) * rng.choice([-1.0, 1.0], sizes.shape)
            for sizes in self._sizes
        ]
        # As many steps in each call as a derivative needs, so that one compiled program serves both.
        steps, spacing = np.arange(-8.0, 8.0).reshape(4, 4), 8.0
        while True:
            changes = np.concatenate([self._along(directions, spacing * four) for four in steps])
            # Fourth differences of independent errors have 70 = 8!/4!² times their variance. The median, as
            # a kink among the steps shows in some.
            measured = float(np.median(np.abs(np.diff(changes, 4)))) / np.sqrt(70)
            # A staircase whose treads are longer than these steps shows no noise: a loss of 1e-4 that is
            # a difference of logits, which are rounded as numbers near 1 are.
            is_level = measured == 0 or np.mean(np.diff(changes) == 0) > 0.5
            if not is_level or 8 * spacing * self.rounding > self.rounding**0.25:
                break
            spacing *= 8
        floor = self.rounding / 2 * self.size_of_values
        return max(measured, floor) if np.isfinite(measured) else floor

    def _change(self, there: Leaves, values: Leaves) -> jax.Array:
        """g(there) − g(x), as a sum of small differences: it rounds no more than f does."""
        total = jnp.zeros((), wide(np.dtype(np.float32)))
        for y, y0, c in zip(self._f(there), values, self._weights, strict=True):
            total += jnp.sum(jnp.real(c * (y.astype(c.dtype) - y0.astype(c.dtype))))
        return total

    # --------------------------------------------------------------------------------------- single entries

    def of_entries(
        self, k: int, places: np.ndarray, found: np.ndarray, allowed: Callable[[np.ndarray], np.ndarray]
    ) -> Difference:
        """The derivatives in some entries of leaf k, compared with those found.

        Args:
          k: which leaf.
          places: flat indices into it.
          found: the gradient there, in JAX's convention: of a complex entry ∂g/∂re − i·∂g/∂im.
          allowed: a function from the expected derivatives to how far those found may be off by rounding.
        """
        if not np.iscomplexobj(found):
            return self._of_parts(k, places, found, allowed, False)
        re = self._of_parts(k, places, found.real, allowed, False)
        im = self._of_parts(k, places, -found.imag, allowed, True)
        noise = np.hypot(re.noise, im.noise)
        return Difference(re.expected - 1j * im.expected, noise, re.is_kink | im.is_kink)

    def _of_parts(
        self,
        k: int,
        places: np.ndarray,
        found: np.ndarray,
        allowed: Callable[[np.ndarray], np.ndarray],
        imaginary: bool,
    ) -> Difference:
        expected, noise = np.full(len(places), np.nan), np.full(len(places), np.nan)
        is_kink, settled = np.zeros(len(places), bool), np.zeros(len(places), bool)
        first_error, before = np.full(len(places), np.inf), np.full(len(places), np.nan)
        best = np.full(len(places), np.inf)  # how far the best of the estimates may be off
        first_step = self._first_steps(k)[places]
        for factor in SHRINKING:
            # Steps so small that noise would hide what is looked for tell nothing more.
            of_noise = NOISE * self.noise / (factor * first_step)
            # But two are made, to see whether they agree.
            telling = factor >= SHRINKING[1] or of_noise <= np.fmax(allowed(expected), first_error / 4)
            todo = np.flatnonzero(~settled & telling)
            if not todo.size:
                break
            h = factor * first_step[todo]
            slopes = _Slopes(self._changes(k, places[todo], h, imaginary), h)
            estimate, left, right = slopes.estimate, slopes.left, slopes.right
            error = np.abs(found[todo] - estimate)
            margin = allowed(estimate) + of_noise[todo]
            finite = np.isfinite(estimate)
            first_error[todo] = np.where(finite & np.isinf(first_error[todo]), error, first_error[todo])
            settled[todo] = error <= margin
            unsteady = np.fmax(4 * slopes.disagreement, 2 * np.abs(estimate - before[todo]))
            before[todo] = estimate
            off = of_noise[todo] + unsteady
            better = finite & ((off < best[todo]) | settled[todo])
            expected[todo[better]], noise[todo[better]] = estimate[better], of_noise[todo][better]
            best[todo[better]] = off[better]
            # At half the step a smooth function has half the gap between its sides; a kink at x keeps it.
            gap = np.abs(right - left)
            low, high = np.minimum(left, right) - margin, np.maximum(left, right) + margin
            between = (found[todo] >= low) & (found[todo] <= high)
            at_x = between & (gap > margin) & (gap > 0.7 * slopes.wider_gap - margin)
            beside_x = error <= margin + unsteady
            # By the smallest step: a kink further off is no excuse.
            is_kink[todo] = (at_x | beside_x) & ~settled[todo]
        return Difference(expected, noise, is_kink)

    def _first_steps(self, k: int) -> np.ndarray:
        sizes = self._sizes[k].reshape(-1)
        if self._eps is not None:
            return np.full(sizes.shape, self._eps)
        # Powers of two, which leave more of x's own bits in x ± h.
        return 2.0 ** np.round(np.log2(self.rounding**0.25 * sizes))

    def _changes(self, k: int, places: np.ndarray, h: np.ndarray, imaginary: bool) -> np.ndarray:
        """g(x + t·e) − g(x) for t of −2h, −h, h, 2h: one row an entry."""
        rows = []
        for start in range(0, len(places), _CHUNK):
            part = slice(start, start + _CHUNK)
            # Always as many, so that one compiled program serves every array of the point.
            padded = np.resize(places[part], _CHUNK), np.resize(h[part], _CHUNK)
            with jax.default_matmul_precision("highest"):
                table = self._entries(self.leaves, self.values, k, *padded, imaginary)
            rows.append(np.asarray(table, np.float64).reshape(_CHUNK, 4)[: len(places[part])])
        return np.concatenate(rows)

    def _entry_changes(
        self, leaves: Leaves, values: Leaves, k: Any, places: Any, h: Any, imaginary: Any
    ) -> jax.Array:
        def one(entry: tuple[Any, Any]) -> jax.Array:
            place, step = entry
            there = []
            for n, leaf in enumerate(leaves):
                by = step.astype(wide(leaf.dtype))
                if jnp.issubdtype(leaf.dtype, jnp.complexfloating):
                    by = jnp.where(imaginary, 1j, 1) * by
                flat = jnp.reshape(leaf, -1)
                if not flat.size:
                    there.append(leaf)
                    continue
                # Beyond the end, where nothing is set, in all leaves but k.
                at = jnp.where(k == n, place, flat.size)
                value = moved(flat.at[at].get(mode="fill", fill_value=0), by)
                there.append(jnp.reshape(flat.at[at].set(value, mode="drop"), leaf.shape))
            return self._change(there, values)

        steps = jnp.ravel(h[:, None] * jnp.asarray(_OFFSETS, h.dtype))
        return lax.map(one, (jnp.repeat(places, 4), steps))

    # ------------------------------------------------------------------------------------------ directions

    def along(self, k: int, direction: np.ndarray) -> tuple[float, float]:
        """g'(x)·d for a direction in leaf k, and how far it may be off by noise, or by kinks close by."""
        directions = [
            direction.reshape(leaf.shape) if n == k else np.zeros(leaf.shape)
            for n, leaf in enumerate(self.leaves)
        ]
        # All entries move at once, and some meet their kinks: hence smaller steps than for one entry.
        size = float(np.sqrt(np.mean(self._sizes[k] ** 2)))
        first = self._eps or self.rounding ** (1 / 3) * size
        best, before = (np.nan, np.inf), np.nan
        for factor in SHRINKING:
            h = np.array([first * factor])
            slopes = _Slopes(self._along(directions, _OFFSETS * h)[None], h)
            estimate = float(slopes.estimate[0])
            unsteady = np.fmax(4 * slopes.disagreement[0], 2 * abs(estimate - before))
            before = estimate
            off = float(NOISE * self.noise / h[0] + unsteady)
            if off < best[1]:
                best = estimate, off
        return best

    def _along(self, directions: Sequence[np.ndarray], steps: np.ndarray) -> np.ndarray:
        kinds = [jnp.asarray(d, wide(x.dtype)) for d, x in zip(directions, self.leaves, strict=True)]
        with jax.default_matmul_precision("highest"):
            return np.asarray(self._steps(self.leaves, self.values, kinds, jnp.asarray(steps)), np.float64)

    def _changes_along(self, leaves: Leaves, values: Leaves, directions: Leaves, steps: Any) -> jax.Array:
        def one(t: Any) -> jax.Array:
            there = [moved(x, t * d) for x, d in zip(leaves, directions, strict=True)]
            return self._change(there, values)

        return lax.map(one, steps)
