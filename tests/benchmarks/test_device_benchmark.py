"""The benchmark on a GPU, as far as it goes without one: its order, operands, processes, and a trial."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest import mock

import jax
import numpy as np
import pytest
import report
import run as command
from backends import PLATFORM, cuda_backend
from harness import jax_programs, layers, operands, runner, summary, timing, verification
from harness.devices import DEVICES
from harness.problems import Bias, Conv, Pool
from harness.tasks import OPS, Task, classes, most_telling_first, plan
from harness.verification import VerificationError

from jax_convgrad.primitives import targets

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

PROBLEMS = [
    Conv.parse("dense", "2x7x6x8, 3x3, 8, pad 1"),
    Conv.parse("transposed", "2x4x5x5, 3x4, 6, stride 2, pad 1, transposed"),
    Conv.parse("depthwise", "2x9x6, 3, 6, groups 6"),
    Pool.parse("max", "max 2x7x6x3, 3x3, stride 2, pad 1"),
    Pool.parse("avg", "avg 2x7x6x3, 2x3, stride 2x1"),
    Bias("bias", (2, 5, 4, 3)),
]


TRIAL = DEVICES["trial"]  # which measures as for a GPU


def tasks(arithmetics):
    return plan(PROBLEMS, OPS, arithmetics, 3)


# What is measured


@pytest.mark.parametrize(
    "text, expected",
    [
        ("8x9x9x16, 3x3, 16", ["dense"]),
        ("8x9x9x3, 7x7, 64, stride 2", ["few channels"]),
        ("8x9x9x16, 3x3, 16, groups 4", ["grouped"]),
        ("8x9x9x16, 3x3, 32, groups 16", ["depthwise"]),
        ("8x99x64, 3, 64, dilation 2", ["dilated", "1-D"]),
        ("8x99x64, 3, 64, groups 64", ["depthwise", "1-D"]),
        ("8x9x9x16, 2x2, 16, stride 2, transposed", ["transposed"]),
        ("8x5x9x9x16, 3x3x3, 16", ["3-D"]),
        ("1x9x9x16, 3x3, 16", ["one image"]),
    ],
)
def test_classes(text, expected):
    assert classes(Conv.parse("", text)) == expected


def test_the_plan_has_everything_once_and_every_class_early():
    problems = layers.read_layers(layers.BUILT_IN)
    arithmetics = DEVICES["cuda"].arithmetics
    planned = most_telling_first(plan(problems, OPS, arithmetics, 16))
    keys = [task.key for task in planned]
    assert len(set(keys)) == len(keys)
    ops = {
        (problem.name, op, arithmetic)
        for problem in problems
        for op in problem.ops
        for arithmetic in arithmetics
        if problem.kind == "conv" or arithmetic in ("bf16", "f32")
    }
    assert {(task.problem.name, task.op, task.arithmetic) for task in planned} == ops
    every = {name for problem in problems for name in classes(problem)}
    first = {name for task in planned[:40] for name in classes(task.problem)}
    assert first == every - {"one image"}
    assert classes(planned[-1].problem) == ["one image"]
    for task in planned:
        read = Task.from_json(json.loads(json.dumps(task.to_json())))
        assert (read.key, read.problem.text, read.copies) == (task.key, task.problem.text, task.copies)


def test_small_layers_are_called_several_times_on_other_operands():
    small, large = (
        Task(Conv.parse("", text), "fprop", "bf16", 16)
        for text in ("64x14x14x512, 3x3, 512, pad 1, groups 512", "64x224x224x64, 3x3, 64, pad 1")
    )
    assert small.bytes == 2 * (2 * 64 * 14 * 14 * 512 + 9 * 512)
    assert small.copies * small.bytes > 2e8 and small.copies <= 16
    assert large.copies == 1


@pytest.mark.parametrize("name", ["x", "w", "dy"])
def test_repeated_operands_are_on_the_device_what_the_reference_reads(name):
    few = np.arange(11, dtype=np.float32)
    shape = PROBLEMS[0].shapes()[name]
    for start in (0, 3, 9):
        repeated = operands.Repeated(few, start, shape)
        array = np.asarray(jax_programs._array(jax.numpy.asarray(few), repeated))
        np.testing.assert_array_equal(array, np.resize(np.roll(few, -start), shape))
        at = verification.sample(shape, 30)
        np.testing.assert_array_equal(repeated[tuple(at.T)], array[tuple(at.T)])
        np.testing.assert_array_equal(repeated[..., 2], array[..., 2])


def test_sets_of_operands_differ():
    sets, arrays = jax_programs.operand_sets(tasks(["f32"])[0], False, 3)
    assert len({np.asarray(of_set["x"]).tobytes() for of_set in arrays}) == 3
    assert len({of_set["x"].start for of_set in sets}) == 3


# Whether it is right


@pytest.mark.parametrize("task", tasks(["bf16", "tf32"]), ids=lambda task: task.key)
def test_both_libraries_pass_the_check(task):
    programs = {library: jax_programs.compiled(task, library) for library in ("ours", "lax")}
    jax_programs.check(task, programs, TRIAL)


def test_a_wrong_result_and_one_that_no_sample_sees_are_noticed():
    task = Task(Conv.parse("large", "2x64x64x8, 3x3, 8, pad 1"), "fprop", "tf32", 1)
    right = jax_programs.compiled(task, "lax")

    def wrong(sets):
        return [result.at[1, 30, 31, 5].add(1) for result in right(sets)]

    with pytest.raises(VerificationError, match="1 elements of"):
        jax_programs.check(task, {"ours": wrong, "lax": right}, TRIAL)
    with pytest.raises(VerificationError, match="sampled elements are wrong"):
        jax_programs.check(task, {"ours": lambda sets: [result + 1 for result in right(sets)]}, TRIAL)


@pytest.mark.parametrize("task", tasks(["bf16"]), ids=lambda task: task.key)
def test_each_call_waits_for_the_one_ahead(task):
    """Before XLA optimises: every call but the first reads what a barrier with the last result gives."""
    shapes = {
        name: jax.ShapeDtypeStruct(task.problem.shapes()[name], task.dtype)
        for name in jax_programs.operands_of(task)
    }
    run = jax_programs.calls_of(task, "ours")
    jaxpr = jax.make_jaxpr(run)([shapes] * 3).jaxpr
    barriers = [equation for equation in jaxpr.eqns if equation.primitive.name == "optimization_barrier"]
    assert len(barriers) == 2
    used = {
        var for equation in jaxpr.eqns for var in equation.invars if isinstance(var, type(jaxpr.invars[0]))
    }
    used |= set(jaxpr.outvars)
    for barrier in barriers:
        assert len(barrier.outvars) == len(shapes) + len(task.op.split("+"))
        assert set(barrier.outvars) <= used


def test_both_libraries_are_asked_for_the_same_precision():
    """In threads side by side, as the programs are compiled: each has the precision of its own task."""
    chosen = [
        Task(PROBLEMS[0], op, arithmetic, 1) for op in PROBLEMS[0].ops for arithmetic in ("tf32", "f32")
    ]
    with ThreadPoolExecutor(4) as pool:
        ours = list(pool.map(lambda task: jax_programs.lowered(task, "ours").as_text(), chosen))
        lax = list(pool.map(lambda task: jax_programs.lowered(task, "lax").as_text(), chosen))
    for task, of_ours, of_lax in zip(chosen, ours, lax, strict=True):
        full = task.arithmetic == "f32"
        assert ("below_highest = false" in of_ours, "below_highest = true" in of_ours) == (full, not full)
        assert ("precision HIGHEST" in of_lax, "precision DEFAULT" in of_lax) == (full, not full)


def test_times_are_of_one_call():
    task = tasks(["tf32"])[0]
    assert task.copies == 3
    programs = {library: jax_programs.compiled(task, library) for library in ("ours", "lax")}
    calls = []
    ours = programs["ours"]

    class Counted:
        def __call__(self, sets):
            calls.append(len(sets))
            return ours(sets)

        def as_text(self):
            return ours.as_text()

    entry = jax_programs.measured(task, {**programs, "ours": Counted()}, TRIAL, 0.01)
    assert set(calls) == {3}
    assert set(entry["seconds"]) == {"ours", "lax"} and "wrong" not in entry
    assert entry["xla"]["ours"][f"jax_convgrad_{task.op}"] == 1
    spread = {"median": 6.0, "q1": 3.0, "q3": 9.0, "samples": 9}
    assert timing.of_one_call(spread, 3) == {"median": 2.0, "q1": 1.0, "q3": 3.0, "samples": 9}


def test_what_cannot_be_compiled_is_told():
    task = tasks(["tf32"])[0]
    ours = jax_programs.compiled(task, "ours")
    entry = jax_programs.measured(
        task, {"ours": ours, "lax": NotImplementedError("no such op\nat all")}, TRIAL, 0.01
    )
    assert entry["unsupported"] == {"lax": "NotImplementedError: no such op"}
    assert set(entry["seconds"]) == {"ours"}


@pytest.mark.parametrize("backend", [cuda_backend("reference")], indirect=True)
def test_the_plan_s_kernel_is_told(backend):
    module = targets.backends[PLATFORM].module
    device = mock.Mock(platform=PLATFORM)

    def chosen(text, arithmetic, capability):
        return jax_programs.kernel_of(Task(Conv.parse("", text), "fprop", arithmetic), device, capability)

    depthwise, dense = "8x14x14x64, 3x3, 64, pad 1, groups 64", "8x14x14x64, 3x3, 64, pad 1"
    assert chosen(depthwise, "bf16", 9) == "grouped"
    assert chosen(dense, "f64", 8) == "gemm"
    assert chosen(dense, "f32", 7) == "tiled"
    known = module.kernels()
    for problem in layers.read_layers(layers.BUILT_IN):
        for arithmetic in DEVICES["cuda"].arithmetics:
            for op in problem.ops:
                kernel = jax_programs.kernel_of(Task(problem, op, arithmetic), device, 9)
                assert kernel in known if problem.kind == "conv" else kernel is None


# A run


@pytest.fixture
def fake_worker(tmp_path, monkeypatch):
    """Puts a program in the place of the process that measures."""

    def put(source):
        program = tmp_path / "fake.py"
        program.write_text("import json, sys, time\nrequest = json.load(sys.stdin)\n" + source)
        monkeypatch.setattr(runner, "WORKER", [sys.executable, str(program)])
        monkeypatch.setattr(runner, "_GRACE", 0.5)

    return put


def run_fake(tmp_path, seconds="20"):
    asked = command.parse_arguments(
        ["--device", "trial", "--layer", "2x9x9x8, 3x3, 8", "--arithmetics", "tf32", "--seconds", seconds,
         "--peers", "lax", "--out", str(tmp_path / "out")]
    )  # fmt: skip
    runner.measure(asked)
    return json.loads((tmp_path / "out" / "results.json").read_text())


ONE = """
def tell(**entry):
    print(json.dumps(entry), flush=True)
