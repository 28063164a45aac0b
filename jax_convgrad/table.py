"""A table of strings, as aligned text for a terminal and as HTML for a notebook.

Written here, since the doctor has to print where no other package can be imported.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """Rows under a head; ``right`` names the columns whose cells, numbers mostly, end flush."""

    head: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    right: frozenset[str] = frozenset()

    def __str__(self) -> str:
        """One line a row, each column as wide as its widest cell."""
        lines = [self.head, *self.rows]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]

        def aligned(cells: tuple[str, ...]) -> str:
            parts = [
                cell.rjust(width) if name in self.right else cell.ljust(width)
                for name, cell, width in zip(self.head, cells, widths, strict=True)
            ]
            return "  ".join(parts).rstrip()

        return "\n".join(map(aligned, lines))

    def html(self) -> str:
        """A ``<table>`` of the same cells."""

        def row(tag: str, cells: tuple[str, ...]) -> str:
            parts = [
                f'<{tag} style="text-align:{"right" if name in self.right else "left"}">'
                f"{html.escape(cell)}</{tag}>"
                for name, cell in zip(self.head, cells, strict=True)
            ]
            return f"<tr>{''.join(parts)}</tr>"

        body = "".join(row("td", cells) for cells in self.rows)
        return f"<table><thead>{row('th', self.head)}</thead><tbody>{body}</tbody></table>"
