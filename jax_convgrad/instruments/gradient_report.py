"""The findings of ``check_gradients``: one row for each array, and the table of all."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from jax_convgrad.instruments.verdict import Report
from jax_convgrad.table import Table


@dataclass(frozen=True)
class GradientRow:
    """One array's gradient against what it should be.

    Attributes:
      name: the argument and the place in its tree, as in ``params['w']``.
      order: 1 for the gradient of f, 2 for that of its gradient, and so on.
      shape: of the argument.
      dtype: of the argument.
      entries: how many entries were differenced, each by itself.
      directions: how many random directions, of all entries at once, were differenced too.
      error: |found − expected| of the entry whose error is the largest part of its tolerance.
      relative_error: the same over the largest |expected| of the entries.
      index: where that entry is.
      found: the gradient there.
      expected: what the differences say there, or what ``lax`` says if only ``lax`` disagrees.
      tolerance: how far found may be from expected there.
      lax_error: the largest distance from ``lax``'s own gradient, over all entries; None where f has no
        convolution or pooling of this package.
      kinks: how many of the entries lie on a kink, where any value between the derivatives to either side is
        as good as another.
      verdict: "ok", "WRONG", "not finite", or "skipped" if the dtype has no gradients.
      note: a remark, such as how many entries are wrong.
    """

    name: str
    order: int
    shape: tuple[int, ...]
    dtype: str
    verdict: str
    entries: int = 0
    directions: int = 0
    error: float = 0.0
    relative_error: float = 0.0
    index: tuple[int, ...] = ()
    found: complex | float = 0.0
    expected: complex | float = 0.0
    tolerance: float = 0.0
    lax_error: float | None = None
    kinks: int = 0
    note: str = ""

    @property
    def ok(self) -> bool:
        """Reports whether nothing speaks against this gradient."""
        return self.verdict in ("ok", "skipped")

    def _cells(self) -> dict[str, str]:
        """The row of the table, by column."""
        was_compared = self.entries > 0
        checked = "-"
        if was_compared:
            size = math.prod(self.shape)
            checked = f"all {size}" if size > 1 else "1"
            if self.entries != size or self.directions:
                checked = f"{self.entries} of {size} + {_counted(self.directions, 'direction')}"
        numbers = {
            "abs. error": f"{self.error:.2g}",
            "rel. error": f"{self.relative_error:.2g}",
            "at": str(list(self.index)) if self.shape else "",
            "found": f"{self.found:.6g}",
            "expected": f"{self.expected:.6g}",
            "tolerance": f"{self.tolerance:.2g}",
        }
        return {
            "argument": self.name,
            "order": str(self.order),
            "array": f"{self.dtype}[{','.join(map(str, self.shape))}]",
            "checked": checked,
            **(numbers if was_compared else dict.fromkeys(numbers, "")),
            "from lax": "" if self.lax_error is None else f"{self.lax_error:.2g}",
            "verdict": self.verdict + (f", {_counted(self.kinks, 'kink')}" if self.kinks else ""),
        }


@dataclass(frozen=True)
class GradientReport(Report):
    """The rows of ``check_gradients``; it prints as a table, and in a notebook as HTML."""

    rows: tuple[GradientRow, ...]
    reference: str
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Reports whether every gradient is right as far as the check can tell."""
        return all(row.ok for row in self.rows)

    def _blocks(self) -> Iterator[str | Table]:
        wrong = sum(not row.ok for row in self.rows)
        verdict = f"{wrong} of {len(self.rows)} gradients not ok" if wrong else "gradients ok"
        yield f"{verdict}, by {self.reference}"
        rows = [row._cells() for row in self.rows]
        hidden = set() if any(row.order > 1 for row in self.rows) else {"order"}
        if all(row.lax_error is None for row in self.rows):
            hidden.add("from lax")
        head = tuple(name for name in rows[0] if name not in hidden)
        right = frozenset(head) - {"argument", "array", "checked", "at", "verdict"}
        yield Table(head, [tuple(cells[name] for name in head) for cells in rows], right)
        notes = [f"{row.name}: {row.note}" for row in self.rows if row.note]
        if notes or self.notes:
            yield "\n".join(dict.fromkeys((*notes, *self.notes)))


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" + ("" if count == 1 else "s")
