"""The counts that the estimates of benchmarks/cuda_estimate.py are made of: those of the emulated kernels."""

import jax
import numpy as np
import pytest
from backends import cuda_backend
from cuda_estimate import BANDWIDTH, MATHS, Counts, count, table
from emulated_counters import counting
from harness.jax_ops import jitted
from harness.layers import BUILT_IN, read_layers
from harness.problems import Conv

TENSOR_CORES = {"bfloat16": "bf16", "float32 as TF32": "tf32", "float64": "f64"}
LAYERS = (
    "2x7x9x40, 3x3, 72, pad 1",  # tails of tiles and slices
    "3x9x8x16, 3x3, 24, stride 2, pad 1",  # phases of unlike sizes
    "2x8x8x8, 2x2, 16, stride 2, transposed",
    "1x9x9x8, 3x2, 16, dilation 2x3",
    "2x5x6x48, 3x3, 72, pad 1, groups 3",
    "2x40x16, 5, 8, stride 2, pad 2",
    "2x7x6x9, 3x3, 7, stride 2, pad 1",  # channels in odd numbers
)


def counted_in(problem, op, operands):
    """The emulator's counters of one call, with TF32 where that is for f32 to choose."""
    call = jitted(problem, op, "ours")
    with jax.default_matmul_precision("default"):
        call(*operands).block_until_ready()
        with counting() as counted:
            call(*operands).block_until_ready()
    return counted


@pytest.mark.emulator
@pytest.mark.parametrize("backend", [cuda_backend("gemm")], indirect=True)
@pytest.mark.parametrize("text", LAYERS)
@pytest.mark.parametrize("math", TENSOR_CORES)
def test_counts_are_the_emulators(backend, math, text):
    """Multiply-adds to the last one; of the tiles' bytes at most all are read, past the edges none."""
    problem, how = Conv.parse("", text), MATHS[math]
    operands = [np.ones(shape, how.dtype) for shape in problem.shapes().values()]
    for op in problem.ops:
        expected, counted = count(problem, op, how, "gemm"), counted_in(problem, op, operands)
        assert counted[f"mma_{TENSOR_CORES[math]}"] == expected.multiply_adds, op
        assert counted["cp_async_global"]["bytes"] <= expected.tile_bytes


WGMMA_LAYERS = (
    "2x7x9x40, 3x3, 72, pad 1",
    "3x9x8x16, 3x3, 24, stride 2, pad 1",
    "1x9x9x8, 3x2, 16, dilation 2x3",
    "1x5x6x128, 3x3, 128, pad 1, groups 2",
    "2x40x16, 5, 8, stride 2, pad 2",
)


@pytest.mark.emulator
@pytest.mark.parametrize("backend", [cuda_backend("wgmma")], indirect=True)
@pytest.mark.parametrize("text", WGMMA_LAYERS)
@pytest.mark.parametrize("math", ["bfloat16", "float32 as TF32"])
def test_counts_of_wgmma(backend, math, text):
    problem, how = Conv.parse("", text), MATHS[math]
    operands = [np.ones(shape, how.dtype) for shape in problem.shapes().values()]
    for op in problem.ops[:2] if how.tf32 else problem.ops:  # its wgrad is no kernel of wgmma's
        expected, counted = count(problem, op, how, "wgmma"), counted_in(problem, op, operands)
        assert counted[f"wgmma_{TENSOR_CORES[math]}"] == expected.multiply_adds, op
        assert counted["tma_global"]["bytes"] <= expected.tile_bytes


@pytest.mark.emulator
@pytest.mark.parametrize(
    "backend, copies", [(cuda_backend("gemm"), "cp_async_global"), (cuda_backend("wgmma"), "tma_global")],
    indirect=["backend"],
)  # fmt: skip
def test_bytes_without_an_edge(backend, copies):
    """Where all tiles are full, blocks read just the tiles' bytes."""
    problem, how = Conv.parse("", "2x8x8x64, 1x1, 64"), MATHS["bfloat16"]
    operands = [np.ones(shape, how.dtype) for shape in problem.shapes().values()]
    for op in problem.ops:
        expected = count(problem, op, how, backend.rpartition("-")[2])
        assert counted_in(problem, op, operands)[copies]["bytes"] == expected.tile_bytes


