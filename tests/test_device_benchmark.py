"""The benchmark on a device, as far as it goes without one: its order, operands, summary, and a trial."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import PLATFORM, cuda_backend

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import device_jax  # noqa: E402
import device_operands  # noqa: E402
import device_plan  # noqa: E402
import device_report  # noqa: E402
import device_run  # noqa: E402
import device_summary  # noqa: E402
import layers  # noqa: E402
import verification  # noqa: E402
import xla_choices  # noqa: E402
from device_plan import Task  # noqa: E402
from problems import Bias, Conv, Pool  # noqa: E402
from verification import VerificationError  # noqa: E402

from jax_convgrad import ffi  # noqa: E402

PROBLEMS = [
    Conv.parse("dense", "2x7x6x8, 3x3, 8, pad 1"),
    Conv.parse("transposed", "2x4x5x5, 3x4, 6, stride 2, pad 1, transposed"),
    Conv.parse("depthwise", "2x9x6, 3, 6, groups 6"),
    Pool.parse("max", "max 2x7x6x3, 3x3, stride 2, pad 1"),
    Pool.parse("avg", "avg 2x7x6x3, 2x3, stride 2x1"),
    Bias("bias", (2, 5, 4, 3)),
]


def tasks(arithmetics):
    return device_plan.plan(PROBLEMS, device_run.OPS, arithmetics, 3)


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
    assert device_plan.classes(Conv.parse("", text)) == expected


def test_the_plan_has_everything_once_and_every_class_early():
    problems = layers.read_layers(layers.BUILT_IN)
    plan = device_plan.plan(problems, device_run.OPS, list(device_plan.ARITHMETICS))
    keys = [task.key for task in plan]
    assert len(set(keys)) == len(keys)
    ops = {
        (problem.name, op, arithmetic)
        for problem in problems
        for op in problem.ops
        for arithmetic in device_plan.ARITHMETICS
        if problem.kind == "conv" or arithmetic in ("bf16", "f32")
    }
    assert {(task.problem.name, task.op, task.arithmetic) for task in plan} == ops
    every = {name for problem in problems for name in device_plan.classes(problem)}
    first = {name for task in plan[:40] for name in device_plan.classes(task.problem)}
    assert first == every - {"one image"}
    assert device_plan.classes(plan[-1].problem) == ["one image"]
    for task in plan:
        read = Task.from_json(json.loads(json.dumps(task.to_json())))
        assert (read.key, read.problem.text, read.copies) == (task.key, task.problem.text, task.copies)


def test_small_layers_are_called_several_times_on_other_operands():
    small, large = (
        Task(Conv.parse("", text), "fprop", "bf16")
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
        repeated = device_operands.Repeated(few, start, shape)
        array = np.asarray(device_jax._array(jax.numpy.asarray(few), repeated))
        np.testing.assert_array_equal(array, np.resize(np.roll(few, -start), shape))
        at = verification.sample(shape, 30)
        np.testing.assert_array_equal(repeated[tuple(at.T)], array[tuple(at.T)])
        np.testing.assert_array_equal(repeated[..., 2], array[..., 2])


def test_sets_of_operands_differ():
    sets, arrays = device_jax.operand_sets(tasks(["f32"])[0], False, 3)
    assert len({np.asarray(of_set["x"]).tobytes() for of_set in arrays}) == 3
    assert len({of_set["x"].start for of_set in sets}) == 3


# Whether it is right


@pytest.mark.parametrize("task", tasks(["bf16", "tf32"]), ids=lambda task: task.key)
def test_both_libraries_pass_the_check(task):
    programs = {library: device_jax.compiled(task, library)[0] for library in ("ours", "lax")}
    device_jax.check(task, programs)


def test_a_wrong_result_and_one_that_no_sample_sees_are_noticed():
    task = Task(Conv.parse("large", "2x64x64x8, 3x3, 8, pad 1"), "fprop", "tf32", 1)
    right = device_jax.compiled(task, "lax")[0]

    def wrong(sets):
        return [result.at[1, 30, 31, 5].add(1) for result in right(sets)]

    with pytest.raises(VerificationError, match="1 elements of"):
        device_jax.check(task, {"ours": wrong, "lax": right})
    with pytest.raises(VerificationError, match="sampled elements are wrong"):
        device_jax.check(task, {"ours": lambda sets: [result + 1 for result in right(sets)]})


@pytest.mark.parametrize("task", tasks(["bf16"]), ids=lambda task: task.key)
def test_each_call_waits_for_the_one_ahead(task):
    """Before XLA optimises: every call but the first reads what a barrier with the last result gives."""
    shapes = {
        name: jax.ShapeDtypeStruct(task.problem.shapes()[name], task.dtype)
        for name in device_jax.operands_of(task)
    }
    run = device_jax.calls_of(task, "ours")
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


def test_times_are_of_one_call():
    task = tasks(["tf32"])[0]
    assert task.copies == 3
    programs = {library: device_jax.compiled(task, library) for library in ("ours", "lax")}
    calls = []
    ours = programs["ours"][0]

    class Counted:
        def __call__(self, sets):
            calls.append(len(sets))
            return ours(sets)

        def as_text(self):
            return ours.as_text()

    entry = device_jax.measured(task, {**programs, "ours": (Counted(), 0.0)}, 0.01)
    assert set(calls) == {3}
    assert set(entry["seconds"]) == {"ours", "lax"} and "wrong" not in entry
    assert entry["xla"]["ours"][f"jax_convgrad_{task.op}"] == 1
    spread = {"median": 6.0, "q1": 3.0, "q3": 9.0, "samples": 9}
    assert device_jax.of_one_call(spread, 3) == {"median": 2.0, "q1": 1.0, "q3": 3.0, "samples": 9}


def test_what_cannot_be_compiled_is_told():
    task = tasks(["tf32"])[0]
    ours = device_jax.compiled(task, "ours")
    entry = device_jax.measured(
        task, {"ours": ours, "lax": (NotImplementedError("no such op\nat all"), 0.0)}, 0.01
    )
    assert entry["unsupported"] == {"lax": "NotImplementedError: no such op"}
    assert set(entry["seconds"]) == {"ours"}


@pytest.mark.parametrize("backend", [cuda_backend("direct")], indirect=True)
def test_the_plan_s_kernel_is_told(backend):
    module = ffi.backends[PLATFORM].module

    def chosen(text, arithmetic, capability):
        return device_jax.kernel_of(Task(Conv.parse("", text), "fprop", arithmetic), module, capability)

    depthwise, dense = "8x14x14x64, 3x3, 64, pad 1, groups 64", "8x14x14x64, 3x3, 64, pad 1"
    assert chosen(depthwise, "bf16", 9) == "grouped"
    assert chosen(dense, "f64", 8) == "gemm"
    assert chosen(dense, "f32", 7) == "tiled"
    known = module.kernels()
    for problem in layers.read_layers(layers.BUILT_IN):
        for arithmetic in device_plan.ARITHMETICS:
            for op in problem.ops:
                kernel = device_jax.kernel_of(Task(problem, op, arithmetic), module, 9)
                assert kernel in known if problem.kind == "conv" else kernel is None


# What XLA made of it

X, W = "f32[8,9,9,4]{3,2,1,0}", "f32[3,3,4,4]{3,2,1,0}"
PAIR = f"({X}, /*index=1*/u8[0]{{0}})"
CONV = 'window={size=3x3 pad=1_1x1_1}, custom_call_target="__cudnn$convForward", backend_config={"x":1}'
TRITON = 'kind=kCustom, calls=%fused_dot, backend_config={"fusion_backend_config":{"kind":"__triton_gemm"}}'
HLO = f"""HloModule jit_run, is_scheduled=true, entry_computation_layout={{({X})->{X}}}

