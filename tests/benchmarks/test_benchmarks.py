"""The benchmark's logic: its layers, counts, verification and command line. Its times are nobody's test."""

import json
import subprocess
import sys
import time
from itertools import product
from pathlib import Path

import jax
import numpy as np
import pytest
import reference
from harness import jax_programs, layers, timing
from harness.devices import DEVICES
from harness.problems import Bias, Conv, Pool
from harness.tasks import Task
from harness.verification import VerificationError, same_losses, verify

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

PROBLEMS = [
    Conv.parse("dense", "2x7x6x3, 3x2, 4, stride 2x1, pad 1x0:1"),
    Conv.parse("grouped", "2x7x6x4, 3x3, 8, groups 2, pad 2, dilation 2"),
    Conv.parse("depthwise", "1x9x4, 3, 4, groups 4, pad same"),
    Conv.parse("transposed", "2x4x5x3, 3x4, 2, stride 2, pad 1, transposed"),
    Conv.parse("video", "1x3x4x4x2, 2x2x2, 3"),
    Pool.parse("max", "max 2x7x6x3, 3x3, stride 2, pad 1"),
    Pool.parse("avg", "avg 2x7x6x3, 2x3, stride 2x1"),
    Bias("bias", (2, 5, 4, 3)),
]
CASES = [pytest.param(problem, op, id=f"{problem.name}-{op}") for problem in PROBLEMS for op in problem.ops]


CPU = DEVICES["cpu"]


def programs_of(problem, op, *libraries):
    task = Task(problem, op, "f32")
    return task, {library: jax_programs.compiled(task, library) for library in libraries}


def operands_and_result(problem, op, integers):
    """As the reference reads them, and what lax makes of them."""
    task, programs = programs_of(problem, op, "lax")
    (operands,), arrays = jax_programs.operand_sets(task, integers, 1)
    return operands, jax.device_get(programs["lax"](arrays)[0])


@pytest.mark.parametrize("problem, op", CASES)
def test_both_libraries_pass_the_verification(problem, op):
    jax_programs.check(*programs_of(problem, op, "ours", "lax"), CPU)


@pytest.mark.parametrize("problem, op", CASES)
def test_a_wrong_corner_and_a_wrong_shape_are_noticed(problem, op):
    operands, right = operands_and_result(problem, op, True)
    for part in range(len(op.split("+"))):
        wrong = jax.tree.map(np.array, right)
        array = wrong[part] if "+" in op else wrong
        array[(-1,) * array.ndim] += 1
        with pytest.raises(VerificationError, match=problem.name):
            verify(problem, op, operands, wrong, True, "nobody")
    short = jax.tree.map(lambda array: array[:-1], right)
    with pytest.raises(VerificationError, match="shape"):
        verify(problem, op, operands, short, True, "nobody")


@pytest.mark.parametrize("problem, op", CASES)
def test_a_result_rounded_to_bfloat16_is_noticed(problem, op):
    operands, right = operands_and_result(problem, op, False)
    rounded = jax.tree.map(lambda array: array.astype(jax.numpy.bfloat16).astype(np.float32), right)
    with pytest.raises(VerificationError):
        verify(problem, op, operands, rounded, False, "nobody")


@pytest.mark.parametrize("problem, op", CASES)
def test_torch_computes_the_same(problem, op):
    """In both memory formats, to the last bit on integers; the one that is faster counts."""
    torch_programs = pytest.importorskip("harness.torch_programs", reason="PyTorch is not installed")
    entry = torch_programs.measured(Task(problem, op, "f32"), None, CPU, 0.01)
    if entry.get("unsupported"):
        assert any(low != high for low, high in problem.layer.pad)
        return
    assert entry["seconds"]["torch"]["layout"] in ("contiguous", "channels_last")


def test_other_losses_are_noticed():
    same_losses([2.3, 2.1], [2.30001, 2.10001], "both")
    with pytest.raises(VerificationError, match="ours and lax have different losses"):
        same_losses([2.3, 2.1], [2.3, 2.2], "ours and lax")


def test_nan_is_noticed():
    operands, right = operands_and_result(PROBLEMS[0], "fprop", False)
    with pytest.raises(VerificationError):
        verify(PROBLEMS[0], "fprop", operands, np.full_like(right, np.nan), False, "nobody")


