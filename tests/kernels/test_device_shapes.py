"""Parts of a run on a GPU that the emulator can also run: kernels by name, and a bounded suite."""

import os
import subprocess
import sys
from pathlib import Path

import backends
import device_shapes
import pytest
from served import serves

from jax_convgrad.primitives import targets

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SUPPORT = ROOT / "tests" / "support"
only_reference = pytest.mark.parametrize("backend", [backends.cuda_backend("reference")], indirect=True)


def run(*arguments, **environment):
    env = dict(os.environ, PYTHONPATH=os.pathsep.join(path for path in sys.path if path), **environment)
    return subprocess.run(
        [sys.executable, *arguments], env=env, capture_output=True, text=True, timeout=200, cwd=ROOT
    )


@only_reference
def test_the_suite_knows_every_kernel(backend):
    """The suite names every kernel of the native module; another one would have no test."""
    kernels = targets.backends[backends.PLATFORM].module.kernels()
    assert set(kernels) >= set(backends.KERNELS)
    for kernel in set(kernels) - set(backends.KERNELS):
        assert (HERE / f"test_{kernel}.py").exists(), f"no suite and no file of its own for {kernel!r}"


@only_reference
def test_every_kernel_serves_one_of_the_shapes(backend):
    module = targets.backends[backends.PLATFORM].module
    for kernel in module.kernels():
        served = {
            op
            for op in device_shapes.OPS
            for case in device_shapes.CASES
            for dtype, _, factors_eps in device_shapes.ARITHMETICS.values()
            if serves(module, kernel, op, case, dtype, factors_eps > 0)
        }
        assert served, f"{kernel} is never called"


@only_reference
@pytest.mark.parametrize("without", ["bias", "relu"])
def test_the_epilogue_is_checked(backend, monkeypatch, without):
    """A layer that omits a part of the epilogue is reported by name."""
    case, real = device_shapes.CASES[2], device_shapes.jc.conv
    assert device_shapes.run_conv("reference", case, "bfloat16") == 4
    lacking = {"bias": lambda x, w, b, **how: real(x, w, **how),
               "relu": lambda x, w, b, **how: real(x, w, b, **{**how, "activation": None})}  # fmt: skip
    monkeypatch.setattr(device_shapes.jc, "conv", lacking[without])
    with pytest.raises(AssertionError, match=r"fprop with bias and relu of 2d_few_channels in bfloat16"):
        device_shapes.run_conv("reference", case, "bfloat16")


@only_reference
def test_an_input_dilation_is_no_layers(backend):
    dilated = next(case for case in device_shapes.CASES if not device_shapes.has_layer(case))
    assert device_shapes.run_conv("reference", dilated, "float32") == 3


@only_reference
def test_every_kernel_serves_a_layer(backend):
    module = targets.backends[backends.PLATFORM].module
    for kernel in module.kernels():
        assert any(
            serves(module, kernel, "fprop", case, dtype, factors_eps > 0)
            for case in filter(device_shapes.has_layer, device_shapes.CASES)
            for dtype, _, factors_eps in device_shapes.ARITHMETICS.values()
        ), f"the epilogue of {kernel} is never called"


@only_reference
def test_a_question_that_cannot_be_asked_is_no_refusal(backend):
    with pytest.raises(ValueError, match="int16"):
        serves(targets.backends[backends.PLATFORM].module, "gemm", "fprop", device_shapes.CASES[0], "int16")


@only_reference
def test_the_program_calls_every_kernel(backend):
    kernels = targets.backends[backends.PLATFORM].module.kernels()
    done = run(SUPPORT / "device_shapes.py", "--cases", "3", "--arithmetics", "bfloat16,tf32")
    assert done.returncode == 0, done.stdout + done.stderr
    calls = [line.partition(":")[0] for line in done.stdout.splitlines() if "of them convolutions" in line]
    assert calls == kernels
    assert f"{len(kernels)} kernels, 0 wrong results" in done.stdout


def test_a_program_that_calls_nothing_fails():
    done = run(SUPPORT / "device_shapes.py", "--seconds", "-1")
    assert done.returncode == 1
    assert "left out" in done.stdout and "never called on a convolution: " in done.stdout


@only_reference
def test_a_wrong_result_is_told(backend, monkeypatch, capsys):
    right = device_shapes.ConvCase.reference

    def wrong(self, *arrays, **rest):
        return {name: array + 1 for name, array in right(self, *arrays, **rest).items()}

    monkeypatch.setattr(device_shapes.ConvCase, "reference", wrong)
    monkeypatch.setattr(sys, "argv", ["device_shapes.py", "--cases", "1", "--arithmetics", "float64"])
    try:
        with pytest.raises(SystemExit, match="1"):
            device_shapes.main()
    finally:
        backends.install(backend)
    assert "WRONG: dgrad of 2d_vectors in float64" in capsys.readouterr().out


def test_tests_after_the_time_are_left_out():
    done = run(
        "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider", SUPPORT / "test_reference.py",
        JAX_CONVGRAD_TEST_SECONDS="0",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    last = done.stdout.splitlines()[-1]
    assert "skipped" in last and "passed" not in last
    assert "left out: 0 seconds are over" in done.stdout