%fused_transpose (param_0.1: f32[3,3,4,4]) -> f32[4,3,3,4] {{
  %param_0.1 = {W} parameter(0)
  ROOT %transpose.2 = f32[4,3,3,4]{{3,2,1,0}} transpose(%param_0.1), dimensions={{3,0,1,2}}
}}

%fused_dot (param_0.2: f32[4,4], param_1: f32[4,4]) -> f32[4,4] {{
  %param_0.2 = f32[4,4]{{1,0}} parameter(0)
  %param_1 = f32[4,4]{{1,0}} parameter(1)
  ROOT %dot.1 = f32[4,4]{{1,0}} dot(%param_0.2, %param_1), lhs_contracting_dims={{1}}
}}

ENTRY %main.12 (Arg_0.1: f32[8,9,9,4], Arg_1.2: f32[3,3,4,4]) -> f32[8,9,9,4] {{
  %Arg_0.1 = {X} parameter(0), metadata={{op_name="sets[0]['x']"}}
  %Arg_1.2 = {W} parameter(1)
  %loop_transpose_fusion = f32[4,3,3,4]{{3,2,1,0}} fusion(%Arg_1.2), kind=kLoop, calls=%fused_transpose
  %cudnn-conv.3 = {PAIR} custom-call(%Arg_0.1, %loop_transpose_fusion), {CONV}
  %get-tuple-element.1 = {X} get-tuple-element(%cudnn-conv.3), index=0
  %cudnn-conv.4 = {PAIR} custom-call(%get-tuple-element.1, %loop_transpose_fusion), {CONV}
  %triton.1 = f32[4,4]{{1,0}} fusion(%a, %b), {TRITON}
  %triton.2 = f32[4,4]{{1,0}} fusion(%a, %b), {TRITON}
  ROOT %get-tuple-element.2 = {X} get-tuple-element(%cudnn-conv.4), index=0
}}
"""


def test_kernels_of_a_program():
    assert xla_choices.kernels(HLO, 2) == {
        "__cudnn$convForward": 1,
        "__triton_gemm (dot)": 1,
        "fusion (transpose)": 0.5,
    }
    counts = xla_choices.kernels(HLO, 1)
    assert (
        xla_choices.text_of(counts)
        == "2 x __cudnn$convForward + 2 x __triton_gemm (dot) + fusion (transpose)"
    )
    with pytest.raises(ValueError, match="no ENTRY"):
        xla_choices.kernels("nothing")


def test_kernels_of_this_xla_s_text():
    """The text that the installed XLA writes, of whatever version, is read: our call is found in it."""
    task = tasks(["tf32"])[0]
    program, _ = device_jax.compiled(task, "ours")
    assert xla_choices.kernels(program.as_text(), task.copies)[f"jax_convgrad_{task.op}"] == 1


# What it amounts to


def spread(median):
    return {"median": median, "q1": median, "q3": median, "samples": 9}


def made_up_results():
    """Ratios to lax: 0.5 and 2 of dense bf16 (mean 1), 3 and 12 of weak ones (mean 6), 4 of pooling."""
    args = device_run.parse_arguments(["--seconds", "60"])
    by_key = {task.key: task for task in args.tasks}

    def entry(key, ours, lax, deterministic=None, torch=None):
        made = device_run.entry_of(by_key[key])
        made["seconds"] = {"ours": spread(ours), "lax": spread(lax)}
        if torch:
            made["seconds"]["torch"] = spread(torch)
        if deterministic:
            made["deterministic"] = {"ours": spread(ours), "lax": spread(deterministic)}
        return made

    entries = [
        entry("resnet50.3x3.56 fprop bf16", 1e-3, 5e-4, torch=4e-3),
        entry("vgg19.3x3.224 wgrad bf16", 1e-3, 2e-3, deterministic=2e-3),
        entry("mobilenet.dw.14 dgrad bf16", 1e-4, 3e-4),
        entry("audio.1d fprop tf32", 1e-4, 12e-4),
        entry("max.2x2.112 fprop bf16", 1e-3, 4e-3),
    ]
    for made, kernel in zip(entries, ("wgmma", "wgmma", "grouped", "gemm"), strict=False):
        made["kernel"] = kernel
    entries[2]["unsupported"]["torch"] = "no such thing"
    entries[0]["xla"] = {
        "ours": {"jax_convgrad_fprop": 1, "fusion (transpose)": 2},
        "lax": {"__cudnn$convForward": 1, "fusion (pad)": 1},
        "deterministic lax": {"__cudnn$convBackwardInput": 1},
    }
    bytes_of_pool = entries[4]["bytes"]
    return {
        "date": "2030-01-02",
        "command": ["python", "benchmarks/run.py", "--platform", "cuda"],
        "state": "complete",
        "machine": {"device": "NVIDIA X1"},
        "versions": {"jax": "0.0.0"},
        "settings": {"platform": "cuda", "peers": ["lax"], "seconds": 60, "budget": 0.1},
        # The pooling layer takes half of what copying its bytes allows.
        "peaks": {"bf16": 1e15, "tf32": 5e14, "f32": 6e13, "f64": 6e13, "copy": 2 * bytes_of_pool / 1e-3},
        "entries": entries,
        "left_out": {"lax": ["video.3d fprop f64", "video.3d dgrad f64"], "torch": []},
    }


def test_goals_of_made_up_results():
    found = {goal.name: (values, met) for goal, values, met in device_summary.goals(made_up_results())}
    assert found["bf16, dense"] == ([0.5, 2.0], False)  # the mean is reached, but not by each
    assert found["where cuDNN is weak"] == ([pytest.approx(3.0), pytest.approx(12.0)], True)
    assert found["f64, dense"] == ([], None)
    assert found["everything"] == ([2.0], True)


def test_shares_of_made_up_results():
    results = made_up_results()
    dense, _, _, _, pool = results["entries"]
    assert device_summary.bound(pool, results["peaks"])[0] == "memory"
    assert device_summary.share(pool, results["peaks"]) == pytest.approx(0.5)
    kind, seconds = device_summary.bound(dense, {**results["peaks"], "copy": 1e15})
    assert kind == "arithmetic" and seconds == pytest.approx(dense["flops"] / 1e15)
    shares = dict(device_summary.share_goals(results))
    assert shares["pooling, of the copy rate"] == [("max.2x2.112 fprop bf16", pytest.approx(0.5))]
    assert device_summary.share_goals({**results, "peaks": {}}) == []


def test_means_worst_and_troubles_of_made_up_results():
    results = made_up_results()
    rows = {(name, arithmetic): means for name, arithmetic, _, means in device_summary.means(results)}
    assert rows["dense", "bf16"]["lax"] == pytest.approx(1.0)
    assert rows["dense", "bf16"]["torch"] == pytest.approx(4.0)
    assert rows["dilated", "tf32"]["lax"] == rows["1-D", "tf32"]["lax"] == pytest.approx(12.0)
    assert rows["all", ""]["lax"] == pytest.approx((0.5 * 2 * 3 * 12 * 4) ** (1 / 5))
    ratio, entry = device_summary.worst(results, "lax")[0]
    assert (ratio, entry["name"]) == (0.5, "resnet50.3x3.56")
    assert device_summary.troubles(results) == []
    results["entries"][0]["problems"].append("lax: wrong: everything")
    results["entries"][1]["unsupported"]["ours"] = "refused"
    assert len(device_summary.troubles(results)) == 2
    assert device_summary.troubles({**results, "entries": []}) == ["nothing of ours was measured"]


def test_report_of_made_up_results(tmp_path):
    file = tmp_path / "results.json"
    file.write_text(json.dumps(made_up_results()))
    done = subprocess.run(
        [sys.executable, BENCHMARKS / "device_report.py", file], capture_output=True, text=True, check=True
    )
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in done.stdout.splitlines()
        if line[:1] == "|"
    ]
    wanted = ["bf16, dense", "lax", "mean 1.00, each 0.80", "2", "1.00", "0.50", "no"]
    assert wanted in rows
    assert ["max.2x2.112", "fprop", "bf16", "", "1000", "4.00", "", "", "50 %", "memory"] in rows
    assert [
        "resnet50.3x3.56",
        "fprop",
        "bf16",
        "autotuned",
        "yes",
        "__cudnn$convForward + fusion (pad)",
    ] in rows
    assert ["resnet50.3x3.56", "fprop", "bf16", "deterministic", "no", "__cudnn$convBackwardInput"] in rows
    assert ["wgmma", "wgrad", "bf16", "1", "2.00"] in [row[:5] for row in rows]
    assert "* resnet50.3x3.56 fprop bf16: 2 x fusion (transpose)" in done.stdout
    assert "* lax, f64: video.3d\n" in done.stdout
    assert "* mobilenet.dw.14 dgrad bf16, torch: no such thing" in done.stdout
    assert device_report.terminal(made_up_results()).endswith("5 ops measured, 0 troubles, 2 left out")


# A run


@pytest.fixture
def fake_peer(tmp_path, monkeypatch):
    """Puts a program in the place of a peer's."""

    def put(source, **shares):
        program = tmp_path / "fake.py"
        program.write_text("import json, sys, time\nrequest = json.load(sys.stdin)\n" + source)
        peers = {"lax": (str(program), ["ours", "lax"], "", 1.0)}
        monkeypatch.setattr(device_run, "PEERS", peers)
        monkeypatch.setattr(device_run, "_GRACE", 0.5)

    return put


