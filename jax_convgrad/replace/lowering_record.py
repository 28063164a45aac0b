"""A record of what ``install()`` does with each convolution and window of the programs lowered after it."""

from __future__ import annotations

import functools
import html
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from jax_convgrad.replace.reasons import OnLax
from jax_convgrad.table import Table


@dataclass(frozen=True)
class InstalledRow:
    """One kind of operation of ``jax.lax``, and what runs it.

    Attributes:
      operation: the name of ``jax.lax``'s primitive, such as "conv_general_dilated" or "reduce_window_max".
      operands: the dtype and shape of each operand.
      result: the dtype and shape of the result.
      platform: "cpu" or "cuda".
      kernel: the op of these kernels that computes it, such as "fprop"; None if ``jax.lax`` computes it.
      why: None, or the reason why ``jax.lax`` computes it.
      times: how often it occurs in the programs that were lowered. The body of a loop counts once, and so
        does a function that several calls in one program share.
    """

    operation: str
    operands: tuple[str, ...]
    result: str
    platform: str
    kernel: str | None
    why: str | None
    times: int = 1

    def __str__(self) -> str:
        by = f"on {self.kernel}" if self.why is None else f"on jax.lax: {self.why}"
        return f"{self.operation} {', '.join(self.operands)} -> {self.result}, {self.platform}: {by}"


@dataclass(frozen=True)
class InstalledReport:
    """Every kind of convolution and window since ``install()``, in the order of their first lowering.

    ``str(report)`` is a table; a notebook shows the report as an HTML table.

    Attributes:
      rows: the kinds of operations.
      in_force: whether ``install()`` was in force when the report was made.
    """

    rows: tuple[InstalledRow, ...]
    in_force: bool = True

    @property
    def on_lax(self) -> tuple[InstalledRow, ...]:
        """The rows of the operations that ``jax.lax`` computes."""
        return tuple(row for row in self.rows if row.why is not None)

    @property
    def _table(self) -> Table:
        return Table(
            ("operation", "operands", "result", "platform", "times", "runs on"),
            [
                (
                    row.operation,
                    ", ".join(row.operands),
                    row.result,
                    row.platform,
                    str(row.times),
                    str(row.kernel) if row.why is None else f"jax.lax: {row.why}",
                )
                for row in self.rows
            ],
            right=frozenset({"times"}),
        )

    @property
    def _summary(self) -> str:
        if not self.rows:
            return (
                "nothing has been lowered since install()" if self.in_force else "install() is not in force"
            )
        left = sum(row.times for row in self.on_lax)
        count = sum(row.times for row in self.rows)
        return f"{count - left} of {count} convolutions and windows on these kernels"

    def __str__(self) -> str:
        return f"{self._table}\n{self._summary}" if self.rows else self._summary

    def _repr_html_(self) -> str:
        table = self._table.html() if self.rows else ""
        return f"{table}<p>{html.escape(self._summary)}</p>"


_seen: Counter[InstalledRow] = Counter()
_in_force = False
_verbose = False
_paused = False


def installed_report() -> InstalledReport:
    """Reports what runs each ``jax.lax`` convolution and window since ``install()``, and why if it is lax.

    A program is lowered when it is compiled for the first time, so the report counts a compiled function
    once, however often it was called. Convolutions and windows are ``lax.conv_general_dilated``,
    ``lax.reduce_window`` and all operations that JAX derives from them. Programs for platforms other than CPU
    and CUDA are not counted. ``print`` shows the report as a table.

    Returns:
      The report. It has no rows before ``install()`` and after ``uninstall()``.
    """
    return InstalledReport(tuple(replace(row, times=times) for row, times in _seen.items()), _in_force)


def begin(verbose: bool) -> None:
    """Starts a new record; with ``verbose``, each operation is printed when it is lowered."""
    global _in_force
    _in_force = True
    _seen.clear()
    speak(verbose)


def end() -> None:
    """Clears the record, because ``install()`` is no longer in force."""
    global _in_force
    _in_force = False
    _seen.clear()
    speak(False)


def speak(verbose: bool) -> None:
    """Sets whether each operation is printed when it is lowered."""
    global _verbose
    _verbose = verbose


def record(
    operation: str, avals: Sequence[Any], out: Any, platforms: Sequence[str], runs_on: str | OnLax
) -> None:
    """Records one lowered operation: its platforms, and its kernel or why it stays on ``jax.lax``."""
    if _paused:
        return
    for platform in platforms:
        row = _row(operation, tuple(avals), out, platform, runs_on)
        _seen[row] += 1
        if _verbose:
            print(f"jax_convgrad: {row}")


@contextmanager
def paused() -> Iterator[None]:
    """Records nothing inside this context, which ``jax.lax``'s rule for a recorded operation runs in."""
    global _paused
    before, _paused = _paused, True
    try:
        yield
    finally:
        _paused = before


@functools.lru_cache(4096)  # a large net has many layers of few kinds
def _row(
    operation: str, avals: tuple[Any, ...], out: Any, platform: str, runs_on: str | OnLax
) -> InstalledRow:
    return InstalledRow(
        operation,
        tuple(map(_described, avals)),
        _described(out),
        platform,
        None if isinstance(runs_on, OnLax) else runs_on,
        runs_on.why if isinstance(runs_on, OnLax) else None,
    )


def _described(aval: Any) -> str:
    return f"{aval.dtype.name}[{','.join(map(str, aval.shape))}]"
