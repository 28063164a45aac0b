"""``python -m jax_convgrad explain``: its text, errors and JSON, and which cells its picture lights."""

import builtins
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from jax_convgrad import __main__ as command_line
from jax_convgrad import explain
from jax_convgrad.instruments import terms_plot
from jax_convgrad.instruments.elements import bracketed, shapes_of
from jax_convgrad.instruments.explain_command import as_dict
from jax_convgrad.instruments.explanation_text import MOST_LINES, as_text
from jax_convgrad.instruments.terms import terms_of, winner
from jax_convgrad.instruments.terms_picture import MOST_CELLS, picture_of
from jax_convgrad.instruments.terms_plot import plot_terms, save

STRIDED = "1x5x5x1, 3x3, 1, stride 2"


def run(capsys, *arguments):
    assert command_line.main(["explain", *arguments]) == 0
    return capsys.readouterr().out


def refused(capsys, *arguments):
    with pytest.raises(SystemExit) as exit:
        command_line.main(["explain", *arguments])
    assert exit.value.code == 2
    return capsys.readouterr().err


def test_the_text(capsys):
    assert run(capsys, STRIDED, "--dx", "0,2,1,0").splitlines() == [
        "1x5x5x1, 3x3, 1, stride 2",
        "x [1,5,5,1], w [3,3,1,1], y [1,2,2,1]",
        "",
        "dx[0,2,1,0] = sum over r, k of dy[0,o,k] * w[r,0,k]",
        "where o*2 + r = i along each axis",
        "",
        "Axis 0, i = 2",
        "  r = 0:  o = (2 - 0)/2 = 1",
        "  r = 1:  no output: (2 - 1)/2 leaves a remainder",
        "  r = 2:  o = (2 - 2)/2 = 0",
        "",
        "Axis 1, i = 1",
        "  r = 0:  no output: (1 - 0)/2 leaves a remainder",
        "  r = 1:  o = (1 - 1)/2 = 0",
        "  r = 2:  no output: (1 - 2)/2 leaves a remainder",
        "",
        "2 terms, 2 of 9 taps:",
        "  dy[0,1,0,0] * w[0,1,0,0]",
        "  dy[0,0,0,0] * w[2,1,0,0]",
    ]


@pytest.mark.parametrize(
    "arguments, parts",
    [
        (["1x5x5x1, 3x3, 1, pad 1", "--y", "0,0,4,0"],
         ["where o + r - 1 = i along each axis",
          "no input: 0 + 0 - 1 = -1 is on the padding before the first input",
          "no input: 4 + 2 - 1 = 5 is on the padding behind the last input, 4",
          "4 terms, 4 of 9 taps:"]),
        (["1x5x5x1, 3x3, 1", "--dx", "0,0,4,0"],
         ["no output: 0 - 2 = -2 is before the first output",
          "no output: 4 - 0 = 4 is past the last output, 2"]),
        (["1x9x1, 3, 1, pad -1", "--dx", "0,0,0"], ["o + r + 1 = i",
          "0 - 1 - 0 = -1 is before the first output",
          "No terms: dx[0,0,0] is 0"]),
        (["1x3x2, 3, 4, stride 2, transposed", "--y", "0,2,3"],
         ["o + r - 2 = i*2",
          "r = 1:  no input: (2 + 1 - 2)/2 leaves a remainder: a zero between inputs 0 and 1",
          "r = 2:  i = (2 + 2 - 2)/2 = 1", "4 terms, 2 of 3 taps x 2 input channels:"]),
        (["1x9x4, 3, 6, groups 2, dilation 1", "--dw", "1,1,4"],
         ["in group 1 of 2, input channels 2..3 and output channels 3..5; w counts c in its group",
          "dw[1,1,4] = sum over n, o of x[n,i,3] * dy[n,o,4]", "7 terms, 7 of 7 outputs:",
          "x[0,7,3] * dy[0,6,4]"]),
        (["2x4x5x1, 3x3, 2, stride 1x2", "--y", "1,0,1,1"],
         ["where o + r = i along axis 0, o*2 + r = i along axis 1"]),
        (["2x4x5x1, 3x3, 2", "--db", "1"],
         ["db[1] = sum over n, o of dy[n,o,1]", "2 images x 6 of 6 outputs"]),
        (["1x6x6x1, max 3x3, stride 2", "--dx", "0,2,2,0"],
         ["dx[0,2,2,0] = sum of dy[0,o,0] over the windows o whose maximum is x[0,2,2,0]",
          "4 windows hold x[0,2,2,0], by 4 of 9 taps"]),
        (["1x6x6x1, max 3x3, stride 2", "--y", "0,1,1,0"], ["y[0,1,1,0] = max over r of x[0,i,0]"]),
        (["1x6x6x1, avg 3x3, stride 2, pad 1", "--dx", "0,0,1,0"], ["sum over r of dy[0,o,0] / 9",
          "dy[0,0,1,0] / 9"]),
        (["1x6x6x1, avg 3x3, stride 2, pad 1, exclude pad", "--dx", "0,0,1,0"],
         ["dy[0,o,0] / count(o)", "dy[0,0,1,0] / 6", "dy[0,0,0,0] / 4"]),
        (["1x4x1, avg 2, pad 3, exclude pad", "--y", "0,0,0"],
         ["on padding alone: y[0,0,0] is 0/0, which is NaN"]),
        (["1x4x1, max 2, pad 3", "--y", "0,0,0"], ["on padding alone: y[0,0,0] is -inf"]),
    ],
)  # fmt: skip
def test_what_it_says(arguments, parts, capsys):
    text = run(capsys, *arguments)
    for part in parts:
        assert part in text, text


