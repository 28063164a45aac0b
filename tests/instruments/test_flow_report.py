"""The report of ``gradient_flow``: its verdicts, its text and its picture."""

import math
import sys

import numpy as np
import pytest
from flows import dot, flow_of, ones

from jax_convgrad import FlowReport, gradient_flow


@pytest.mark.parametrize(
    ("norms", "verdicts", "fall"),
    [
        ((1.0, 0.1, 10.0, 1.0), ["", "", "", ""], (1 / 10) ** (1 / 2)),
        ((0.9e-4, 1.1e-4, 0.1, 1e-3), ["vanishing", "", "", ""], (0.9e-3) ** (1 / 2)),
        ((0.9e-4, 1.1e-4, 1e-9, 0.1), ["vanishing", "", "vanishing", ""], (0.9e-3) ** (1 / 3)),
        ((1.1e4, 0.9e4, 1.0, 10.0), ["exploding", "", "", ""], 1.1e3 ** (1 / 3)),
        ((0.0, 1.0, 1.0), ["dead", "", ""], math.nan),
        ((1.0, 0.0, 0.0), ["", "dead", "dead"], math.nan),
        ((1.0, np.nan, 1.0), ["", "not finite", ""], 1.0),
        ((np.inf, 1e-5, 1.0), ["not finite", "vanishing", ""], math.nan),
        ((1.0, 1e-6, np.inf), ["exploding", "", "not finite"], 1e6),
        ((1.0, np.inf, np.nan), ["", "not finite", "not finite"], math.nan),
        ((3.0,), [""], math.nan),
    ],
)
def test_verdicts(norms, verdicts, fall):
    report = flow_of(*ones(*norms))
    assert [layer.verdict for layer in report.layers] == verdicts
    assert report.fall == pytest.approx(fall, rel=1e-5, nan_ok=True)
    text = report.summary()
    for verdict in ("dead", "vanishing", "exploding", "not finite"):
        assert (f"\n{verdict} (" in text) == (verdict in verdicts)


def test_dead_from_99_percent_of_zeros_on():
    gradients = [np.zeros(1000, np.float32) for _ in range(2)]
    gradients[0][:11], gradients[1][:10] = 1, 1
    report = flow_of(*gradients)
    assert [layer.zero_share for layer in report.layers] == [0.989, 0.99]
    assert [layer.verdict for layer in report.layers] == ["", "dead"]


def test_not_finite_numbers_stay_visible():
    g = [np.float32([1, np.inf, -np.inf, 0]), np.float32([np.nan, np.inf, 1, 1]), np.float32([1, 1, 1, 1])]
    report = gradient_flow(dot, {"l": g, "m": g[2]}, {"l": g, "m": g[2]})
    a, b, c, _ = report.parameters
    assert (a.nonfinite, a.zeros, a.gradient_norm, a.gradient_max) == (2, 1, math.inf, math.inf)
    assert b.nonfinite == 2 and math.isnan(b.gradient_norm) and math.isnan(b.gradient_max)
    assert (c.nonfinite, c.gradient_norm) == (0, 2)
    layer = report.layers[0]
    assert layer.nonfinite == 4 and math.isnan(layer.gradient_norm) and math.isnan(layer.gradient_max)
    assert report.table().rows[0][2] == "nan"


def test_by_parameter_each_array_is_a_row():
    g = {"conv": {"w": np.float32([3, 4]), "b": np.float32([12])}, "end": np.float32([1])}
    report = gradient_flow(dot, g, g)
    assert [(row.name, row.gradient_norm) for row in report.layers] == [("conv", 13), ("end", 1)]
    rows = report.by_parameter().layers
    assert [(row.name, row.gradient_norm) for row in rows] == [("conv/b", 12), ("conv/w", 5), ("end", 1)]


def test_the_text():
    gradients = ones(2e-5, 0.5, 1.0)
    gradients[1] = np.float32([0.3, 0, 0.4])
    lines = str(flow_of(*gradients, learning_rate=0.1)).splitlines()
    assert lines == [
        "layer  size       ‖g‖  mean |g|   max |g|   zeros       ‖w‖  ‖Δw‖/‖w‖  verdict",
        "0         1  2.00e-05  2.00e-05  2.00e-05     0 %  2.00e+00  1.00e-06  vanishing",
        "1         3  5.00e-01  2.33e-01  4.00e-01  33.3 %  3.46e+00  1.44e-02",
        "2         1  1.00e+00  1.00e+00  1.00e+00     0 %  2.00e+00  5.00e-02",
        "",
        "loss 3.40004; Δw is the step of gradient descent with learning rate 0.1",
        "‖g‖ goes from 1.00e+00 in 2 back to 2.00e-05 in 0, by a factor of 0.00447 a layer",
        "vanishing (‖g‖ below a thousandth of 2's): 0",
    ]


