"""``python -m jax_convgrad plan``: its kernels, workspace and errors, and the promise on workspace."""

import functools
import json
import math
import re
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import jax
import pytest

import jax_convgrad
from jax_convgrad import __main__ as command_line
from jax_convgrad import conv, conv_bias_grad, conv_filter_grad, conv_input_grad
from jax_convgrad.instruments.layer_text import parse_layer
from jax_convgrad.instruments.plan_command import DTYPES, OPS, layer_plan
from jax_convgrad.primitives import targets

SHAPES = Path(__file__).parents[2] / "benchmarks" / "shapes.toml"
BUILT_IN = {entry["name"]: entry["layer"] for entry in tomllib.loads(SHAPES.read_text())["conv"]}
CONVOLUTIONS = OPS[:3]


def kernels(text, **options):
    ops = layer_plan(parse_layer(text), **options)["ops"]
    return {op: ops[op].get("kernel") for op in CONVOLUTIONS}


@pytest.mark.parametrize(
    "text, expected",
    [
        ("8x56x56x64, 3x3, 64, pad 1", {"fprop": "winograd", "dgrad": "winograd", "wgrad": "winograd"}),
        ("8x56x56x64, 5x5, 64, pad 2", {"fprop": "tiled", "dgrad": "tiled", "wgrad": "tiled"}),
        ("8x56x56x256, 1x1, 64", {"fprop": "tiled", "dgrad": "tiled", "wgrad": "tiled"}),
        (
            "8x56x56x96, 7x7, 96, pad 3, groups 96",
            {"fprop": "depthwise", "dgrad": "depthwise", "wgrad": "depthwise"},
        ),
        (
            "8x56x56x128, 3x3, 128, pad 1, groups 32",
            {"fprop": "grouped", "dgrad": "grouped", "wgrad": "grouped"},
        ),
        ("8x56x56x128, 5x5, 128, pad 2, groups 2", {"fprop": "tiled", "dgrad": "tiled", "wgrad": "tiled"}),
        # dx has three channels, which would leave most lanes empty.
        ("8x224x224x3, 7x7, 64, stride 2, pad 3", {"fprop": "tiled", "dgrad": "dot", "wgrad": "tiled"}),
        # So few positions don't repay a transposed filter.
        ("1x7x7x512, 3x3, 512, pad 1", {"fprop": "tiled", "dgrad": "dot", "wgrad": "tiled"}),
    ],
)
def test_which_kernel(text, expected):
    assert kernels(text) == expected


def test_where_the_filter_is_read():
    ops = layer_plan(parse_layer("8x56x56x64, 3x3, 64, pad 1"), below_highest=False)["ops"]
    assert not ops["fprop"]["packed"] and ops["fprop"]["workspace_bytes"] == 0
    assert ops["dgrad"]["packed"] and ops["dgrad"]["workspace_bytes"] == 3 * 3 * 64 * 64 * 4
    assert len(ops["fprop"]["tasks"]) == 1 and len(ops["dgrad"]["tasks"]) == 2  # packing comes first


DENSE = "8x56x56x64, 3x3, 64, pad 1"