def test_no_element_is_named(capsys):
    text = run(capsys, STRIDED)
    assert text.startswith("No element is named; this is the middle of dx.")
    assert text.endswith(run(capsys, STRIDED, "--dx", "0,2,2,0"))


def test_flags_are_the_text(capsys):
    by_text = run(capsys, "2x5x6x4, 3x3, 4, stride 2x1, pad 1, dilation 1x2, groups 2", "--dw", "0,1,1,3")
    flags = {"input": "2x5x6x4", "filter": "3x3", "channels": "4", "stride": "2x1", "pad": "1"}
    flags |= {"dilation": "1x2", "groups": "2", "dw": "0,1,1,3"}
    assert run(capsys, *(f"--{name}={value}" for name, value in flags.items())) == by_text
    upward = run(capsys, "1x3x2, 3, 4, stride 2, transposed")
    flags = ["--input=1x3x2", "--filter=3", "--channels=4", "--stride=2", "--transposed"]
    assert run(capsys, *flags) == upward
    pooled = run(capsys, "1x6x1, avg 3, pad 1, exclude pad")
    assert run(capsys, "--input=1x6x1", "--avg-pool=3", "--pad=1", "--exclude-pad") == pooled


def test_the_numbers(capsys):
    """They are the arrays' own, and add up to what the kernel returns."""
    text = run(capsys, STRIDED, "--dx", "0,2,2,0", "--values", "--seed", "3")
    explained = explain(STRIDED, "dx", (0, 2, 2, 0), seed=3)
    dy, w = explained.arrays["dy"], explained.arrays["w"]
    products = [(dy[0, 1, 1, 0], w[0, 0, 0, 0]), (dy[0, 1, 0, 0], w[0, 2, 0, 0])]
    for a, b in products:
        numbers = " * ".join(f"({v})" if v < 0 else str(v) for v in (a, b))
        assert re.search(rf"{re.escape(numbers)} +=  +{a * b}\b", text), text
    assert f"conv_input_grad returns {explained.total}: the same." in text
    assert text == run(capsys, STRIDED, "--dx", "0,2,2,0", "--seed", "3")
    assert text != run(capsys, STRIDED, "--dx", "0,2,2,0", "--values")


