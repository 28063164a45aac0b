"""Draws the figures of the pages with this package's own ``explain``.

    python docs/figures.py [FOLDER]

Each figure is one element of a small layer, with the numbers of the page's worked example. Without a folder
they go to docs/images, which the pages link to.
"""

from __future__ import annotations

import argparse
import ast
import io
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

DOCS = Path(__file__).resolve().parent


class Figure(NamedTuple):
    """One picture: an element of a layer, and the source of its numbers."""

    layer: str
    array: str
    index: tuple[int, ...]
    # The index of a worked example in derivation.md; or the arrays, without batch and channels; or None.
    numbers: int | dict[str, list] | None = None
    title: str | None = None


MAX_X = [[1, 5, 2, 0, 3], [4, 0, 1, 2, 1], [2, 3, 9, 1, 0], [0, 1, 2, 4, 6], [5, 2, 1, 3, 2]]

FIGURES = {
    "fprop": Figure("1x5x1, 3, 1", "y", (0, 1, 0), 0),
    "wgrad": Figure("1x5x1, 3, 1", "dw", (1, 0, 0), 0),
    "dgrad": Figure("1x5x1, 3, 1", "dx", (0, 1, 0), 0),
    "stride": Figure("1x5x1, 3, 1, stride 2, pad 1", "dx", (0, 1, 0), 1),
    "stride_one_term": Figure("1x5x1, 3, 1, stride 2, pad 1", "dx", (0, 2, 0), 1),
    # The same element with the usual recipe: dY with inserted zeros, and the flipped filter.
    "zero_insertion": Figure(
        "1x3x1, 3, 1, stride 2, pad 1, transposed", "y", (0, 1, 0), {"x": [1, -2, 3], "w": [1, -1, 2]}
    ),
    "dgrad_2d": Figure("1x3x4x1, 2x2, 1", "dx", (0, 1, 2, 0), 2),
    "wgrad_2d": Figure("1x3x4x1, 2x2, 1", "dw", (0, 1, 0, 0), 2),
    "stride_2d": Figure("1x5x5x1, 3x3, 1, stride 2, pad 1", "dx", (0, 1, 3, 0)),
    "transposed": Figure("1x3x3x1, 3x3, 1, stride 2, pad 1, transposed", "y", (0, 3, 1, 0)),
    "max_pool": Figure(
        "1x5x5x1, max 3x3, stride 2", "dx", (0, 2, 2, 0), {"x": MAX_X, "dy": [[1, 2], [3, 4]]}
    ),
    "avg_pool": Figure(
        "1x4x4x1, avg 3x3, stride 2, pad 1, exclude pad", "dx", (0, 1, 1, 0), {"dy": [[4, 6], [12, 9]]}
    ),
}


def worked_examples() -> list[dict[str, list]]:
    """The blocks of numbers in derivation.md, in order."""
    text = (DOCS / "derivation.md").read_text()
    blocks = re.findall(r"^```text\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    found = (re.findall(r"(\w+) *= *(\[.*?\](?=\s*$)|-?\d+)", block, re.MULTILINE) for block in blocks)
    return [{name: ast.literal_eval(value) for name, value in pairs} for pairs in found]


def arrays_of(figure: Figure) -> dict[str, np.ndarray]:
    """The arrays x, w and dy of the layer, channels last."""
    if not isinstance(figure.numbers, int):
        given = figure.numbers or {}
    else:
        example = worked_examples()[figure.numbers]
        given = {"x": example["X"], "w": example["W"], "dy": example["dY"]}
    arrays = {name: np.array(values) for name, values in given.items()}
    return {
        name: array[..., None, None] if name == "w" else array[None, ..., None]
        for name, array in arrays.items()
    }


def draw(name: str, folder: Path) -> Path:
    """Draws one figure into ``folder`` and returns its path."""
    import matplotlib

    from jax_convgrad import explain

    figure = FIGURES[name]
    path = folder / f"{name}.svg"
    # Text remains text, and equal figures are equal files.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        explained = explain(figure.layer, figure.array, figure.index, **arrays_of(figure))
        svg = io.StringIO()
        explained.plot(figure.title).savefig(svg, format="svg", metadata={"Date": None})
    # Without this, a browser would merge several spaces into one.
    path.write_text(svg.getvalue().replace("<text ", '<text xml:space="preserve" '))
    return path


def main() -> None:
    """Draws all figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=DOCS / "images")
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    for name in FIGURES:
        print(draw(name, folder))


if __name__ == "__main__":
    main()