# Where tensor cores multiply more than 15 % beside what the formula asks for: how often at most, and why.
FEW_COLUMNS = "its results have 1 or 3 channels, and a tile 64 columns"
PADDING = "of an image of 7x7 a fifth of the taps are on the padding: (3 * 7 / 19)^2"
SMALL = "16 and 32 channels fill half a slice and half a tile's columns"
HALF_A_TILE = "3 taps of 64 channels fill one and a half tiles of 128 rows"
WASTE = {
    ("resnet50.conv1", "dgrad"): (21.7, FEW_COLUMNS),
    ("deepspeech.conv1", "dgrad"): (64.9, FEW_COLUMNS),
    ("simplecnn.1", "dgrad"): (74.7, FEW_COLUMNS),
    ("simplecnn.1.n1", "dgrad"): (85.3, FEW_COLUMNS),
    ("resnet50.3x3.7", "fprop"): (1.23, PADDING),
    ("resnet50.3x3.7", "dgrad"): (1.23, PADDING),
    ("resnet50.3x3.7", "wgrad"): (1.23, PADDING),
    ("audio.1d", "wgrad"): (1.34, HALF_A_TILE),
    ("simplecnn.2", "fprop"): (4.42, SMALL),
    ("simplecnn.2", "dgrad"): (4.42, SMALL),
    ("simplecnn.2", "wgrad"): (2.95, SMALL),
    ("simplecnn.2.n1", "fprop"): (5.76, SMALL),
    ("simplecnn.2.n1", "dgrad"): (5.76, SMALL),
    ("simplecnn.2.n1", "wgrad"): (3.36, SMALL),
}
DENSE = [
    (problem, op)
    for problem in read_layers(BUILT_IN)
    if isinstance(problem, Conv) and problem.layer.groups == 1
    for op in problem.ops
]


@pytest.mark.parametrize("problem, op", DENSE, ids=lambda value: getattr(value, "name", value))
def test_work_of_dense_layers(problem, op):
    """By the plan's own choice, in bf16; a layer that got better leaves the list."""
    counts = count(problem, op, MATHS["bfloat16"])
    work = counts.multiply_adds / (problem.flops(op) // 2) if counts.tile_bytes else 1.0
    most, reason = WASTE.get((problem.name, op), (1.15, "no reason is known"))
    assert work <= most, f"{counts.kernel}: {work:.3f} times the work; {reason}"
    if (problem.name, op) in WASTE:
        assert work > 1.15, f"{counts.kernel}: {work:.3f}, which is not worth a place in the list any more"


def test_reasons_are_of_layers_that_there_are():
    assert WASTE.keys() <= {(problem.name, op) for problem, op in DENSE}


def test_time_is_the_longer_of_two():
    how = MATHS["bfloat16"]
    assert Counts("", 989 * 10**9, None, 48 * 10**8).seconds(how, "H200") == (2e-3, "compute")
    assert Counts("", 989 * 10**9, None, 48 * 10**9).seconds(how, "H200") == (10e-3, "memory")


def test_the_table_of_emulated_launches():
    """A row an op; a product of 2^31 multiply-adds without an edge, and one that memory binds."""
    problems = [
        Conv.parse("dense", "128x32x32x128, 1x1, 128"),
        Conv.parse("depthwise", "64x56x56x96, 3x3, 96, pad 1, groups 96"),
    ]
    rows = [line.split(" | ") for line in table(problems, MATHS["float32 in full"]).splitlines()[2:]]
    assert [row[:2] for row in rows[:3]] == [["| dense", op] for op in ("fprop", "dgrad", "wgrad")]
    assert all(row[3] == "1.00" for row in rows[:3])
    assert float(rows[0][5]) == pytest.approx(2 * 2**31 / 67e12 * 1e6, abs=0.06)
    assert rows[0][-1] == "compute |"
    assert rows[3][3:5] == ["—", "—"]
    least = 2 * 64 * 56 * 56 * 96 * 4 + 9 * 96 * 4
    for at, bandwidth in enumerate(BANDWIDTH.values()):
        assert float(rows[3][5 + at]) == pytest.approx(least / bandwidth * 1e6, abs=0.06)
    assert rows[3][-1] == "memory |"