def test_at_a_prompt_and_in_a_notebook():
    report = flow_of(*ones(1e-9, 1))
    assert repr(report) == str(report)
    html = report._repr_html_()
    assert html.startswith("<table>") and html.count("<tr>") == 3
    assert "<p>vanishing (‖g‖ below a thousandth of 1&#x27;s): 0</p>" in html


def test_one_zero_among_many_is_not_rounded_away():
    g = np.ones(10**5, np.float32)
    g[0] = 0
    assert flow_of(g).table().rows[0][5] == "0.1 %"
    assert flow_of(1 - g).table().rows[0][5] == "99.9 %"


# ------------------------------------------------------------------------------------------ the picture


def lines_by_label(axes):
    return {line.get_label(): line for line in axes.get_lines()}


def test_the_picture_holds_the_numbers(tmp_path):
    report = flow_of(*ones(1e-9, 1e-3, 1), learning_rate=0.5)
    figure = report.plot(tmp_path / "flow.svg")
    (axes,) = figure.axes
    assert axes.get_yscale() == "log"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "1", "2"]
    lines = lines_by_label(axes)
    norms = [layer.gradient_norm for layer in report.layers]
    np.testing.assert_array_equal(lines["‖g‖, gradient norm"].get_ydata(), norms)
    np.testing.assert_array_equal(lines["mean |g|"].get_ydata(), [row.gradient_mean for row in report.layers])
    ratios = [layer.update_ratio for layer in report.layers]
    np.testing.assert_array_equal(lines["‖Δw‖/‖w‖, update to weight"].get_ydata(), ratios)
    np.testing.assert_array_equal(lines["mean |g|"].get_xdata(), [0, 1, 2])
    assert not {"zero", "NaN or infinite"} & set(lines)
    assert (tmp_path / "flow.svg").read_text().lstrip().startswith("<?xml")


def test_zero_nan_and_infinity_are_drawn_on_the_edges(tmp_path):
    report = flow_of(*ones(0, 1e-3, np.nan, np.inf, 0, 1))
    figure = report.plot(tmp_path / "flow.png")
    (axes,) = figure.axes
    lines = lines_by_label(axes)
    for label, at, edge in (("zero", [0, 4], 0), ("NaN or infinite", [2, 3], 1)):
        np.testing.assert_array_equal(lines[label].get_xdata(), at)
        inside = axes.transAxes.inverted().transform(
            lines[label].get_transform().transform(lines[label].get_xydata())
        )
        np.testing.assert_allclose(inside[:, 1], edge, atol=1e-9)  # of the axes, whatever their limits
        assert label in [text.get_text() for text in axes.get_legend().get_texts()]
    shown = lines["‖g‖, gradient norm"].get_ydata()
    np.testing.assert_array_equal(np.isfinite(shown), [False, True, False, False, False, True])


@pytest.mark.parametrize("norms", [(0, 0), (np.nan, np.inf)], ids=["zero", "not finite"])
@pytest.mark.filterwarnings("error")
def test_a_picture_of_nothing_else(norms, tmp_path):
    flow_of(*ones(*norms)).plot(tmp_path / "flow.png")
    assert (tmp_path / "flow.png").stat().st_size > 1000


def test_the_picture_goes_into_axes_that_are_given(tmp_path):
    from matplotlib.figure import Figure

    figure = Figure()
    left, right = figure.subplots(1, 2)
    assert flow_of(*ones(1, 2)).plot(tmp_path / "both.png", ax=right) is figure
    assert not left.get_lines() and right.get_yscale() == "log"
    assert (tmp_path / "both.png").exists()


@pytest.mark.parametrize(
    "count, name, rotation", [(3, "conv1", 0), (12, "conv1", 90), (3, "encoder" * 5, 90)]
)
def test_names_are_turned_where_they_do_not_fit_beside_each_other(count, name, rotation):
    weights = {f"{name}_{i:02}": np.ones(3, np.float32) for i in range(count)}
    report = gradient_flow(dot, weights, weights)
    (axes,) = report.plot().axes
    assert {label.get_rotation() for label in axes.get_xticklabels()} == {rotation}


def test_of_very_many_layers_some_are_named():
    figure = flow_of(*ones(*range(1, 101))).plot()
    (axes,) = figure.axes
    assert len(lines_by_label(axes)["mean |g|"].get_xdata()) == 100
    names = [label.get_text() for label in axes.get_xticklabels()]
    assert names == [str(i) for i in range(0, 100, 3)]


def test_without_matplotlib_the_extra_is_named(monkeypatch):
    report = flow_of(*ones(1, 2))
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r'pip install "jax_convgrad\[plot\]"'):
        report.plot()


def test_the_reports_type_is_public():
    assert isinstance(flow_of(*ones(1)), FlowReport)