def test_ours_other_than_lax_is_noticed_where_no_sample_is():
    """On the CPU a difference of any size: both are exact there."""
    problem = Conv.parse("large", "8x64x64x8, 3x3, 8, pad 1")
    task, programs = programs_of(problem, "fprop", "lax")
    right = programs["lax"]
    programs["ours"] = lambda sets: [result.at[3, 30, 31, 5].add(0.01) for result in right(sets)]
    with pytest.raises(VerificationError, match="1 elements of"):
        jax_programs.check(task, programs, CPU)


@pytest.mark.parametrize("problem", [p for p in PROBLEMS if p.kind == "conv"], ids=lambda p: p.name)
def test_flops_are_two_for_each_product(problem):
    """Counted by the reference, whose sum of products of ones is their number."""
    axes = [
        reference.Axis(
            axis.input, axis.taps, axis.stride, axis.pad_lo, hi, axis.input_dilation, axis.filter_dilation
        )
        for axis, (_, hi) in zip(problem.geometry.axes, problem.layer.padding, strict=True)
    ]
    x, w = (np.ones(problem.shapes()[name]) for name in ("x", "w"))
    products = reference.fprop(x, w, axes, problem.layer.groups).sum()
    for op in problem.ops:
        assert problem.flops(op) == 2 * products


def test_elements_are_those_of_operands_and_result():
    assert PROBLEMS[0].elements("dgrad") == 2 * 7 * 6 * 3 + 3 * 2 * 3 * 4 + 2 * 4 * 6 * 4
    pool = PROBLEMS[5]
    assert pool.elements("fprop") == 2 * 7 * 6 * 3 + 2 * 4 * 3 * 3
    assert pool.elements("fprop+dgrad") == 2 * pool.elements("fprop")
    assert PROBLEMS[7].elements("bgrad") == 2 * 5 * 4 * 3 + 3


def test_built_in_layers_are_whole_and_read_back():
    problems = layers.read_layers(layers.BUILT_IN)
    assert sum(problem.kind == "conv" for problem in problems) >= 24
    for problem in problems:
        assert type(problem).parse(problem.name, problem.text, problem.source) == problem
        assert problem.source
        assert problem.with_batch_at_most(8).shapes()["dy"][0] <= 8