def test_precision_highest_avoids_winograd(capsys):
    assert kernels(DENSE, below_highest=False) == dict.fromkeys(CONVOLUTIONS, "tiled")
    facts = layer_plan(parse_layer(DENSE))["ops"]
    assert {facts[op]["kernel_at_highest"] for op in CONVOLUTIONS} == {"tiled"}
    assert command_line.main(["plan", DENSE]) == 0
    reason = "dgrad: precision HIGHEST takes tiled, whose rounding errors are smaller"
    assert reason in capsys.readouterr().out.splitlines()
    assert command_line.main(["plan", DENSE, "--highest"]) == 0
    told = capsys.readouterr().out
    assert "at precision HIGHEST\n" in told and "winograd" not in told
    assert command_line.main(["plan", DENSE, "--highest", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == layer_plan(parse_layer(DENSE), below_highest=False) and not told["below_highest"]


def test_winograds_tiles(capsys):
    """Two tiles of 4 results cover 7 pixels; a filter too large to keep is transformed where it is used."""
    line = "2x7x7x512, 3x3, 512, pad 1"
    facts = layer_plan(parse_layer(line), kernel="winograd")["ops"]
    for op in CONVOLUTIONS:
        assert [facts[op][f"tile_{of}"] for of in ("results", "products")] == [16, 36]
        assert facts[op]["tiles"] == 2 * 2 * 2 and "kernel_at_highest" not in facts[op]
    assert [facts[op]["packed"] for op in CONVOLUTIONS[:2]] == [False, False]
    assert command_line.main(["plan", line, "--kernel", "winograd"]) == 0
    told = capsys.readouterr().out
    assert "transformed by task" in told and "HIGHEST" not in told
    assert command_line.main(["plan", "2x99x64, 3, 64, pad 1", "--kernel", "winograd"]) == 0
    told = capsys.readouterr().out
    assert "4 pixels, 6 products" in told and "transformed once" in told


@pytest.mark.parametrize("isa", targets.backends["cpu"].module.instruction_sets())
def test_a_kernel_and_instruction_set_asked_for(isa):
    layer = parse_layer(DENSE)
    ops = layer_plan(layer, kernel=f"tiled.{isa}")["ops"]
    of_bf16 = layer_plan(layer, "bfloat16", kernel=f"tiled.{isa}")["ops"]
    for op in CONVOLUTIONS:
        # Only bf16 has code of its own on avx512_bf16.
        assert (ops[op]["kernel"], ops[op]["instruction_set"]) == ("tiled", isa.removesuffix("_bf16"))
        assert (of_bf16[op]["kernel"], of_bf16[op]["instruction_set"]) == ("tiled", isa)
        assert (of_bf16[op].get("arithmetic") == "bf16 pairs") == (isa == "avx512_bf16")
        assert "arithmetic" not in ops[op]
        assert ops[op]["reason"] == "asked for"
    reference = layer_plan(layer, kernel="reference")["ops"]
    assert {reference[op]["kernel"] for op in CONVOLUTIONS} == {"reference"}


def test_an_op_that_the_kernel_does_not_serve():
    ops = layer_plan(parse_layer("8x56x56x64, 3x3, 64, pad 1"), kernel="dot")["ops"]
    assert ops["dgrad"]["kernel"] == "dot"
    assert list(ops["wgrad"]) == ["not_served"] and "wgrad" in ops["wgrad"]["not_served"]


def test_a_kernel_that_serves_none(capsys):
    with pytest.raises(SystemExit) as exit:
        command_line.main(["plan", "8x56x56x64, 3x3, 64", "--kernel", "grouped"])
    assert exit.value.code == 2
    assert "several groups" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text",
    ["8x56x56x64, 3x3, 64, pad 1", "8x56x56x96, 7x7, 96, pad 3, groups 96", "1x6087x8, 4, 8, stride 1523"],
)
def test_every_kernel_that_is_printed_can_be_asked_for(text):
    """By its name alone, and with the instruction set that the plan gives."""
    layer = parse_layer(text)
    for op, facts in layer_plan(layer)["ops"].items():
        for suffix in ("", *(f".{isa}" for isa in [facts.get("instruction_set")] if isa)):
            asked = layer_plan(layer, kernel=facts["kernel"] + suffix)["ops"][op]
            assert asked | {"kernel_at_highest": ""} == facts | {
                "reason": "asked for",
                "kernel_at_highest": "",
            }


def test_the_kernel_of_the_bias_gradient(capsys):
    layer = parse_layer(DENSE)
    ops = layer_plan(layer, kernel="vector")["ops"]
    assert ops["bgrad"]["kernel"] == "vector" and all(
        "bgrad alone" in ops[o]["not_served"] for o in CONVOLUTIONS
    )
    assert command_line.main(["plan", "8x56x56x64, 3x3, 64, pad 1", "--kernel", "vector"]) == 0
    assert "bgrad: vector, asked for" in capsys.readouterr().out
    with pytest.raises(ValueError, match="sse9"):
        layer_plan(layer, kernel="vector.sse9")


def workspace_of(function, *shapes, dtype):
    """Bytes of the uint8 result of the one call that a function is lowered to."""
    operands = [jax.ShapeDtypeStruct(shape, dtype) for shape in shapes]
    text = jax.jit(function).trace(*operands).lower(lowering_platforms=("cpu",)).as_text()
    ((size,),) = [
        re.findall(r"tensor<(\d+)xui8>", line.partition("->")[2])
        for line in text.splitlines()
        if "custom_call" in line
    ]
    return int(size)


@pytest.mark.parametrize("text", list(BUILT_IN.values()), ids=list(BUILT_IN))
def test_usual_layers_are_not_taken_pair_by_pair(text):
    """Layers of many products, which the other kernels are made for."""
    assert "pairs" not in kernels(text).values()


@pytest.mark.parametrize(
    ("text", "op"),
    [
        ("2x202161x2, 528, 4, stride 528, groups 2", "fprop"),
        ("4x5992x16, 49, 16, stride 118, groups 16", "dgrad"),
        ("1x6087x8, 4, 8, stride 1523, groups 8", "wgrad"),
    ],
)
def test_large_steps_leave_few_pairs(text, op):
    """The other kernels would copy, or go over, all that lies between the windows."""
    assert kernels(text)[op] == "pairs"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kernel", ["auto", "reference", "tiled"])
@pytest.mark.parametrize("name", ["resnet50.conv1", "mobilenet.dw.14", "audio.1d", "video.3d"])
def test_workspace_is_what_the_call_asks_for(name, kernel, dtype, monkeypatch):
    layer = parse_layer(BUILT_IN[name])
    monkeypatch.setitem(targets.backends, "cpu", replace(targets.backends["cpu"], kernel=kernel))
    x, w, y = layer.x_shape, layer.w_shape, layer.y_shape
    settings = {"stride": layer.stride, "padding": layer.pad, "dilation": layer.dilation}
    settings["groups"] = layer.groups
    calls = {
        "fprop": (functools.partial(conv, **settings), x, w),
        "dgrad": (functools.partial(conv_input_grad, input_shape=x, **settings), y, w),
        "wgrad": (functools.partial(conv_filter_grad, filter_shape=w, **settings), x, y),
        "bgrad": (conv_bias_grad, y),
    }
    with jax.enable_x64(dtype == "float64"):
        asked = {op: workspace_of(*call, dtype=dtype) for op, call in calls.items()}
    planned = layer_plan(layer, dtype, kernel)["ops"]
    assert asked == {op: facts["workspace_bytes"] for op, facts in planned.items()}


def workspace_allowed(layer, plan, below_highest):
    """The bytes that the README allows each op."""
    wide = 2 if DTYPES[plan["dtype"]] == 2 else 1  # 16 bits are widened to 32
    filter_bytes = plan["filter_bytes"] * wide
    # A tile is what the registers hold, at most 32 of 64 bytes, and a channel's part of a vector is a vector.
    tile = 32 * 64
    allowed = max(filter_bytes, tile, 0.05 * plan["activations_bytes"])
    if not below_highest or plan["dtype"] == "float64":
        return dict.fromkeys(OPS, allowed)
    # A transformed filter has whole vectors of channels, and a line of 64 bytes a point and group.
    *taps, group_in, features = layer.w_shape
    group_out, whole = features // layer.groups, lambda channels: -(-channels // 16) * 16
    channels = max(group_in * whole(group_out), whole(group_in) * group_out)
    transformed = 4 * (4 * math.prod(taps) * layer.groups * channels) + 36 * 64 * layer.groups
    transformed = max(allowed, min(transformed, 16 << 20))
    partial_sums = max(allowed, plan["activations_bytes"] * wide / 4)
    return {"fprop": transformed, "dgrad": transformed, "wgrad": partial_sums, "bgrad": allowed}


@pytest.mark.parametrize("below_highest", [False, True], ids=["highest", "below"])
@pytest.mark.parametrize("batch", [1, 8, None])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", BUILT_IN)
def test_workspace_stays_small(name, dtype, batch, below_highest):
    """Each op's workspace is what the README promises."""
    _, _, rest = BUILT_IN[name].partition("x")
    layer = parse_layer(f"{batch}x{rest}" if batch else BUILT_IN[name])
    plan = layer_plan(layer, dtype, below_highest=below_highest)
    allowed = workspace_allowed(layer, plan, below_highest)
    for op, facts in plan["ops"].items():
        assert facts["workspace_bytes"] <= allowed[op], op


def test_the_table_and_its_json(capsys):
    text = DENSE
    for options, parts in {
        ("--highest",): ("tiled", "pixels x", "packed", "read in place"),
        (): ("winograd", "16 pixels, 36 products", "1568, ", " at a time", "transformed once"),
    }.items():
        assert command_line.main(["plan", text, *options]) == 0
        table = capsys.readouterr().out
        for part in (text, *OPS, *parts, "of the activations"):
            assert part in table
    assert command_line.main(["plan", text, "--dtype", "bfloat16", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == layer_plan(parse_layer(text), "bfloat16")


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["8x56x56x64, 3, 64"], "the filter '3' should have 2 sizes"),
        (["8x56x56x64, 3x3, 64, padding 1"], "'padding 1' is not known"),
        (["1x3000000000x3, 3, 4"], "numbers below 2^30"),
        (["1x9x3, 3, 4, pad 99999999999999999999"], "numbers below 2^30"),
        (["8x56x56x64, 3x3, 64", "--kernel", "strassen"], '"strassen"'),
        (["8x56x56x64, 3x3, 64", "--kernel", "strassen"], '"pairs", and for bgrad "vector"'),
        (["8x56x56x64, 5x5, 64", "--kernel", "winograd"], '"winograd" serves float32, bfloat16 and float16'),
        (
            ["8x56x56x64, 3x3, 64", "--kernel", "winograd", "--platform", "cuda"],
            '"wgmma", and for bgrad "vector"',
        ),
        (["8x56x56x64, 3x3, 64", "--kernel", "tiled.sse9"], '"sse9"'),
        (["8x56x56x64, 3x3, 64", "--dtype", "int8"], "int8"),
        (["1x5x5x1, max 3x3"], "convolutions only; `python -m jax_convgrad explain` knows pooling"),
        (["1x6x6x1, avg 3x3, stride 2"], "explain` knows pooling"),
        (["max 8x56x56x64, 3x3"], "convolutions only; `python -m jax_convgrad explain` knows pooling"),
        (
            ["8,56,56,64 3x3 64"],
            "the input '8' should be at least 3 numbers with an x between them, as in",
        ),
    ],
)
def test_what_is_malformed(arguments, message, capsys):
    with pytest.raises(SystemExit) as exit:
        command_line.main(["plan", *arguments])
    assert exit.value.code == 2
    assert message in capsys.readouterr().err