def test_which_window_chose(capsys):
    text = run(capsys, "1x6x6x1, max 3x3, stride 2", "--dx", "0,2,2,0", "--seed", "39")
    explained = explain("1x6x6x1, max 3x3, stride 2", "dx", (0, 2, 2, 0), seed=39)
    facts = as_dict(explained)["terms"]
    assert {fact["maximum"] == (0, 2, 2, 0) for fact in facts} == {True, False}
    assert [fact["value"] != 0 for fact in facts] == [f["maximum"] == (0, 2, 2, 0) for f in facts]
    for term in explained.terms:
        best = winner(explained.terms.layer, explained.arrays["x"], term.y)
        chosen = best == (0, 2, 2, 0)
        which = f"its window's maximum is {'this input' if chosen else f'x{bracketed(best)}'}"
        line = next(line for line in text.splitlines() if line.startswith(f"  dy{bracketed(term.y)}"))
        value = explained.arrays["dy"][term.y]
        assert re.search(rf"= +{value}  {'' if chosen else 'not added, '}{re.escape(which)}$", line), line
    assert "the gradient of max_pool returns" in text


def test_an_answer_that_is_wrong(monkeypatch):
    """It is said, and a difference that is only rounding is called that."""
    explained = explain(STRIDED, seed=0)
    for answer, verdict in ((explained.total + 1, "more than"), (explained.total + 1e-7, "within")):
        wrong = type(explained)(**{**vars(explained), "kernel": ("conv_input_grad", np.float32(answer))})
        if np.float32(answer) != explained.total:
            assert f"{verdict} the rounding of float32" in str(wrong)
    rounded = explain("1x9x1, avg 3", "dx", (0, 4, 0), seed=1)
    assert "the same." in str(rounded) or "within the rounding of float32" in str(rounded)
    assert "more than" not in str(rounded)


def test_many_terms(capsys):
    text = run(capsys, "8x56x56x64, 3x3, 64, pad 1", "--dx", "3,0,5,7")
    assert "384 terms, 6 of 9 taps x 64 output channels:" in text
    assert "dy[3,1,6,0..63] * w[0,0,7,0..63]" in text
    everything = run(capsys, "8x56x56x64, 3x3, 64, pad 1", "--dx", "3,0,5,7", "--all")
    assert everything.count(" * w[") == 384 + 1  # and once in the formula

    text = run(capsys, "2x28x28x3, 5x5, 4", "--dw", "0,0,1,2", "--values")
    listed = [line for line in text.splitlines() if line.startswith("  x[")]
    assert 10 < len(listed) < MOST_LINES
    assert f"... {2 * 24 * 24 - len(listed)} more, which --all prints" in text
    assert listed[-1].startswith("  x[1,23,23,1] * dy[1,23,23,2]")
    assert "r = 0" in text and "which --all prints" in text
    everything = run(capsys, "2x28x28x3, 5x5, 4", "--dw", "0,0,1,2", "--values", "--all")
    assert everything.count(" * dy[") == 2 * 24 * 24 + 1


def test_partial_sums_of_channels():
    explained = explain("1x9x32, 3, 4", "y", (0, 2, 1), seed=4)
    text = as_text(explained)
    for r in range(3):
        partial = explained.values[32 * r : 32 * r + 32].sum()
        assert re.search(rf"x\[0,{2 + r},0\.\.31\] \* w\[{r},0\.\.31,1\] +=  +{partial}\n", text), text


