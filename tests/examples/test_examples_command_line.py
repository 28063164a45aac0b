"""What the examples' command lines share: checked numbers, and pictures into files or windows."""

import importlib
import os
import subprocess
import sys

import numpy as np
import pytest
from examples_run import EXAMPLES

import command_line  # isort: skip


def parse(*arguments):
    parser = command_line.example_parser("Draws.")
    parser.add_argument("--count", type=command_line.positive(int))
    parser.add_argument("--rate", type=command_line.positive(float))
    command_line.add_picture_options(parser, "a line")
    args = parser.parse_args(arguments)
    command_line.check_picture_options(parser, args)
    return args


def test_numbers_are_read():
    args = parse("--count", "3", "--rate", "1e-2", "--seed", "0")
    assert (args.count, args.rate, args.seed) == (3, 0.01, 0)
    assert parse().seed == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--count", "0"), "argument --count: 0 is not greater than zero and finite"),
        (("--count", "1.5"), "argument --count: '1.5' is no whole number"),
        (("--rate", "fast"), "argument --rate: 'fast' is no number"),
        (("--rate", "nan"), "argument --rate: nan is not greater than zero and finite"),
        (("--rate", "inf"), "argument --rate: inf is not greater than zero and finite"),
        (("--seed", "-1"), "argument --seed: -1 is negative"),
        (("--seed", "one"), "argument --seed: 'one' is no whole number"),
        (("--plot", "nowhere/line.png"), "--plot: there is no folder"),
        (("--plot", "."), "--plot: . is a folder, not a file"),
        (("--plot", "line"), "--plot: the name line should end in .png (or "),
        (("--plot", "line.doc"), "--plot: the name line.doc should end in .png (or "),
    ],
)
def test_what_does_not_fit_is_refused(capsys, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as refused:
        parse(*arguments)
    assert refused.value.code == 2
    assert message in capsys.readouterr().err


def test_a_picture_goes_to_its_file_alone(capsys, tmp_path, monkeypatch):
    from matplotlib import pyplot
    from matplotlib.image import imread

    monkeypatch.setattr(pyplot, "show", lambda: pytest.fail("a window was opened"))
    args = parse("--plot", str(tmp_path / "line.PNG"))
    figure = command_line.new_figure(args, figsize=(2, 1), dpi=50)
    figure.add_axes((0, 0, 1, 1)).axhspan(0.5, 1.0, color="red")
    command_line.hand_over(figure, args)
    assert capsys.readouterr().out == f"picture drawn into {args.plot}\n"
    drawn = imread(args.plot)
    assert drawn.shape[:2] == (50, 100)
    assert (np.abs(drawn[..., :3] - (1, 0, 0)).max(-1) < 0.01).mean() > 0.2


def test_show_needs_a_screen(capsys):
    """Told before the work: matplotlib itself only warns, and only at the end."""
    from matplotlib import pyplot

    pyplot.switch_backend("agg")
    with pytest.raises(SystemExit) as refused:
        parse("--show")
    assert refused.value.code == 2
    assert "--show: no window can be opened here" in capsys.readouterr().err


# A stand-in for a window: it writes down what it is asked to show.
WINDOW = """
from matplotlib.backends.backend_agg import FigureCanvasAgg as FigureCanvas
from matplotlib.backend_bases import FigureManagerBase as FigureManager, Gcf

def show(*args, **kwargs):
    for manager in Gcf.get_all_fig_managers():
        manager.canvas.figure.savefig("shown.png")
"""


def test_show_shows_the_figure(tmp_path):
    (tmp_path / "window.py").write_text(WINDOW)
    program = (
        "import sys; sys.path[:0] = sys.argv[1:]\n"
        "import argparse, command_line\n"
        "parser = command_line.example_parser('')\n"
        "command_line.add_picture_options(parser, 'nothing')\n"
        "args = parser.parse_args(['--show'])\n"
        "command_line.check_picture_options(parser, args)\n"
        "figure = command_line.new_figure(args)\n"
        "command_line.hand_over(figure, args)\n"
    )
    subprocess.run(
        [sys.executable, "-c", program, str(EXAMPLES), str(tmp_path)],
        cwd=tmp_path,
        env={**os.environ, "MPLBACKEND": "module://window"},
        check=True,
        timeout=120,
    )
    assert (tmp_path / "shown.png").stat().st_size > 500


@pytest.mark.parametrize("name", ["train_cnn", "segmentation", "flax_model", "custom_layer"])
def test_help_tells_the_commands(capsys, name):
    with pytest.raises(SystemExit) as finished:
        importlib.import_module(name).parse_arguments(["--help"])
    assert finished.value.code == 0
    text = capsys.readouterr().out
    assert f"python examples/{name}.py" in text and "--seed" in text
