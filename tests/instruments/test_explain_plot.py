"""The pictures of ``explain``: which cells are lit, what is written, and the files of the command."""

import builtins
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from jax_convgrad import __main__ as command_line
from jax_convgrad import explain
from jax_convgrad.instruments import explain_plot
from jax_convgrad.instruments.explain_plot import MOST_CELLS, picture_of, plot_terms, save
from jax_convgrad.instruments.terms import bracketed, terms_of, winner

STRIDED = "1x5x5x1, 3x3, 1, stride 2"


def run(capsys, *arguments):
    assert command_line.main(["explain", *arguments]) == 0
    return capsys.readouterr().out


def test_without_matplotlib(monkeypatch, capsys, tmp_path):
    importing = builtins.__import__

    def without(name, *rest):
        if name.startswith("matplotlib"):
            raise ModuleNotFoundError("No module named 'matplotlib'")
        return importing(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(SystemExit) as exit:
        command_line.main(["explain", STRIDED, "--plot", str(tmp_path / "picture.svg")])
    assert exit.value.code == 1
    assert 'pip install "jax_convgrad[plot]"' in capsys.readouterr().err
    assert command_line.main(["explain", STRIDED]) == 0  # the text needs none


def test_a_file_that_cannot_be_written(capsys, tmp_path):
    name = f"{'long' * 100}.svg"
    with pytest.raises(SystemExit) as exit:
        command_line.main(["explain", STRIDED, "--plot", str(tmp_path / name)])
    assert exit.value.code == 1
    assert "explain: --plot: [Errno" in capsys.readouterr().err


PICTURES = [
    ("1x5x5x1, 3x3, 1, stride 2", "dx", (0, 2, 2, 0)),
    ("2x4x4x2, 3x3, 3, pad 1", "y", (1, 0, 1, 2)),
    ("1x5x5x4, 3x3, 4, groups 2", "dw", (0, 1, 1, 3)),
    ("1x9x1, 3, 1, stride 2, pad 1", "dx", (0, 4, 0)),
    ("1x3x3x1, 3x3, 1, stride 2, pad 1, transposed", "y", (0, 2, 1, 0)),
    ("1x3x4x4x1, 2x2x2, 1", "dx", (0, 1, 2, 2, 0)),
    ("2x4x4x3, 3x3, 4", "db", (2,)),
    ("1x56x56x8, 3x3, 8, pad 1", "dx", (0, 40, 0, 5)),
    ("1x7x7x1, 5x5, 1, pad 2", "y", (0, 3, 3, 0)),
]


def drawn(figure):
    """Cells by the name of their element, ``dy[0,1,1,0]``, with their colour."""
    return {p.get_gid(): p.get_facecolor() for p in figure.axes[0].patches if p.get_gid()}


@pytest.mark.parametrize("layer, array, index", PICTURES)
def test_the_lit_cells_are_the_terms(layer, array, index):
    terms = terms_of(layer, array, index)
    cells = drawn(plot_terms(terms, {}, ""))
    picture = picture_of(terms, {})
    expected = {f"{array}{bracketed(index)}"} if array != "db" else set()
    colours = []
    for term in picture.drawn:
        factors = [f"{name}{bracketed(at)}" for name, at in terms.factors(term)]
        expected |= set(factors)
        assert len({cells[factor] for factor in factors}) == 1, "the factors of a term have one colour"
        colours.append(cells[factors[0]])
    assert set(cells) - {"window 0"} == expected
    assert len(set(colours)) == (1 if array == "db" else len(colours)), "no two terms share one"
    # One term for each tied triple, of the first channels and image.
    assert len(picture.drawn) * len(terms.in_channels) * len(terms.out_channels) * len(terms.images) == len(
        terms
    )


@pytest.mark.parametrize("seed", range(4))
def test_the_windows_that_chose(seed):
    explained = explain("1x6x6x1, max 3x3, stride 2", "dx", (0, 2, 2, 0), seed=seed)
    x = explained.arrays["x"].copy()
    x[0, 2, 2, 0] = 8  # large enough that some windows choose it
    explained = explain("1x6x6x1, max 3x3, stride 2", "dx", (0, 2, 2, 0), x=x, dy=explained.arrays["dy"])
    cells, windows = drawn(explained.plot()), picture_of(explained.terms, explained.arrays).windows
    assert [w.chosen for w in windows] == [value != 0 for value in explained.values]
    assert 0 < len(windows) == len(explained.terms)
    for window, term in zip(windows, explained.terms, strict=True):
        lit = cells[f"dy{bracketed(term.y)}"] != (1, 1, 1, 1)
        assert lit == window.chosen
        best = winner(explained.terms.layer, x, term.y)
        assert f"x{bracketed(best)}" in cells
        assert window.spans == tuple(range(2 * o, 2 * o + 3) for o in term.y[1:3])


def test_max_pooling_forwards():
    explained = explain("1x6x6x1, max 3x3, stride 2", "y", (0, 1, 1, 0), seed=0)
    picture = picture_of(explained.terms, explained.arrays)
    kinds = {cell.index: cell.kind for cell in picture.panel("x").cells.values()}
    best = winner(explained.terms.layer, explained.arrays["x"], (0, 1, 1, 0))
    window = {term.x for term in explained.terms}
    assert {index for index, kind in kinds.items() if kind == "factor"} == {best}
    assert {index for index, kind in kinds.items() if kind == "passed"} == window - {best}


def test_padding_and_zeros_between_inputs():
    terms = terms_of("1x3x3x1, 3x3, 1, stride 2, pad 1, transposed", "y", (0, 2, 1, 0))
    cells = picture_of(terms, {}).panel("x").cells
    kinds = {position: cell.kind for position, cell in cells.items()}
    assert set(kinds) == {(a, b) for a in range(-1, 6) for b in range(-1, 6)}
    for (a, b), kind in kinds.items():
        if not (0 <= a <= 4 and 0 <= b <= 4):
            assert kind == "padding"
        elif a % 2 or b % 2:
            assert kind == "zero"
        else:
            assert kind in ("plain", "factor")


def test_values_in_the_cells():
    explained = explain(STRIDED, "dx", (0, 2, 2, 0), seed=6)
    picture = picture_of(explained.terms, explained.arrays)
    for cell in picture.panel("dy").cells.values():
        assert cell.value == explained.arrays["dy"][cell.index]
    assert picture.panel("dx").cells[2, 2].value == explained.total
    written = {text.get_text() for text in explained.plot().axes[0].texts}
    assert {f"{explained.total:g}", str(explained.arrays["w"][0, 0, 0, 0])} <= written


def test_large_arrays_are_cropped():
    picture = picture_of(terms_of("8x56x56x64, 3x3, 64, pad 1", "dx", (7, 40, 0, 5)), {})
    assert all(len(r) <= MOST_CELLS for panel in picture.panels for r in panel.ranges)
    assert "k = 0 is drawn of 0..63" in picture.notes and "large arrays are drawn in part" in picture.notes
    assert (40, 0) in picture.panel("dx").cells


@pytest.mark.parametrize("layer, array, index", [*PICTURES, ("2x28x28x3, 5x5, 4", "dw", (0, 0, 1, 2))])
@pytest.mark.parametrize("values", [False, True])
def test_svg_is_small_and_the_same_every_time(layer, array, index, values, tmp_path):
    files = [tmp_path / "one.svg", tmp_path / "two.svg"]
    for file in files:
        save(explain(layer, array, index, seed=0 if values else None).plot(), str(file))
    one, two = (file.read_bytes() for file in files)
    assert one == two
    assert len(one) < 100_000
    assert b"<text" in one


@pytest.mark.parametrize("layer, array, index", PICTURES)
def test_all_that_is_written_fits(layer, array, index):
    """No text leaves the picture."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = explain(layer, array, index, seed=0).plot()
    renderer = FigureCanvasAgg(figure).get_renderer()
    width, height = figure.canvas.get_width_height()
    for text in figure.axes[0].texts:
        box = text.get_window_extent(renderer)
        inside = min(box.x0, box.y0) >= 0 and box.x1 <= width and box.y1 <= height
        assert inside, text.get_text()


@pytest.mark.parametrize(
    "layer, array, index",
    [
        ("1x5x1, 3, 1", "y", (0, 1, 0)),
        ("1x5x1, 3, 1, stride 2, pad 1", "dx", (0, 1, 0)),
        ("1x8x1, 3, 1", "dw", (1, 0, 0)),
        ("1x9x1, max 3, stride 2, pad 1", "dx", (0, 4, 0)),
    ],
)
def test_no_line_runs_through_a_number(layer, array, index):
    """In one dimension, where lines join the factors of a term."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = explain(layer, array, index, seed=0).plot()
    renderer = FigureCanvasAgg(figure).get_renderer()
    axes = figure.axes[0]
    numbers = [text for text in axes.texts if re.fullmatch(r"-?\d+|[iro]", text.get_text())]
    outside = [text for text in numbers if text.get_fontsize() == 6.5]
    assert len(outside) >= 8 and axes.lines
    for line in axes.lines:
        path = line.get_path().transformed(line.get_transform())
        for text in outside:
            assert not path.intersects_bbox(text.get_window_extent(renderer), filled=False), text.get_text()


def test_slices_of_padding_alone_are_left_out():
    picture = picture_of(terms_of("1x3x4x4x1, 2x2x2, 1, pad 1", "y", (0, 1, 2, 2, 0)), {})
    x = picture.panel("x")
    assert [len(r) for r in x.ranges] == [3, 6, 6]
    assert picture.notes == ["slices of padding alone are left out"]
    assert {position[0] for position, cell in x.cells.items() if cell.kind != "padding"} == {0, 1, 2}
    unpadded = picture_of(terms_of("1x3x4x4x1, 2x2x2, 1", "y", (0, 1, 2, 2, 0)), {})
    assert unpadded.notes == []


def test_the_command_draws(capsys, tmp_path):
    for name in ("picture.svg", "picture.png", "picture.pdf", "picture.jpg"):
        file = tmp_path / name
        assert f"The picture is {file}." in run(capsys, STRIDED, "--values", "--plot", str(file))
        assert file.stat().st_size > 1000
    shapes = terms_of(STRIDED, "dx", (0, 2, 2, 0)).layer.shapes
    svg = (tmp_path / "picture.svg").read_text()
    assert svg.count('id="dy[') == np.prod(shapes["dy"]) and 'id="dx[0,2,2,0]"' in svg


def drawn_data(svg):
    """What a picture shows, whatever matplotlib wrote it: the lit cells with their colours, and the texts."""
    cells = re.findall(r'<g id="([^"]+\])">\s*<path[^>]*?style="[^"]*fill: (#\w+|none)', svg)
    return dict(cells), re.findall(r"<text [^>]*>([^<]*)</text>", svg)


def test_the_figures_of_the_page(tmp_path, monkeypatch):
    """docs/explain.md names the command of each; what it draws today is what the page shows."""
    monkeypatch.chdir(tmp_path)
    docs = Path(__file__).parents[2] / "docs"
    commands = re.findall(
        r"^\$ python -m jax_convgrad (explain .*--plot .*)$", (docs / "explain.md").read_text(), re.M
    )
    names = {shlex.split(command)[-1] for command in commands}
    assert {f"explain_{name}" for name in names} == {file.name for file in docs.glob("images/explain_*.svg")}
    for command in commands:
        assert command_line.main(shlex.split(command)) == 0
        name = shlex.split(command)[-1]
        cells, texts = drawn_data(Path(name).read_text())
        assert len(cells) >= 5 and len(texts) >= 20
        assert (cells, texts) == drawn_data((docs / "images" / f"explain_{name}").read_text()), name


def test_colours_stay_apart():
    """Nine, no two alike, each with a readable number on it."""
    assert len(set(explain_plot.HUES)) == 9

    def luminance(colour):
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    for hue in explain_plot.HUES:
        ink = {"white": 1.0}.get(explain_plot._readable_on(hue), luminance("#1a1a1a"))
        light, dark = sorted((luminance(hue), ink), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5  # WCAG 2.1, AA
