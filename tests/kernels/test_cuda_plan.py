"""The CUDA kernels' plan, which every machine has, against what calls launch in the emulator."""

import emulated_launches
import pytest
from emulated_launches import conv_launches, kernels

from jax_convgrad.primitives import targets

CPU = targets.backends["cpu"].module


def problem(size, channels, features, taps, stride=1, pad=0, groups=1, batch=8, dtype="float32"):
    """A square layer, as the native modules take it."""
    output = (size + 2 * pad - taps) // stride + 1
    axis = (size, taps, output, stride, pad, 1, 1)
    return {
        "dtype": dtype,
        "batch": batch,
        "in_channels": channels,
        "out_channels": features,
        "groups": groups,
        "axes": [axis, axis],
    }


LAYERS = {
    "3x3": problem(28, 64, 128, 3, pad=1),
    "3x3, 16-bit": problem(28, 64, 128, 3, pad=1, dtype="bfloat16"),
    "strided": problem(28, 32, 64, 3, 2, 1),
    "1x1": problem(14, 256, 64, 1),
    "odd channels": problem(9, 17, 33, 3),
    "patches": problem(32, 8, 96, 8, 8, dtype="float16"),
    "first layer": problem(64, 3, 64, 7, 2, 3, batch=2),
    "depthwise": problem(14, 96, 96, 3, pad=1, groups=96),
    "depthwise 5x5": problem(13, 40, 40, 5, 2, 2, groups=40, dtype="bfloat16"),
    "depthwise 7x7": problem(15, 16, 16, 7, 2, 3, groups=16),
    "depthwise 7x7, f64": problem(15, 16, 16, 7, 1, 3, groups=16, dtype="float64"),
    "depthwise, odd channels": problem(14, 7, 7, 3, pad=1, groups=7),
    "depthwise, wide stride": problem(21, 16, 16, 3, 3, 1, groups=16),
    "groups of 4": problem(14, 32, 32, 3, pad=1, groups=8, dtype="float64"),
    "groups of 8": problem(14, 64, 64, 3, 2, 1, groups=8),
    "groups": problem(14, 64, 64, 3, pad=1, groups=2),
}
OPS = ("fprop", "dgrad", "wgrad")


def plan(op, kernel, layer, tf32=False, capability=9):
    return CPU.cuda_plan(op, kernel, **layer, tf32=tf32, capability=capability)


@pytest.mark.parametrize("tf32", [False, True])
@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("name", LAYERS)
def test_the_tasks_are_the_blocks_that_are_launched(name, op, tf32):
    """And the kernel's name is in that of the function; wgmma's blocks share their tiles."""
    for kernel in kernels():
        try:
            facts = plan(op, kernel, LAYERS[name], tf32)
        except ValueError:
            with pytest.raises(ValueError, match=f'"{kernel}"'):
                conv_launches(op, kernel, tf32=tf32, **LAYERS[name])
            continue
        launches = [
            launch
            for launch in conv_launches(op, kernel, tf32=tf32, **LAYERS[name])
            if f"{facts['kernel']}_" in launch.kernel
        ]
        assert len(launches) == 1, (kernel, facts, launches)
        unknown = kernel == "reference" or (kernel, op) == ("grouped", "wgrad")
        assert ("tasks" in facts) != unknown or facts["kernel"] != kernel
        if "tasks" in facts:
            (tasks,) = facts["tasks"]
            blocks = launches[0].blocks
            assert blocks == min(tasks, blocks) if facts["kernel"] == "wgmma" else blocks == tasks, kernel


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("name", LAYERS)
def test_partial_sums_are_what_the_workspace_holds(name, op):
    layer = LAYERS[name]
    for kernel in kernels():
        try:
            facts = plan(op, kernel, layer)
        except ValueError:
            continue
        if "partial_sums" not in facts:
            continue
        taps = layer["axes"][0][1] * layer["axes"][1][1]
        sum_bytes = 8 if layer["dtype"] == "float64" else 4
        filter_bytes = sum_bytes * taps * layer["in_channels"] // layer["groups"] * layer["out_channels"]
        parts = facts["partial_sums"]
        assert facts["workspace_bytes"] == (0 if parts == 1 else parts * filter_bytes), kernel


@pytest.mark.parametrize(
    "name, capability, expected",
    [
        ("3x3", 7, ("tiled", "tiled", "tiled")),
        ("3x3", 8, ("gemm", "gemm", "gemm")),
        ("3x3, 16-bit", 8, ("gemm", "gemm", "gemm")),
        ("3x3, 16-bit", 9, ("wgmma", "wgmma", "wgmma")),
        ("3x3, 16-bit", 10, ("gemm", "gemm", "gemm")),
        ("first layer", 8, ("few_channels", "gemm", "few_channels")),
        ("depthwise", 9, ("grouped", "grouped", "grouped")),
    ],
)
def test_which_kernel_auto_stands_for(name, capability, expected):
    facts = [plan(op, "auto", LAYERS[name], capability=capability) for op in OPS]
    assert tuple(each["kernel"] for each in facts) == expected
    assert all(each["reason"] not in ("", "asked for") for each in facts)


def test_the_device_takes_the_planned_kernel():
    """The emulated device is of capability 9."""
    for name, layer in LAYERS.items():
        for op in OPS:
            kernel = plan(op, "auto", layer)["kernel"]
            assert any(f"{kernel}_" in launch.kernel for launch in conv_launches(op, "auto", **layer)), name


@pytest.mark.parametrize("op", OPS)
def test_an_array_without_elements_is_for_the_reference_kernel(op):
    """And sizes whose product has more than 64 bits are counted without it."""
    layer = problem(8, 16, 16, 3, batch=0)
    for kernel in ("auto", "tiled", "gemm"):
        assert plan(op, kernel, layer)["kernel"] == "reference"
        assert {launch.kernel for launch in conv_launches(op, kernel, **layer)} <= {
            launch.kernel for launch in conv_launches(op, "reference", **layer)
        }
    assert plan(op, "auto", problem(1 << 14, 1 << 10, 1 << 10, 3, batch=1 << 20))["kernel"] != "reference"


def test_both_modules_have_one_plan():
    for layer in LAYERS.values():
        for op in (*OPS, "bgrad"):
            arguments = {**layer, "tf32": True, "capability": 9}
            assert CPU.cuda_plan(op, "auto", **arguments) == emulated_launches.plan(op, "auto", **arguments)


def test_names():
    layer = LAYERS["3x3"]
    with pytest.raises(ValueError, match=r'"fast", CUDA has "auto", "reference", .*"wgmma"$'):
        plan("fprop", "fast", layer)
    with pytest.raises(ValueError, match=r'"fast", CUDA has .*for pooling and bgrad "vector"$'):
        plan("bgrad", "fast", layer)
    with pytest.raises(ValueError, match=r'"fast", the CPU has "auto", "vector", "reference"'):
        CPU.plan("bgrad", "fast", **layer)
    with pytest.raises(ValueError, match=r'"vector", the CPU has "auto", "reference"'):
        CPU.plan("fprop", "vector", **layer)
    assert plan("bgrad", "vector", layer)["kernel"] == "vector"
    assert CPU.plan("bgrad", "vector.plain", **layer)["instruction_set"] == "plain"
    assert plan("bgrad", "reference", layer)["kernel"] == "reference"
