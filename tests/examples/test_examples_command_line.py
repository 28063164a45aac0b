"""Each example runs when it is copied alone, and what several have in common is the same text in each."""

import argparse
import importlib
import inspect
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from examples_run import EXAMPLES

# The shortest run of each that trains.
SHORT = {
    "train_cnn": ["--epochs", "1", "--plot", "curves.png"],
    "gradient_flow": ["--steps", "1", "--plot", "flow.png"],
    "segmentation": ["--steps", "1", "--size", "16", "--plot", "segmentation.png"],
    "flax_model": ["--epochs", "1"],
    "custom_layer": ["--epochs", "1", "--plot", "curves.png"],
    "train_distributed": ["--steps", "1", "--processes", "1"],
}


def test_every_example_is_tried():
    assert {path.stem for path in EXAMPLES.iterdir() if path.is_file()} == set(SHORT)


@pytest.mark.parametrize("name", SHORT)
def test_it_runs_copied_alone_into_an_empty_folder(name, tmp_path):
    shutil.copy(EXAMPLES / f"{name}.py", tmp_path)
    done = subprocess.run(
        [sys.executable, f"{name}.py", *SHORT[name]],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    for option, value in zip(SHORT[name], SHORT[name][1:], strict=False):
        if option == "--plot":
            assert f"picture drawn into {value}\n" in done.stdout
            assert (tmp_path / value).stat().st_size > 10_000


EVERYWHERE = ("Digits", "load_bundled", "shuffled_batches", "shift_randomly", "positive", "picture")
DIGIT_READERS = ("train_cnn", "custom_layer", "train_distributed")


@pytest.mark.parametrize(
    ("function", "examples"), [*((name, SHORT) for name in EVERYWHERE), ("init_params", DIGIT_READERS)]
)
def test_what_several_have_in_common_is_the_same_text(function, examples):
    modules = [importlib.import_module(name) for name in examples]
    texts = [inspect.getsource(getattr(m, function)) for m in modules if hasattr(m, function)]
    assert len(texts) > 2 and len(set(texts)) == 1


@pytest.mark.parametrize("name", SHORT)
@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        (int, "0", "0 is not greater than zero and finite"),
        (float, "nan", "nan is not greater than zero and finite"),
        (float, "inf", "inf is not greater than zero and finite"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(name, kind, text, message):
    positive = importlib.import_module(name).positive(kind)
    assert positive("3") == 3
    with pytest.raises(argparse.ArgumentTypeError, match=message):
        positive(text)
    with pytest.raises(ValueError):
        positive("many")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nowhere/line.png", "there is no folder .*nowhere"),
        (".", "the name . should end in .png, .pdf or .svg"),
        ("line", "the name line should end in .png, .pdf or .svg"),
        ("line.doc", "the name line.doc should end in .png, .pdf or .svg"),
    ],
)
def test_pictures_that_cannot_be_written_are_refused(text, message):
    picture = importlib.import_module("train_cnn").picture
    assert picture("line.PNG") == Path("line.PNG")
    with pytest.raises(argparse.ArgumentTypeError, match=message):
        picture(text)


@pytest.mark.parametrize("name", SHORT)
def test_help_tells_the_commands(name, capsys, monkeypatch):
    module = importlib.import_module(name)
    monkeypatch.setattr("sys.argv", [f"{name}.py", "--help"])
    with pytest.raises(SystemExit) as finished:
        module.main()
    assert finished.value.code == 0
    text = capsys.readouterr().out
    assert f"python examples/{name}.py" in text and "--seed" in text