def key(task):
    (_, name, _), (op, arithmetic, _) = task["problem"], task["rest"]
    return f"{name} {op} {arithmetic}"
def one(task, **rest):
    tell(begun=[key(task)])
    times = {who: {"median": 1e-3, "q1": 1e-3, "q3": 1e-3, "samples": 5} for who in ("ours", "lax")}
    tell(task=key(task), seconds=times, **rest)
"""


def test_a_process_that_dies_is_begun_anew_behind_the_task(tmp_path, fake_worker):
    fake_worker(
        ONE + "for task in request['tasks']:\n"
        "    if 'dgrad' in task['rest']:\n"
        "        tell(begun=[key(task)]); sys.exit(3)\n"
        "    one(task)\n"
        "tell(finished=True)\n"
    )
    results = run_fake(tmp_path)
    done = {entry["op"]: entry for entry in results["layers"]}
    assert "ours" in done["fprop"]["seconds"] and "ours" in done["wgrad"]["seconds"]
    assert done["dgrad"]["problems"] == ["lax: failed: the process ended with status 3"]
    assert results["left_out"] == {"lax": []}


def test_a_process_that_dies_of_compiling_is_begun_anew_behind_that(tmp_path, fake_worker):
    fake_worker(
        ONE + "keys = list(map(key, request['tasks']))\n"
        "if len(keys) == 3:\n"
        "    tell(begun=keys[:2]); sys.exit(4)\n"
        "one(request['tasks'][0])\n"
        "tell(finished=True)\n"
    )
    results = run_fake(tmp_path)
    done = {entry["op"]: entry for entry in results["layers"]}
    for op in ("fprop", "dgrad"):
        assert done[op]["problems"] == ["lax: failed: the process ended with status 4"]
    assert "ours" in done["wgrad"]["seconds"] and results["left_out"] == {"lax": []}


def test_what_each_process_of_a_cpu_s_run_is_asked_for(tmp_path, fake_worker, monkeypatch):
    """Layers and training in each library's process, growing layers of ours alone; other losses fail."""
    monkeypatch.setattr(command, "find_spec", lambda name: True)
    fake_worker(
        ONE + f"open({str(tmp_path / 'asked')!r}, 'a').write(json.dumps(request) + '\\n')\n"
        "for task in request['tasks']:\n"
        "    one(task)\n"
        "if request['training']:\n"
        "    loss = {'ours': 2.0, 'lax': 2.00001, 'torch': 2.1}\n"
        "    tell(training={who: {'losses': [loss[who]]} for who in request['libraries']})\n"
        "tell(peaks={'flops': {'1': len(request['tasks'])}}, finished=True)\n"
    )
    layer = ["--layer", "2x9x9x8, 3x3, 8", "--ops", "dgrad", "--parts", "layers,training,scaling"]
    runner.measure(
        command.parse_arguments([*layer, "--peers", "torch", "--threads", "1", "--out", str(tmp_path)])
    )
    asked = [json.loads(line) for line in (tmp_path / "asked").read_text().splitlines()]
    assert [(request["program"], *request["libraries"]) for request in asked] == [
        ("jax", "ours"), ("jax", "ours"), ("torch", "torch"),
    ]  # fmt: skip
    assert [len(request["tasks"]) for request in asked] == [1, 12, 1]
    assert [request["training"] is not None for request in asked] == [True, False, True]
    results = json.loads((tmp_path / "results.json").read_text())
    assert [entry["op"] for entry in results["layers"]] == ["dgrad"]
    series = [(entry["series"], entry["value"]) for entry in results["scaling"]]
    assert series[0] == ("batch", 1) and series[-1] == ("channels", 512) and len(series) == 12
    assert results["peaks"] == {"flops": {"1": 12}}  # the larger of what was measured
    assert list(results["training"]) == ["ours"]
    (failure,) = results["failures"]
    assert failure.startswith("the training steps of ours and torch have different losses")


