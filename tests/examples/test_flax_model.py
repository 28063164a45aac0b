"""The Flax example: by each way the kernels get under the model, and the losses stay those of lax."""

import re

import flax_model
import numpy as np
import pytest
from examples_run import run_example

import jax_convgrad

WAYS = ["argument", "replace", "install"]


@pytest.fixture(scope="module")
def digits():
    return flax_model.load_bundled()


@pytest.mark.parametrize("by", WAYS)
def test_the_model_runs_on_the_kernels_and_its_twin_on_lax(digits, by):
    args = flax_model.parse_arguments(["--by", by, "--batch-size", "16", "--epochs", "1"])
    on_lax, on_ours = flax_model.prepare(digits, args)
    for run, kernels in (
        (on_lax, dict(fprop=0, dgrad=0, wgrad=0)),
        (on_ours, dict(fprop=2, dgrad=1, wgrad=2)),
    ):
        text = run.lowered.as_text()
        assert {op: len(re.findall(rf"@jax_convgrad_{op}\b", text)) for op in kernels} == kernels
        assert ("stablehlo.convolution" in text) == (run is on_lax)

    # Momentum passes a gradient's rounding on as it is: see test_train_cnn.py.
    for start in range(0, 8 * 16, 16):
        for run in (on_lax, on_ours):
            run.step(digits.train_images[start : start + 16], digits.train_labels[start : start + 16])
    assert len(set(on_lax.losses)) == 8
    np.testing.assert_allclose(on_ours.losses, on_lax.losses, rtol=2e-6)


def test_install_is_taken_back(digits):
    import jax

    args = flax_model.parse_arguments(["--by", "install", "--batch-size", "16", "--epochs", "1"])
    flax_model.prepare(digits, args)
    x, w = np.zeros((1, 1, 4, 4), np.float32), np.zeros((1, 1, 2, 2), np.float32)
    text = jax.jit(lambda x, w: jax.lax.conv(x, w, (1, 1), "VALID")).lower(x, w).as_text()
    assert "stablehlo.convolution" in text and "jax_convgrad" not in text


def test_losses_that_differ_end_the_program(digits, monkeypatch):
    ours = jax_convgrad.conv_general_dilated

    def slightly_wrong(*args, **options):
        return ours(*args, **options) * np.float32(1.001)

    monkeypatch.setattr(jax_convgrad, "conv_general_dilated", slightly_wrong)
    args = flax_model.parse_arguments(["--batch-size", "64", "--epochs", "1"])
    runs = flax_model.prepare(digits, args)
    flax_model.train(*runs, digits, args)
    with pytest.raises(SystemExit, match="more than rounding"):
        flax_model.report(*runs, digits)


def test_the_example_agrees_with_lax_and_learns():
    result = run_example("flax_model", "--epochs", 3)
    assert result.returncode == 0, result.stderr
    steps = re.findall(r"^ *(\d+) +(\d\.\d+) +(\d\.\d+) +(\S+)$", result.stdout, re.MULTILINE)
    assert [int(step) for step, *_ in steps] == [1, 2, 3, 10, 30, 100, 132]
    for _, on_lax, on_ours, difference in steps:
        # The losses are printed to seven digits behind the point, so their quotient is off by as much.
        assert abs(float(on_ours) / float(on_lax) - 1) == pytest.approx(float(difference), abs=2e-6)
    found = re.findall(r"^on (.+?) +(\d+) steps/s .* test accuracy: (\S+)$", result.stdout, re.MULTILINE)
    assert [name for name, *_ in found] == ["lax", "the kernels"]
    assert all(float(rate) > 0 and float(accuracy) > 0.9 for _, rate, accuracy in found)


def test_without_flax_it_says_what_to_install(tmp_path):
    (tmp_path / "flax.py").write_text("raise ModuleNotFoundError(\"No module named 'flax'\")")
    result = run_example("flax_model", PYTHONPATH=str(tmp_path))
    assert result.returncode == 1
    assert "No module named 'flax': this example needs flax" in result.stderr
    assert "pip install '.[examples]'" in result.stderr
