"""What ``check_gradients`` found: one row for each array, as a table, in HTML, or as an error."""

from __future__ import annotations

import html
from collections.abc import Sequence
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
      entries: how many entries were differenced each by itself.
      directions: along how many random directions, all entries at once, the gradient was differenced too.
      error: |found − expected| of the entry whose error is the largest part of its tolerance.
      relative_error: the same over the largest |expected| of the entries.
      index: where that entry is.
      found: the gradient there.
      expected: what the differences say there, or ``lax`` where they say nothing against it.
      tolerance: how far found may be from expected there.
      lax_error: the largest distance from ``lax``'s own gradient, over all entries; None where f has no
        convolution or pooling of this package.
      kinks: of the entries, how many lie on a kink, where any value between the derivatives to either side
        is as good as another.
      verdict: "ok", "WRONG", "not finite", or "skipped", of a dtype without gradients.
      note: what else is to be said.
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
        """Whether nothing speaks against this gradient."""
        return self.verdict in ("ok", "skipped")

    @property
    def _was_compared(self) -> bool:
        return self.entries > 0

    def _cells(self, with_order: bool, with_lax: bool) -> tuple[str, ...]:
        numbers = ("",) * 6
        if self._was_compared:
            numbers = (
                _short(self.error),
                _short(self.relative_error),
                "" if not self.shape else str(list(self.index)),
                _short(self.found, 6),
                _short(self.expected, 6),
                _short(self.tolerance),
            )
        verdict = self.verdict + (f", {_counted(self.kinks, 'kink')}" if self.kinks else "")
        order = (str(self.order),) if with_order else ()
        lax = ("" if self.lax_error is None else _short(self.lax_error),) if with_lax else ()
        return (
            self.name,
            *order,
            f"{self.dtype}[{','.join(map(str, self.shape))}]",
            self._checked(),
            *numbers,
            *lax,
            verdict,
        )

    def _checked(self) -> str:
        size = 1
        for length in self.shape:
            size *= length
        if not self._was_compared:
            return "-"
        if self.entries == size and not self.directions:
            return f"all {size}" if size > 1 else "1"
        return f"{self.entries} of {size} + {_counted(self.directions, 'direction')}"


@dataclass(frozen=True)
class GradientReport(Report):
    """All of ``check_gradients``' rows; printed, they are a table, and in a notebook one in HTML."""

    rows: tuple[GradientRow, ...]
    reference: str
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether every gradient is right so far as the check can tell."""
        return all(row.ok for row in self.rows)

    @property
    def _table(self) -> Table:
        with_order = any(row.order > 1 for row in self.rows)
        with_lax = any(row.lax_error is not None for row in self.rows)
        numbers = ("abs. error", "rel. error", "at", "found", "expected", "tolerance")
        head = (
            "argument",
            *(("order",) if with_order else ()),
            "array",
            "checked",
            *numbers,
            *(("from lax",) if with_lax else ()),
            "verdict",
        )
        right = frozenset({"order", "from lax", *numbers} - {"at"})
        return Table(head, [row._cells(with_order, with_lax) for row in self.rows], right)

    def _lines(self) -> Sequence[str]:
        wrong = sum(not row.ok for row in self.rows)
        head = f"{wrong} of {len(self.rows)} gradients not ok" if wrong else "gradients ok"
        notes = [f"{row.name}: {row.note}" for row in self.rows if row.note]
        return [f"{head}, by {self.reference}", *dict.fromkeys((*notes, *self.notes))]

    def __str__(self) -> str:
        head, *notes = self._lines()
        return "\n".join([head, "", str(self._table), *(["", *notes] if notes else [])])

    def _repr_html_(self) -> str:
        head, *notes = self._lines()
        below = "".join(f"<p>{html.escape(note)}</p>" for note in notes)
        return f"<p><b>{html.escape(head)}</b></p>{self._table.html()}{below}"


def _short(number: complex | float, digits: int = 2) -> str:
    if isinstance(number, complex):
        return f"{number:.{digits}g}"
    return f"{number:.{digits}g}"


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" + ("" if count == 1 else "s")
