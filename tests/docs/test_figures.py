"""docs/images contains the figures that docs/figures.py draws, and every figure is on a page."""

import re
import sys
from pathlib import Path
from xml.etree import ElementTree

import figures
import numpy as np
import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"

SVG = "{http://www.w3.org/2000/svg}"


def shown(path):
    """The contents of an SVG: its texts, and the highlighted cells with their colours."""
    root = ElementTree.parse(path).getroot()
    texts = sorted("".join(text.itertext()).strip() for text in root.iter(f"{SVG}text"))
    cells = {
        group.get("id"): re.search(r"fill: (#\w+)", next(group.iter(f"{SVG}path")).get("style"))[1]
        for group in root.iter(f"{SVG}g")
        if "[" in group.get("id", "")
    }
    return texts, cells


@pytest.mark.parametrize("name", figures.FIGURES)
def test_the_figure_shows_what_is_drawn_now(name, tmp_path):
    texts, cells = shown(DOCS / "images" / f"{name}.svg")
    assert cells and texts
    assert (texts, cells) == shown(figures.draw(name, tmp_path))


@pytest.mark.parametrize(
    "name", [name for name, figure in figures.FIGURES.items() if figure.numbers is not None]
)
def test_the_numbers_of_its_terms_add_up_to_the_page_s(name):
    """The sum of the terms in the picture is the element of the worked example."""
    figure = figures.FIGURES[name]
    texts, _ = shown(DOCS / "images" / f"{name}.svg")
    total = sum(float(value) for text in texts for value in re.findall(r"^\w+\[.*= (-?[\d.]+)$", text))
    if isinstance(figure.numbers, int):
        example = figures.worked_examples()[figure.numbers]
        array = {"y": "Y", "dx": "dX", "dw": "dW"}[figure.array]
        own = figure.index[:-2] if array == "dW" else figure.index[1:-1]
        assert total == np.array(example[array])[own]
    else:
        assert total == {"zero_insertion": -3, "max_pool": 10, "avg_pool": 5}[name]


def test_every_figure_and_every_picture_is_on_a_page():
    """The pages' commands draw the pictures that figures.py does not draw."""
    pages = "".join(page.read_text() for page in DOCS.glob("*.md"))
    used = set(re.findall(r"\]\(images/([\w.]+)\)", pages))
    assert used == {path.name for path in (DOCS / "images").iterdir()}
    assert {f"{name}.svg" for name in figures.FIGURES} <= used


def test_the_folder_is_an_argument(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["figures.py", str(tmp_path / "new")])
    monkeypatch.setattr(figures, "FIGURES", {"fprop": figures.FIGURES["fprop"]})
    figures.main()
    assert capsys.readouterr().out.split() == [str(tmp_path / "new" / "fprop.svg")]
    assert (tmp_path / "new" / "fprop.svg").stat().st_size > 1000
