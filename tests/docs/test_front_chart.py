"""The front page's chart is drawn from the committed results, and its bars have the right lengths."""

import json
import math
import sys
from pathlib import Path
from xml.etree import ElementTree

import chart
import pytest
from chart import TIMES

ROOT = Path(__file__).parents[2]

FOLDER = ROOT / "docs" / "performance"
RESULTS = json.loads((FOLDER / "results.json").read_text())
SVG = "{http://www.w3.org/2000/svg}"


def median(name, op, who):
    """One op's time in the committed results."""
    (entry,) = [entry for entry in RESULTS["layers"] if (entry["name"], entry["op"]) == (name, op)]
    return entry["seconds"][who]["median"]


def test_the_committed_pictures_are_drawn_from_the_committed_results(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["chart.py", str(FOLDER / "results.json"), "-o", str(tmp_path)])
    chart.main()
    drawn = [Path(line) for line in capsys.readouterr().out.split()]
    assert [path.name for path in drawn] == ["chart-light.svg", "chart-dark.svg"]
    for path in drawn:
        assert path.read_bytes() == (FOLDER / path.name).read_bytes()


def test_a_ratio_is_of_the_forward_pass_and_the_gradients():
    found = {row.label: row.ratios for row in chart.rows(RESULTS)}
    assert len(found) == 9
    ops = ("fprop", "dgrad", "wgrad")
    for peer in ("lax", "torch"):
        theirs, ours = (sum(median("resnet50.conv1", op, who) for op in ops) for who in (peer, "ours"))
        assert found["ResNet-50: first layer"][peer] == pytest.approx(theirs / ours)
        # Timed together, so the forward pass alone does not count again.
        theirs, ours = (median("max.3x3.112", "fprop+dgrad", who) for who in (peer, "ours"))
        assert found[f"Max pooling 3{TIMES}3"][peer] == pytest.approx(theirs / ours)
        step = RESULTS["training"]
        expected = step[peer]["seconds"]["median"] / step["ours"]["seconds"]["median"]
        assert found["A small CNN: training step"][peer] == pytest.approx(expected)


@pytest.mark.parametrize("name", chart.THEMES)
def test_bars_are_as_long_as_their_numbers_say(name):
    root = ElementTree.parse(FOLDER / f"chart-{name}.svg").getroot()
    theme = chart.THEMES[name]
    (equal,) = [float(line.get("x1")) for line in root.iter(f"{SVG}line") if line.get("stroke") == theme.text]
    marks = {text.text: float(text.get("x")) for text in root.iter(f"{SVG}text") if text.text.endswith(TIMES)}
    decade = marks[f"10{TIMES}"] - marks[f"1{TIMES}"]
    assert marks[f"1{TIMES}"] == equal
    for peer in ("lax", "torch"):
        colour = getattr(theme, peer)
        _, *bars = [rect for rect in root.iter(f"{SVG}rect") if rect.get("fill") == colour]
        ratios = [row.ratios[peer] for row in chart.rows(RESULTS)]
        assert len(bars) == len(ratios) == 9
        for bar, ratio in zip(bars, ratios, strict=True):
            left, width = float(bar.get("x")), float(bar.get("width"))
            assert width == pytest.approx(abs(math.log10(ratio)) * decade, abs=0.2)
            assert (left if ratio > 1 else left + width) == pytest.approx(equal, abs=0.2)


def test_a_layer_on_which_a_peer_is_ahead_is_shown():
    ratios = [row.ratios["torch"] for row in chart.rows(RESULTS)]
    assert min(ratios) < 0.7 and sum(ratio < 1 for ratio in ratios) >= 2


@pytest.mark.parametrize("lacking", ["layers", "training"])
def test_a_run_of_other_layers_has_no_chart(tmp_path, monkeypatch, lacking):
    results = (
        RESULTS | {"layers": RESULTS["layers"][3:]} if lacking == "layers" else RESULTS | {"training": {}}
    )
    assert chart.draw(results, tmp_path) == []
    (tmp_path / "results.json").write_text(json.dumps(results))
    monkeypatch.setattr(sys, "argv", ["chart.py", str(tmp_path / "results.json")])
    with pytest.raises(SystemExit) as stopped:
        chart.main()
    assert stopped.value.code == 1
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]
