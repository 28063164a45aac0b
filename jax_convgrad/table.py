"""A table of strings, and reports made of tables and text: aligned for a terminal, HTML for a notebook.

It imports nothing but the standard library, since the doctor prints where no other package can be imported.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """Rows under a head; ``right`` names the columns, mostly of numbers, that are flush right."""

    head: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    right: frozenset[str] = frozenset()

    def __str__(self) -> str:
        """One line a row, each column as wide as its widest cell."""
        lines = [self.head, *self.rows]
        aligned = []
        for name, *column in zip(self.head, *lines, strict=True):
            width = max(map(len, column))
            aligned.append([c.rjust(width) if name in self.right else c.ljust(width) for c in column])
        return "\n".join("  ".join(cells).rstrip() for cells in zip(*aligned, strict=True))

    def html(self) -> str:
        """A ``<table>`` of the same cells."""

        def row(tag: str, cells: tuple[str, ...]) -> str:
            sides = ["right" if name in self.right else "left" for name in self.head]
            parts = [
                f'<{tag} style="text-align:{side}">{html.escape(cell)}</{tag}>'
                for side, cell in zip(sides, cells, strict=True)
            ]
            return f"<tr>{''.join(parts)}</tr>"

        body = "".join(row("td", cells) for cells in self.rows)
        return f"<table><thead>{row('th', self.head)}</thead><tbody>{body}</tbody></table>"


class Printed:
    """A report that prints as text and shows itself in a notebook as HTML, with a first line in bold."""

    def _blocks(self) -> Iterable[str | Table]:
        """Text of one or more lines, and tables, in the order in which they are printed."""
        raise NotImplementedError

    def __str__(self) -> str:
        return "\n\n".join(map(str, self._blocks()))

    def _repr_html_(self) -> str:
        parts = []
        for block in self._blocks():
            if isinstance(block, Table):
                parts.append(block.html())
                continue
            for line in map(html.escape, block.splitlines()):
                parts.append(f"<p>{line}</p>" if parts else f"<p><b>{line}</b></p>")
        return "".join(parts)
