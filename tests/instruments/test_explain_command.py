"""``python -m jax_convgrad explain``: its text, errors and JSON, and which cells its picture lights."""

import json
import re

import numpy as np
import pytest

from jax_convgrad import __main__ as command_line
from jax_convgrad import explain
from jax_convgrad.instruments.explanation import MOST_LINES
from jax_convgrad.instruments.terms import bracketed, winner

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
    facts = explained.as_dict()["terms"]
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
    text = explained.text()
    for r in range(3):
        partial = explained.values[32 * r : 32 * r + 32].sum()
        assert re.search(rf"x\[0,{2 + r},0\.\.31\] \* w\[{r},0\.\.31,1\] +=  +{partial}\n", text), text


def test_for_programs(capsys):
    text = run(capsys, "1x5x5x2, 3x3, 3, stride 2", "--dx", "0,2,2,1", "--values", "--json")
    facts = json.loads(text)
    explained = explain("1x5x5x2, 3x3, 3, stride 2", "dx", (0, 2, 2, 1), seed=0)
    assert facts == json.loads(json.dumps(explained.as_dict()))
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
        ([], "the following arguments are required: layer"),
        (["8x56x56x64, 3, 64"], "the filter '3' should have 2 sizes"),
        (["1x6x6x1, max 3"], "the window '3' should have 2 sizes"),
        (["1x6x6x1, mean 3x3"], "should begin with max or avg"),
        ([STRIDED, "--dx", "0,2,2"], "has 4 indices, dx[n,i0,i1,c], not the 3"),
        ([STRIDED, "--dx", "0,5,2,0"], "i0 is 5, and dx is of shape [1,5,5,1]"),
        ([STRIDED, "--dw", "0,0,0,two"], "should be indices with commas between them: r0,r1,c,k"),
        ([STRIDED, "--dx", "0,1,1,0", "--dw", "0,0,0,0"], "not allowed with"),
        (["1x6x6x1, max 3x3", "--dw", "0,0,0,0"], "--dw: pooling has no filter"),
        (["1x6x6x1, max 3x3", "--db", "0"], "--db: pooling has no bias"),
        (["1x5x1, max 3, groups 2"], "'groups 2' is not known"),
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


def test_in_a_notebook():
    html = explain("1x5x1, 3, 1", "dx", (0, 2, 0))._repr_html_()
    assert html.startswith("<pre>") and "dx[0,2,0] = sum over r, k" in html
