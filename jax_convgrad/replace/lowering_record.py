"""What ``install()`` did with each convolution and window of the programs lowered since."""

from __future__ import annotations

import functools
import html
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from jax_convgrad.replace.on_lax import OnLax
from jax_convgrad.table import Table


@dataclass(frozen=True)
class InstalledRow:
    """One kind of operation of ``jax.lax``, and what runs it.

    Attributes:
      operation: the name of ``jax.lax``'s primitive, such as "conv_general_dilated" or "reduce_window_max".
      operands: dtype and shape of each.
      result: dtype and shape.
      platform: "cpu" or "cuda".
      kernel: the op of these kernels that computes it, such as "fprop"; None where ``jax.lax`` does.
      why: None, or why ``jax.lax`` computes it.
      times: how often it stood in the programs that were lowered. The body of a loop counts once, and so does
        a function that several calls in one program share.
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

    ``str`` of it is a table, and so is its last line in a notebook.
    """

    rows: tuple[InstalledRow, ...]

    @property
    def on_lax(self) -> tuple[InstalledRow, ...]:
        """The rows of what ``jax.lax`` computes."""
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
        left = sum(row.times for row in self.on_lax)
        count = sum(row.times for row in self.rows)
        return f"{count - left} of {count} convolutions and windows on these kernels"

    def __str__(self) -> str:
        return f"{self._table}\n{self._summary}" if self.rows else self._summary

    def _repr_html_(self) -> str:
        return f"{self._table.html()}<p>{html.escape(self._summary)}</p>"


_seen: Counter[InstalledRow] = Counter()
_verbose = False
_paused = False


def installed_report() -> InstalledReport:
    """What runs each ``jax.lax`` convolution and window since ``install()``: a kernel, or lax and why.

    A program is lowered when it is compiled for the first time, so a function that was called before its
    report was asked for is in it once, however often it was called. Convolutions and windows are
    ``lax.conv_general_dilated``, ``lax.reduce_window`` and all that JAX makes of these; programs for other
    platforms than CPU and CUDA are not counted. ``print`` shows it as a table.

    Returns:
      The report; without rows before ``install()`` and after ``uninstall()``.
    """
    return InstalledReport(tuple(replace(row, times=times) for row, times in _seen.items()))


def begin(verbose: bool) -> None:
    """Forgets what was seen; ``verbose``: each operation is printed from now on when it is lowered."""
    _seen.clear()
    speak(verbose)


def speak(verbose: bool) -> None:
    """Whether each operation is printed when it is lowered."""
    global _verbose
    _verbose = verbose


def record(
    operation: str, avals: Sequence[Any], out: Any, platforms: Sequence[str], runs_on: str | OnLax
) -> None:
    """One operation that has been lowered: for which platforms, and on which kernel or why on ``jax.lax``."""
    if _paused:
        return
    for platform in platforms:
        row = _row(operation, tuple(avals), out, platform, runs_on)
        _seen[row] += 1
        if _verbose:
            print(f"jax_convgrad: {row}")


@contextmanager
def paused() -> Iterator[None]:
    """Where nothing is recorded: inside ``jax.lax``'s rule for what is recorded already."""
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