def test_for_programs(capsys):
    text = run(capsys, "1x5x5x2, 3x3, 3, stride 2", "--dx", "0,2,2,1", "--values", "--json")
    facts = json.loads(text)
    explained = explain("1x5x5x2, 3x3, 3, stride 2", "dx", (0, 2, 2, 1), seed=0)
    assert facts == json.loads(json.dumps(as_dict(explained)))
    w, dy = explained.arrays["w"], explained.arrays["dy"]
    for term in facts["terms"]:
        assert term["value"] == w[tuple(term["w"])] * dy[tuple(term["dy"])]
    assert len(facts["terms"]) == 12
    assert sum(term["value"] for term in facts["terms"]) == facts["total"] == facts["kernel"]["returns"]
    assert facts["axes"][0][1] == {
        "i": 2,
        "r": 1,
        "solution": "no output: (2 - 1)/2 leaves a remainder",
    }
    empty = json.loads(run(capsys, "1x4x1, max 2, pad 3", "--y", "0,0,0", "--values", "--json"))
    assert empty["total"] == empty["kernel"]["returns"] == "-inf"


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "a layer is needed, as in"),
        (["8x56x56x64, 3, 64"], "the filter '3' should have 2 sizes"),
        (["1x6x6x1, max 3"], "the window '3' should have 2 sizes"),
        (["1x6x6x1, mean 3x3"], "should begin with max or avg"),
        ([STRIDED, "--dx", "0,2,2"], "has 4 indices, dx[n,i0,i1,c], not the 3"),
        ([STRIDED, "--dx", "0,5,2,0"], "i0 is 5, and dx is of shape [1,5,5,1]"),
        ([STRIDED, "--dw", "0,0,0,two"], "should be indices with commas between them: r0,r1,c,k"),
        ([STRIDED, "--dx", "0,1,1,0", "--dw", "0,0,0,0"], "not allowed with"),
        (["1x6x6x1, max 3x3", "--dw", "0,0,0,0"], "--dw: pooling has no filter"),
        (["1x6x6x1, max 3x3", "--db", "0"], "--db: pooling has no bias"),
        ([STRIDED, "--stride", "2"], "the layer is given as text, so --stride"),
        (["--input", "1x5x1", "--filter", "3"], "--channels is needed"),
        (["--filter", "3x3"], "a layer is needed"),
        (["--input", "1x5x1", "--max-pool", "3", "--avg-pool", "3"], "--max-pool takes no"),
        (["--input", "1x5x1", "--max-pool", "3", "--filter", "3"], "--max-pool takes no filter"),
        (["--input", "1x5x1", "--max-pool", "3", "--groups", "2"], "'groups 2' is not known"),
        ([STRIDED, "--seed", "-1"], "--seed should not be negative"),
        ([STRIDED, "--dx", "-1,2,2,0"], "dx[-1,2,2,0] does not exist: n is -1"),
        ([STRIDED, "--plot", "picture.xyz"], "--plot: the name picture.xyz should end in .png, .svg or .pdf"),
        ([STRIDED, "--plot", "picture"], "--plot: the name picture should end in"),
        ([STRIDED, "--plot", "nodir/picture.png"], "--plot: there is no folder nodir"),
        ([STRIDED, "--plot", "."], "--plot: . is a folder"),
        (["of no layer", "--plot", "nodir/picture.png"], "--plot: there is no folder nodir"),
        (["512x512x512x512, 3x3, 64", "--values"], "are too many: take a smaller one"),
    ],
)
def test_what_is_refused(arguments, message, capsys):
    assert message in refused(capsys, *arguments)


def test_what_is_wrong_is_said_in_a_line(capsys):
    """The ten lines of usage are for words that are no options."""
    for arguments in ([STRIDED, "--dx", "0,2,2"], ["8x56x56x64, 3, 64"], [STRIDED, "--plot", "x.xyz"]):
        told = refused(capsys, *arguments)
        assert told.startswith("explain: ") and told.count("\n") == 1, told
    assert refused(capsys, STRIDED, "--dz", "0").startswith("usage: ")


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
    cells = drawn(plot_terms(terms))
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
    shapes = shapes_of(terms_of(STRIDED, "dx", (0, 2, 2, 0)).layer)
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
    assert len(set(terms_plot.HUES)) == 9

    def luminance(colour):
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    for hue in terms_plot.HUES:
        ink = {"white": 1.0}.get(terms_plot._readable_on(hue), luminance("#1a1a1a"))
        light, dark = sorted((luminance(hue), ink), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5  # WCAG 2.1, AA


def test_in_a_notebook():
    html = explain("1x5x1, 3, 1", "dx", (0, 2, 0))._repr_html_()
    assert html.startswith("<pre>") and "dx[0,2,0] = sum over r, k" in html
