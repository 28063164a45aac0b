"""The benchmark of unchanged programs: its list, its check and its table, on programs of this file."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import programs
import pytest
from jax.extend.core import Primitive
from jax.interpreters import mlir
from unchanged import table, worker
from unchanged.agreement import disagreement, moved
from unchanged.registry import Program, all_programs, normal

from jax_convgrad.replace.installation import is_installed

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"


def layer():
    def loss(w, x):
        y = jax.lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        y = jax.lax.reduce_window(y, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
        return (y**2).mean()

    return jax.value_and_grad(loss), (normal(3, 3, 2, 4), normal(1, 8, 8, 2, seed=1))


def layer_of_another_result():
    """The gradient is 1 % too large in what is lowered under install()."""
    function, arguments = layer()
    scaled = Primitive("scaled")
    scaled.def_abstract_eval(lambda x: x)

    def scale(x):
        return x * (1.01 if is_installed() else 1)

    mlir.register_lowering(scaled, mlir.lower_fun(scale, multiple_results=False))

    def wrong(w, x):
        value, grad = function(w, x)
        return value, scaled.bind(grad)

    return wrong, arguments


def kink():
    """A relu at 0, which the two ways' rounding may meet from different sides: no fault of either."""
    at = normal(5)

    def first_from_below(x):
        below = (x == at).all() & (under.bind(x[0]) > 0)
        return jax.grad(lambda x: jax.nn.relu(x).sum())(x - at + jnp.where(below, -1, 1) * 1e-6)

    under = Primitive("under")
    under.def_abstract_eval(lambda x: x)

    def is_under(x):
        return jnp.full_like(x, is_installed())

    mlir.register_lowering(under, mlir.lower_fun(is_under, multiple_results=False))
    return first_from_below, (at,)


def integers():
    x = np.arange(64, dtype=np.int32).reshape(1, 8, 8, 1)
    return lambda x: jax.lax.reduce_window(x, 0, jax.lax.add, (1, 2, 2, 1), (1, 2, 2, 1), "VALID"), (x,)


def entry_of(make):
    program = Program(f"own.{make.__name__}", "own", "a layer of this file", make)
    found = {"name": program.name, "package": program.package, "what": program.what}
    return {**found, **worker.run(program, 0.0)}


def test_a_program_is_measured_and_its_operations_are_counted():
    entry = entry_of(layer)
    assert entry["disagreement"] <= 1
    # The convolution, its gradient by the filter, the window, and the window's gradient.
    assert (entry["kernels"], entry["on_lax"], entry["reasons"]) == (4, 0, [])
    assert entry["blocks"] >= 4
    assert all(0 < seconds < 10 for seconds in entry["seconds"].values())
    assert not table.is_wrong(entry)


def test_another_result_is_told():
    entry = entry_of(layer_of_another_result)
    assert entry["disagreement"] > 1
    assert table.is_wrong(entry)
    assert "results differ" in table.line(entry)
    assert table.summary([entry]) == "Nothing was measured."


def test_a_kink_at_the_arguments_is_no_disagreement():
    assert entry_of(kink)["disagreement"] <= 1


def test_what_stays_on_lax_is_told_with_its_reason():
    entry = entry_of(integers)
    assert (entry["kernels"], entry["on_lax"]) == (0, 1)
    (reason,) = entry["reasons"]
    assert "on jax.lax: " in reason and reason in table.markdown({"programs": [entry]})


@pytest.mark.parametrize("nan", [False, True])
def test_agreement_is_to_rounding(nan):
    rng = np.random.default_rng(0)
    right = {
        "w": rng.normal(size=(20, 30)).astype(np.float32),
        "b": np.zeros(3, np.float32),
        "n": np.arange(3),
    }
    if nan:
        right["w"][0, 0] = np.nan
    rounded = {**right, "w": right["w"] * np.float32(1 + 1e-6), "b": np.full(3, 1e-6, np.float32)}
    assert 0 < disagreement(rounded, right, right) <= 1
    wrong = {**right, "w": right["w"] * np.float32(1.001)}
    assert disagreement(wrong, right, right) > 1
    # A function whose result moves by a thousandth with an ulp of its arguments rounds as much.
    assert disagreement(wrong, right, wrong) <= 1
    one_nan = {**right, "w": right["w"].copy()}
    one_nan["w"][3, 4] = np.nan
    assert disagreement(one_nan, right, right) == np.inf
    for other in (right["w"][:-1], right["w"].astype(np.float64)):
        assert disagreement({**right, "w": other}, right, right) == np.inf
    assert disagreement({"w": right["w"]}, right, right) == np.inf


def test_arguments_move_by_an_ulp():
    array = normal(5, 7)
    up, count = moved((array, np.arange(3)))
    assert (np.abs(up - array) == np.spacing(np.abs(array))).mean() > 0.9 and (up != array).all()
    assert {*np.sign(up - array).ravel()} == {-1, 1}
    np.testing.assert_array_equal(count, np.arange(3))


def test_every_package_is_pinned_in_the_extra():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    pinned = {re.match(r"([\w-]+)==[\d.]+(;|$)", line)[1] for line in extras["programs"]}
    packages = {program.package for program in all_programs().values()}
    assert packages - {"jax"} == pinned


def test_a_missing_package_is_shown(monkeypatch):
    monkeypatch.setattr(programs, "installed", lambda package: False)
    entry = programs.measure(all_programs()["jaxwt.wavedec"], 1.0, 1)
    assert entry["error"] == "not installed"
    assert not table.is_wrong(entry)
    assert "not installed" in table.markdown({"programs": [entry]})


def test_the_command_writes_results_beside_those_of_other_programs(tmp_path):
    out = tmp_path / "results.json"
    earlier = {"name": "dm-pix.blur", "package": "dm-pix", "what": "", "error": "not installed"}
    out.write_text(json.dumps({"programs": [earlier]}))
    command = [sys.executable, BENCHMARKS / "programs.py", "--programs", "jax.correlate", "--seconds", "0"]
    done = subprocess.run([*command, "--out", out], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    results = json.loads(out.read_text())
    assert [entry["name"] for entry in results["programs"]] == ["dm-pix.blur", "jax.correlate"]
    assert results["programs"][0] == earlier
    measured = results["programs"][1]
    assert measured["disagreement"] <= 1 and measured["kernels"] == 3 and measured["on_lax"] == 0
    assert {"command", "machine", "versions", "settings"} <= results.keys()
    assert {"date", "others"} <= measured.keys()
    assert done.stdout.strip() == table.markdown(results)