def test_what_is_wrong_is_said_in_a_line(capsys):
    with pytest.raises(SystemExit):
        command_line.main(["plan", "8x56x56x64, 3, 64"])
    told = capsys.readouterr().err
    assert told.startswith("plan: ") and told.count("\n") == 1 and "pooling" not in told


def test_the_version(capsys):
    with pytest.raises(SystemExit) as exit:
        command_line.main(["--version"])
    assert exit.value.code == 0
    assert capsys.readouterr().out == f"jax_convgrad {jax_convgrad.__version__}\n"


def test_without_cpu_kernels(monkeypatch, capsys):
    monkeypatch.delitem(targets.backends, "cpu")
    with pytest.raises(SystemExit) as exit:
        command_line.main(["plan", "8x56x56x64, 3x3, 64"])
    assert exit.value.code == 1
    assert "no CPU kernels" in capsys.readouterr().err


def test_for_a_reader_who_stops():
    """As with head: no traceback."""
    # -P: where the tests run there may be the package's source folder, in which nothing is built.
    command = f"{sys.executable} -P -m jax_convgrad plan '1x9x4, 3, 8' | true"
    result = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")


def test_as_a_module():
    command = [sys.executable, "-P", "-m", "jax_convgrad", "plan", "1x9x4, 3, 8"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "1x9x4, 3, 8" in result.stdout


@pytest.mark.parametrize(
    "text",
    [
        "2x8x9x4, 3x3, 6",
        "2x8x9x4, 3x3, 6, pad 1, stride 2",
        "2x12x4, 3, 6, pad 2, dilation 2, groups 2",
        "1x5x6x7x2, 2x3x3, 4, pad 1, stride 2",
    ],
)
def test_flops_are_those_of_the_sums(text):
    """As XLA counts them of lax's own convolution, which leaves out what meets the padding."""
    layer = parse_layer(text)
    x, w = (jax.numpy.ones(shape) for shape in (layer.x_shape, layer.w_shape))
    axes = layer.geometry.axes
    spatial = "DHW"[3 - len(axes) :]
    of_lax = jax.jit(
        lambda x, w: jax.lax.conv_general_dilated(
            x,
            w,
            [a.stride for a in axes],
            [(a.pad_lo, a.pad_lo) for a in axes],
            rhs_dilation=[a.filter_dilation for a in axes],
            dimension_numbers=(f"N{spatial}C", f"{spatial}IO", f"N{spatial}C"),
            feature_group_count=layer.groups,
        )
    )
    expected = of_lax.lower(x, w).cost_analysis()["flops"]
    ops = layer_plan(layer)["ops"]
    assert [ops[op]["flops"] for op in CONVOLUTIONS] == [expected] * 3
    assert ops["bgrad"]["flops"] == of_lax(x, w).size


def test_cudas_plan_needs_no_gpu(capsys):
    line = "8x56x56x64, 3x3, 64, pad 1"
    assert command_line.main(["plan", line, "--platform", "cuda", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["platform"], told["capability"], told["tf32"]) == ("cuda", 9, True)
    assert {op: told["ops"][op]["kernel"] for op in OPS} == {
        "fprop": "wgmma",
        "dgrad": "wgmma",
        "wgrad": "gemm",
        "bgrad": "vector",
    }
    assert command_line.main(["plan", line, "--platform", "cuda", "--capability", "8", "--highest"]) == 0
    text = capsys.readouterr().out
    assert "CUDA of compute capability 8, in full float32" in text
    assert "f32 multiply-adds" in text and "wgmma" not in text


def test_cudas_workspace_suffices_for_every_gpu(capsys):
    """The plan gives the workspace of the call, and what its own kernel needs of that."""
    line = "8x56x56x64, 3x3, 64, pad 1"
    filter_bytes = 3 * 3 * 64 * 64 * 4
    facts = layer_plan(parse_layer(line), platform="cuda")["ops"]["wgrad"]
    assert (facts["kernel"], facts["partial_sums"]) == ("gemm", 4)
    assert facts["kernel_workspace_bytes"] == 4 * filter_bytes < facts["workspace_bytes"]
    others = [layer_plan(parse_layer(line), platform="cuda", capability=c)["ops"]["wgrad"] for c in (7, 8)]
    assert facts["workspace_bytes"] == max(other["partial_sums"] * filter_bytes for other in others)
    assert command_line.main(["plan", line, "--platform", "cuda"]) == 0
    reasons = [text for text in capsys.readouterr().out.splitlines() if "suffices for every GPU" in text]
    assert len(reasons) == 1 and reasons[0].startswith("wgrad: ") and "gemm needs 590 kB" in reasons[0]
    assert command_line.main(["plan", line, "--platform", "cuda", "--kernel", "gemm"]) == 0
    assert "every GPU" not in capsys.readouterr().out


@pytest.mark.parametrize("capability", [7, 8, 9, 10])
@pytest.mark.parametrize("name", BUILT_IN)
def test_cudas_kernel_needs_no_more_than_the_workspace(name, capability):
    for dtype in DTYPES:
        ops = layer_plan(parse_layer(BUILT_IN[name]), dtype, platform="cuda", capability=capability)["ops"]
        assert all(ops[op]["kernel_workspace_bytes"] <= ops[op]["workspace_bytes"] for op in OPS)


@pytest.mark.parametrize("text, number", [("7", 7), ("8.6", 8), ("9.0", 9), ("12.1", 12)])
def test_a_compute_capability_counts_by_its_first_number(text, number, capsys):
    line = ["plan", "8x56x56x64, 3x3, 64, pad 1", "--platform", "cuda", "--json", "--capability", text]
    assert command_line.main(line) == 0
    assert json.loads(capsys.readouterr().out)["capability"] == number


@pytest.mark.parametrize("text", ["90", "6", "0", "-9", "hopper", "9.", "sm_90", "13.0"])
def test_an_unknown_compute_capability_is_refused(text, capsys):
    with pytest.raises(SystemExit) as ended:
        command_line.main(["plan", "8x56x56x64, 3x3, 64", "--platform", "cuda", f"--capability={text}"])
    assert ended.value.code == 2
    assert f"--capability {text!r} should be one of 7, 8, 9, 10, 11, 12" in capsys.readouterr().err


@pytest.mark.parametrize("command", [[], ["plan"], ["explain"], ["doctor"]])
def test_the_help_is_plain_text(command, capsys):
    with pytest.raises(SystemExit) as ended:
        command_line.main([*command, "--help"])
    assert ended.value.code == 0
    told = capsys.readouterr().out
    assert "usage: python -m jax_convgrad" in told and "``" not in told


def test_what_cuda_alone_has_is_refused_for_the_cpu(capsys):
    with pytest.raises(SystemExit) as ended:
        command_line.main(["plan", "8x56x56x64, 3x3, 64, pad 1", "--capability", "9"])
    assert ended.value.code == 2
    assert "--platform cuda" in capsys.readouterr().err