def test_a_process_that_hangs_is_stopped_and_its_results_stay(tmp_path, fake_worker):
    fake_worker(ONE + "one(request['tasks'][0])\ntime.sleep(100)\n")
    results = run_fake(tmp_path, "1")
    assert [entry["op"] for entry in results["layers"]] == ["fprop"]
    assert len(results["left_out"]["lax"]) == 2
    assert results["failures"] == ["lax: its process ended with status -9"]


def test_a_process_that_never_begins_is_a_failure(tmp_path, fake_worker):
    fake_worker("sys.exit('no device')\n")
    results = run_fake(tmp_path)
    assert summary.troubles(results) == [
        "lax: its process ended with status 1",
        "nothing of ours was measured",
    ]


def test_a_trial_on_the_cpu(tmp_path):
    """The whole command, its processes included; PyTorch's where it is installed."""
    command = [
        sys.executable, BENCHMARKS / "run.py", "--device", "trial", "--quick", "--arithmetics", "tf32",
        "--layer", "1x6x6x8, 3x3, 4, pad 1", "--seconds", "120", "--peers", "lax,deterministic",
        "--out", tmp_path,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ, XLA_FLAGS=""))
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["state"] == "complete" and results["left_out"] == {"lax": [], "deterministic": []}
    assert [entry["op"] for entry in results["layers"]] == ["fprop", "dgrad", "wgrad"]
    for entry in results["layers"]:
        assert set(entry["seconds"]) == set(entry["deterministic"]) == {"ours", "lax"}
        assert entry["xla"]["ours"] == {f"jax_convgrad_{entry['op']}": 1}
    assert set(results["peaks"]["flops"]) == {*DEVICES["cuda"].arithmetics}
    assert set(results["peaks"]["copy"]) == {"device"}
    assert "## Goals" in report.page(results, "README.md")


