"""benchmarks/cpu_rungs.py: each kernel is the one named, and verified; what it prints, no time."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def rungs(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import cpu_rungs

    return cpu_rungs


def test_each_function_calls_the_kernel_of_its_name(rungs):
    from harness.problems import Conv
    from harness.tasks import Task

    from jax_convgrad.primitives import targets

    problem = Conv.parse("layer", "2x6x7x16, 3x3, 16, pad 1")
    chosen = targets.backends["cpu"]
    functions = rungs.programs_by_kernel(Task(problem, "dgrad", "f32"))
    assert {"reference", "tiled.plain", "dot.plain", "winograd.plain"} <= set(functions)
    assert not any(kernel.startswith("grouped") for kernel in functions)
    for kernel, function in functions.items():
        assert f'kernel = "{kernel}"' in function.as_text()
    assert targets.backends["cpu"] is chosen


def test_a_wrong_result_is_not_timed(rungs, monkeypatch):
    from harness import jax_programs
    from harness.problems import Conv
    from harness.tasks import Task
    from harness.verification import VerificationError

    problem = Conv.parse("layer", "1x6x6x16, 3x3, 16, pad 1")
    right = jax_programs.compiled(Task(problem, "dgrad", "f32"), "ours")
    programs = {"wrong": lambda sets: [0 * result for result in right(sets)]}
    monkeypatch.setattr(rungs, "programs_by_kernel", lambda task, kernels: programs)
    with pytest.raises(VerificationError, match="wrong, dgrad"):
        rungs.measure_op(problem, "dgrad", 0.01)


def test_winograds_sums_of_integers_may_be_rounded(rungs, monkeypatch):
    """But not wrong by more, and the others' may not be rounded."""
    from harness import jax_programs
    from harness.problems import Conv
    from harness.tasks import Task
    from harness.verification import VerificationError

    problem = Conv.parse("layer", "1x6x6x16, 3x3, 16, pad 1")
    right = jax_programs.compiled(Task(problem, "fprop", "f32"), "ours")

    def measure(kernel, factor):
        programs = {kernel: lambda sets: [factor * result for result in right(sets)]}
        monkeypatch.setattr(rungs, "programs_by_kernel", lambda task, kernels: programs)
        return set(rungs.measure_op(problem, "fprop", 0.01))

    assert measure("winograd.plain", 1 + 2e-7) == {"winograd.plain"}
    for kernel, factor in (("winograd.plain", 1.01), ("tiled.plain", 1 + 2e-7)):
        with pytest.raises(VerificationError, match=f"{kernel}, fprop"):
            measure(kernel, factor)


def _run(*arguments):
    return subprocess.run(
        [sys.executable, "cpu_rungs.py", *arguments],
        cwd=BENCHMARKS,
        env={**os.environ, "XLA_FLAGS": ""},
        capture_output=True,
        text=True,
    )


def test_the_table():
    ran = _run(
        "1x6x6x16, 3x3, 16, pad 1",
        "--ops",
        "fprop,wgrad",
        "--seconds",
        "0.01",
        "--kernels",
        "reference,tiled.plain",
    )
    assert ran.returncode == 0, ran.stderr
    rates = dict(re.findall(r"^(\S+) +([\d.]+) ", ran.stdout, re.MULTILINE))
    assert set(rates) == {"reference", "tiled.plain"}
    assert all(float(rate) > 0 for rate in rates.values())


@pytest.mark.parametrize(
    "arguments, named",
    [
        (["1x6x6x16, 3x3, 16", "--ops", "forward"], "forward is not one of fprop"),
        (["1x6x6x16, 3x3, 16", "--kernels", "tiled.avx2,fast"], "--kernels: fast is not one of reference"),
        (["1x6x6, 3x3, 16"], "'3x3'"),
        (["1x6x6x16, 3x3, 16", "--seconds", "0"], "positive"),
    ],
)
def test_wrong_arguments_are_named(arguments, named):
    ran = _run(*arguments)
    assert ran.returncode == 2
    assert named in ran.stderr