def run_fake(tmp_path, seconds="20"):
    args = device_run.parse_arguments(
        ["--platform", "cpu", "--layer", "2x9x9x8, 3x3, 8", "--arithmetics", "tf32", "--seconds", seconds,
         "--out", str(tmp_path / "out")]
    )  # fmt: skip
    results = device_run.Results(args)
    device_run.run_peer(results, "lax", args, float(seconds))
    return json.loads((tmp_path / "out" / "results.json").read_text())


ONE = """
def tell(**entry):
    print(json.dumps(entry), flush=True)
def one(task, **rest):
    tell(begun="{name} {op} {arithmetic}".format(**task))
    times = {who: {"median": 1e-3, "q1": 1e-3, "q3": 1e-3, "samples": 5} for who in ("ours", "lax")}
    tell(task=task, copies=1, seconds=times, **rest)
"""


def test_a_process_that_dies_is_begun_anew_behind_the_task(tmp_path, fake_peer):
    fake_peer(
        ONE + "for task in request['tasks']:\n"
        "    if task['op'] == 'dgrad':\n"
        "        tell(begun='{name} {op} {arithmetic}'.format(**task)); sys.exit(3)\n"
        "    one(task)\n"
        "tell(finished=True)\n"
    )
    results = run_fake(tmp_path)
    done = {entry["op"]: entry for entry in results["entries"]}
    assert "ours" in done["fprop"]["seconds"] and "ours" in done["wgrad"]["seconds"]
    assert done["dgrad"]["problems"] == ["lax: failed: the process ended with status 3"]
    assert results["left_out"] == {"lax": []}