@pytest.mark.parametrize("task", tasks(["bf16", "tf32"]), ids=lambda task: task.key)
def test_torch_passes_the_check(task):
    torch_programs = pytest.importorskip("harness.torch_programs", reason="PyTorch is not installed")
    entry = torch_programs.measured(task, None, TRIAL, 0.01)
    assert "wrong" not in entry
    assert set(entry.get("seconds", {})) == {"torch"} or entry["unsupported"]


@pytest.mark.parametrize(
    "options, message",
    [
        (["--peers", "lax,nobody"], "'nobody' is not one of lax, deterministic, torch"),
        (["--arithmetics", "fp8"], "'fp8' is not one of bf16, tf32, f32, f64"),
        (["--layer", "1x6x6x2, 3x3"], "output channels"),
        (["--layer", "1x6x6x2, 3x3, 4", "--file", "a.toml"], "cannot be used together"),
    ],
)
def test_wrong_options_are_refused(options, message):
    command = [sys.executable, BENCHMARKS / "run.py", "--device", "cuda", *options]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 2 and message in ran.stderr


def run_worker(**request):
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(BENCHMARKS), os.environ.get("PYTHONPATH")]))
    request = {
        "program": "jax", "libraries": ["ours"], "budget": 0.01, "threads": 1, "peaks": False,
        "training": None, **request,
    }  # fmt: skip
    return subprocess.run(
        runner.WORKER, input=json.dumps(request), capture_output=True, text=True, env=environment, timeout=100
    )


def test_a_process_ends_by_itself_when_its_time_is_over():
    done = run_worker(device="cpu", tasks=[task.to_json() for task in tasks(["tf32"])], seconds=0.0)
    assert done.returncode == 0, done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert [list(line) for line in told] == [["device"], ["finished"]]


def test_another_device_than_the_one_asked_for_is_refused():
    done = run_worker(device="cuda", tasks=[], seconds=9.0)
    assert done.returncode == 1 and "not one of 'cuda'" in done.stderr