def test_layers_of_a_file(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text(
        'conv = [{ name = "a", layer = "1x8x8x2, 3x3, 4" }]\nbias = [{name = "b", layer = "4x3x2"}]'
    )
    assert layers.read_layers(file) == [Conv.parse("a", "1x8x8x2, 3x3, 4"), Bias("b", (4, 3, 2))]


@pytest.mark.parametrize(
    "text, message",
    [
        ("conv = [", "mine.toml"),
        ("other = []", "'other' should be a list called conv, pool or bias"),
        ('conv = [{ name = "a" }]', "entry 1 of conv should have name, layer"),
        ('conv = [{ name = "a", layer = "1x8x8x2, 3x3" }]', r"entry 1 of conv \(a\): .*output channels"),
        ('pool = [{ name = "a", layer = "min 1x8x8x2, 3x3" }]', "begin with max or avg"),
        ('pool = [{ name = "a", layer = "max 1x8x8x2, 3x3, groups 2" }]', "only stride and pad"),
        ('bias = [{ name = "a", layer = "8" }, { name = "a", layer = "1x2x3" }]', "dy '8'"),
        ('bias = [{ name = "a", layer = "1x2x3" }, { name = "a", layer = "1x2x3" }]', "given twice"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path, text, message):
    file = tmp_path / "mine.toml"
    file.write_text(text)
    with pytest.raises(ValueError, match=message):
        layers.read_layers(file)


def test_patterns():
    chosen = layers.select(PROBLEMS, ["d*", "max"])
    assert [problem.name for problem in chosen] == ["dense", "depthwise", "max"]
    with pytest.raises(ValueError, match=r"no layer is called 'x\*'.*dense"):
        layers.select(PROBLEMS, ["x*"])


def test_every_function_takes_its_turns():
    counts = {"a": 0, "b": 0}

    def call(name):
        counts[name] += 1

    seconds = timing.measure({name: lambda name=name: call(name) for name in counts}, 0)
    assert min(counts.values()) >= 5
    for spread in seconds.values():
        assert 0 < spread["q1"] <= spread["median"] <= spread["q3"]
        assert spread["samples"] == 5


def test_few_samples_do_where_a_call_takes_long():
    seconds = timing.measure({"slow": lambda: time.sleep(0.02)}, 0, most=0.03)["slow"]
    assert seconds["samples"] == 2 and seconds["median"] >= 0.02


def test_calls_are_queued_before_a_wait():
    waited, calls = [], []

    def call():
        calls.append(0)
        return len(calls)

    seconds = timing.measure({"it": call}, 0, shortest=0.005, wait=waited.append)["it"]
    assert seconds["samples"] == 5 and seconds["median"] < 1e-3
    assert len(calls) > 50 * len(waited)
    assert waited[-1] == len(calls)


def test_the_command_line_measures_and_writes(tmp_path):
    command = [sys.executable, BENCHMARKS / "run.py", "--quick", "--layer", "1x6x6x2, 3x3, 4, pad 1"]
    subprocess.run([*command, "--threads", "1", "--out", tmp_path], check=True, capture_output=True)
    results = json.loads((tmp_path / "results.json").read_text())
    assert [entry["op"] for entry in results["layers"]] == ["fprop", "dgrad", "wgrad"]
    assert all(set(entry["seconds"]) == {"ours", "lax"} for entry in results["layers"])
    assert all(entry["kernel"] == "tiled" for entry in results["layers"])
    assert all(results["peaks"][kind]["1"] > 0 for kind in ("flops", "copy"))


def test_the_time_of_lowering_is_measured():
    command = [sys.executable, BENCHMARKS / "lowering_time.py", "--tiny", "--repeats", "1", "--bound", "1000"]
    ran = subprocess.run([*command, "--nets", "unet"], check=True, capture_output=True, text=True)
    rows = [line.split(" | ") for line in ran.stdout.splitlines() if line.startswith("| unet")]
    assert [row[4] for row in rows] == ["install", "replace", "own"] * 4
    assert all(float(ratio.strip("| ")) > 0 for row in rows for ratio in row[5:])


@pytest.mark.parametrize("name, count", [("unet", 131), ("resnet", 53)])
def test_nets_that_are_lowered_have_so_many_convolutions(name, count):
    from harness import nets

    net = nets.NETS[name]
    params = [jax.ShapeDtypeStruct(shape, np.float32) for shape in nets.parameters(net)]
    x = jax.ShapeDtypeStruct(net.input, np.float32)
    program = jax.make_jaxpr(nets.loss(net, nets.LAX))(params, x)
    found = [eqn.primitive.name for eqn in program.eqns].count("conv_general_dilated")
    assert found == net.convolutions == count


@pytest.mark.parametrize(
    "options, message",
    [
        (["--peers", "lax,nobody"], "'nobody' is not one of lax, torch"),
        (["--layer", "1x6x6x2, 3x3"], "output channels"),
        (["--file", "missing.toml"], "missing.toml"),
        (["--shapes", "nothing"], "no layer is called 'nothing'"),
        (["--threads", "100000"], "this process may use"),
    ],
)
def test_wrong_options_are_refused(options, message):
    ran = subprocess.run([sys.executable, BENCHMARKS / "run.py", *options], capture_output=True, text=True)
    assert ran.returncode == 2 and message in ran.stderr


def test_other_programs_are_seen():
    from harness import machine

    others = machine.Others()
    work = "import time; end = time.process_time() + 0.5\nwhile time.process_time() < end: pass"
    with subprocess.Popen([sys.executable, "-c", work]) as process:
        # Not waited for, its time is not ours yet.
        time.sleep(1)
        seen = others.share()
        process.wait()
    if seen is None:
        pytest.skip("the system's counters stand still or are not there")
    assert seen * machine.os.cpu_count() > 0.2


def test_peaks_are_of_the_processor():
    from jax_convgrad import _cpu

    # Between a scalar unit of 100 MHz and 4 vector units of 64 bytes at 10 GHz.
    assert 1e8 < _cpu.peak_flops(0.01) < 4 * 2 * 16 * 1e10


def test_shapes_in_the_text_are_of_the_relation():
    """Of every layer, the output is as large as PyTorch's formulas say."""
    for size, taps, stride, pad, dilation in product((5, 8), (1, 3), (1, 2), (0, 1), (1, 2)):
        line = f"1x{size}x1, {taps}, 1, stride {stride}, pad {pad}, dilation {dilation}"
        if pad > dilation * (taps - 1):
            continue
        span = dilation * (taps - 1) + 1
        plain, transposed = Conv.parse("", line), Conv.parse("", line + ", transposed")
        assert plain.shapes()["dy"] == (1, (size + 2 * pad - span) // stride + 1, 1)
        assert transposed.shapes()["dy"] == (1, (size - 1) * stride - 2 * pad + span, 1)
