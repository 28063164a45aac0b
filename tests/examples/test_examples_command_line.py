"""Each example runs when it is copied alone, and what several have in common is the same text in each."""

import argparse
import importlib
import inspect
from pathlib import Path

import pytest
from examples_run import EXAMPLES

NAMES = sorted(path.stem for path in EXAMPLES.glob("*.py"))


def test_every_example_is_run_alone():
    """Nothing else lies beside the scripts; and the tests of each run it, which is from an empty folder."""
    assert {path.name for path in EXAMPLES.iterdir() if path.is_file()} == {f"{name}.py" for name in NAMES}
    tests = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    assert [name for name in NAMES if f'run_example("{name}"' not in tests] == []


EVERYWHERE = ("Digits", "load_bundled", "shuffled_batches", "shift_randomly", "positive", "picture")
DIGIT_READERS = ("train_cnn", "custom_layer", "train_distributed")


@pytest.mark.parametrize(
    ("function", "examples"), [*((name, NAMES) for name in EVERYWHERE), ("init_params", DIGIT_READERS)]
)
def test_what_several_have_in_common_is_the_same_text(function, examples):
    modules = [importlib.import_module(name) for name in examples]
    texts = [inspect.getsource(getattr(m, function)) for m in modules if hasattr(m, function)]
    assert len(texts) > 2 and len(set(texts)) == 1


@pytest.mark.parametrize("name", NAMES)
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
        ("nowhere/line.png", "the folder .*nowhere does not exist"),
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


@pytest.mark.parametrize("name", NAMES)
def test_help_tells_the_commands(name, capsys, monkeypatch):
    module = importlib.import_module(name)
    monkeypatch.setattr("sys.argv", [f"{name}.py", "--help"])
    with pytest.raises(SystemExit) as finished:
        module.main()
    assert finished.value.code == 0
    text = capsys.readouterr().out
    assert f"python examples/{name}.py" in text and "--seed" in text
