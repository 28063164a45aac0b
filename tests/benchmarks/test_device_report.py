"""What the benchmark on a device makes of its numbers: XLA's kernels, goals, means, shares, the page."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import report
from harness import goals, jax_programs, layers, summary, xla_choices
from harness.devices import DEVICES
from harness.problems import Conv
from harness.tasks import OPS, Task, plan

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

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
    task = Task(Conv.parse("", "2x7x6x8, 3x3, 8, pad 1"), "fprop", "tf32", 3)
    program = jax_programs.compiled(task, "ours")
    assert xla_choices.kernels(program.as_text(), task.copies)[f"jax_convgrad_{task.op}"] == 1


# What it amounts to


def spread(median):
    return {"median": median, "q1": median, "q3": median, "samples": 9}


def made_up_results():
    """Ratios to lax: 0.5 and 2 of dense bf16 (mean 1), 3 and 12 of weak ones (mean 6), 4 of pooling."""
    arithmetics = list(DEVICES["cuda"].arithmetics)
    by_key = {task.key: task for task in plan(layers.read_layers(layers.BUILT_IN), OPS, arithmetics, 16)}

    def entry(key, ours, lax, deterministic=None, torch=None):
        made = by_key[key].entry()
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
        "settings": {
            "device": "cuda", "peers": ["lax", "deterministic", "torch"], "threads": 2, "batch": None,
            "arithmetics": arithmetics, "seconds": 60, "budget": 0.1,
        },
        # The pooling layer takes half of what copying its bytes allows.
        "peaks": {
            "flops": {"bf16": 1e15, "tf32": 5e14, "f32": 6e13, "f64": 6e13},
            "copy": {"device": 2 * bytes_of_pool / 1e-3},
        },
        "others": None,
        "layers": entries,
        "training": {},
        "scaling": [],
        "left_out": {"lax": ["video.3d fprop f64", "video.3d dgrad f64"], "torch": []},
        "failures": [],
    }  # fmt: skip


def test_goals_of_made_up_results():
    found = {goal.name: (values, met) for goal, values, met in goals.goals(made_up_results())}
    assert found["bf16, dense"] == ([0.5, 2.0], False)  # the mean is reached, but not by each
    assert found["classes where cuDNN is weak"] == ([pytest.approx(3.0), pytest.approx(12.0)], True)
    assert found["f64, dense"] == ([], None)
    assert found["everything"] == ([2.0], True)


def test_shares_of_made_up_results():
    results = made_up_results()
    dense, _, _, _, pool = results["layers"]
    assert summary.bound(pool, results)[0] == "memory"
    assert summary.share(pool, results) == pytest.approx(0.5)
    fast_memory = {**results["peaks"], "copy": {"device": 1e15}}
    kind, seconds = summary.bound(dense, {**results, "peaks": fast_memory})
    assert kind == "arithmetic" and seconds == pytest.approx(dense["flops"] / 1e15)
    shares = dict(goals.share_goals(results))
    assert shares["pooling: share of the copy rate"] == [("max.2x2.112 fprop bf16", pytest.approx(0.5))]
    assert goals.share_goals({**results, "peaks": {}}) == []


def test_means_worst_and_troubles_of_made_up_results():
    results = made_up_results()
    rows = dict(summary.means(results))
    assert rows["dense, bf16"]["lax"] == pytest.approx(1.0)
    assert rows["dense, bf16"]["torch"] == pytest.approx(4.0)
    assert rows["dilated, tf32"]["lax"] == rows["1-D, tf32"]["lax"] == pytest.approx(12.0)
    assert rows["all"]["lax"] == pytest.approx((0.5 * 2 * 3 * 12 * 4) ** (1 / 5))
    ratio, entry = summary.worst(results, "lax")[0]
    assert (ratio, entry["name"]) == (0.5, "resnet50.3x3.56")
    assert summary.troubles(results) == []
    results["layers"][0]["problems"].append("lax: wrong: everything")
    results["layers"][1]["unsupported"]["ours"] = "refused"
    assert len(summary.troubles(results)) == 2
    assert summary.troubles({**results, "layers": []}) == ["nothing of ours was measured"]


def test_report_of_made_up_results(tmp_path):
    file = tmp_path / "results.json"
    file.write_text(json.dumps(made_up_results()))
    done = subprocess.run(
        [sys.executable, BENCHMARKS / "report.py", file], capture_output=True, text=True, check=True
    )
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in done.stdout.splitlines()
        if line[:1] == "|"
    ]
    wanted = ["bf16, dense", "lax", "mean 1.00, each 0.80", "2", "1.00", "0.50", "no"]
    assert wanted in rows
    pool = next(row for row in rows if row[:3] == ["max.2x2.112", "fprop", "bf16"] and len(row) > 9)
    assert pool[3:9] == ["", "1", "0 %", "4.00", "", ""] and pool[-1] == "50 %"
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
    assert report.terminal(made_up_results()).endswith("5 ops measured, 0 troubles, 2 left out")