def test_a_process_that_hangs_is_stopped_and_its_results_stay(tmp_path, fake_peer):
    fake_peer(ONE + "one(request['tasks'][0])\ntime.sleep(100)\n")
    results = run_fake(tmp_path, "1")
    assert [entry["op"] for entry in results["entries"]] == ["fprop"]
    assert len(results["left_out"]["lax"]) == 2
    assert results["failures"] == ["lax: its process ended with status -9"]


def test_a_process_that_never_begins_is_a_failure(tmp_path, fake_peer):
    fake_peer("sys.exit('no device')\n")
    results = run_fake(tmp_path)
    assert device_summary.troubles(results) == [
        "lax: its process ended with status 1",
        "nothing of ours was measured",
    ]


def test_a_trial_on_the_cpu(tmp_path):
    """The whole command, its processes included; PyTorch's where it is installed."""
    command = [
        sys.executable, BENCHMARKS / "device_run.py", "--platform", "cpu", "--quick", "--arithmetics", "tf32",
        "--layer", "1x6x6x8, 3x3, 4, pad 1", "--seconds", "120", "--peers", "lax,deterministic",
        "--out", tmp_path,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ, XLA_FLAGS=""))
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["state"] == "complete" and results["left_out"] == {"lax": [], "deterministic": []}
    assert [entry["op"] for entry in results["entries"]] == ["fprop", "dgrad", "wgrad"]
    for entry in results["entries"]:
        assert set(entry["seconds"]) == set(entry["deterministic"]) == {"ours", "lax"}
        assert entry["xla"]["ours"] == {f"jax_convgrad_{entry['op']}": 1}
    assert set(results["peaks"]) == {*device_plan.ARITHMETICS, "copy"}
    assert (tmp_path / "report.md").read_text().startswith("# cpu, ")


@pytest.mark.parametrize("task", tasks(["bf16", "tf32"]), ids=lambda task: task.key)
def test_torch_passes_the_check(task):
    device_torch = pytest.importorskip("device_torch", reason="PyTorch is not installed")
    entry = device_torch.measured(task, "cpu", 0.01)
    assert "wrong" not in entry
    assert set(entry["seconds"]) == {"torch"} or entry["unsupported"]


@pytest.mark.parametrize(
    "options, message",
    [
        (["--peers", "lax,nobody"], "'nobody' is none of lax, deterministic, torch"),
        (["--arithmetics", "fp8"], "'fp8' is none of bf16, tf32, f32, f64"),
        (["--layer", "1x6x6x2, 3x3"], "output channels"),
        (["--layer", "1x6x6x2, 3x3, 4", "--file", "a.toml"], "exclude each other"),
    ],
)
def test_wrong_options_are_refused(options, message):
    command = [sys.executable, BENCHMARKS / "run.py", "--platform", "cuda", *options]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 2 and message in ran.stderr
