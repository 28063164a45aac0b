"""Estimates the time of each layer's ops on a GPU from counts: a roofline, not a measurement.

python benchmarks/cuda_estimate.py   # writes docs/cuda_estimate.md; `make emulator` first

The plan chooses an op's kernel and tile; the emulator's module lists a call's launches without running them.
For the kernels that compute products in tiles (gemm, wgmma), the multiply-adds include those of the parts of
tiles, slices and phases beyond the problem's edges, and the bytes that blocks read are those of their tiles.
"""

from __future__ import annotations

import argparse
import itertools
import math
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from harness.layers import BUILT_IN, read_layers
from harness.problems import Conv, Problem

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests" / "support"), str(ROOT / "tests" / "cuda_compiler")]

from emulated_launches import conv_launches, conv_workspace_bytes  # noqa: E402
from names import readable  # noqa: E402

from jax_convgrad.geometry import Axis  # noqa: E402

FILE = ROOT / "docs" / "cuda_estimate.md"


class Math(NamedTuple):
    """The arithmetic of the products, and its rate in the devices' data sheets."""

    dtype: str
    tf32: bool
    bytes: int  # per number
    flops: float  # per second, dense


MATHS = {
    "bfloat16": Math("bfloat16", False, 2, 989e12),
    "float32 as TF32": Math("float32", True, 4, 495e12),
    "float32 in full": Math("float32", False, 4, 67e12),
    "float64": Math("float64", False, 8, 67e12),
}
BANDWIDTH = {"H200": 4.8e12, "H100 SXM": 3.35e12}  # bytes per second


class Counts(NamedTuple):
    """The counts of one op of one layer."""

    kernel: str
    multiply_adds: int  # with those beyond the problem's edges, if the kernel's tiles are known
    tile_bytes: int | None  # bytes that blocks read, from caches or memory
    least_bytes: int  # each operand read once, the result written once, partial sums written and read

    def seconds(self, math: Math, device: str) -> tuple[float, str]:
        """The longer of the two times, and the limit that it comes from."""
        compute = 2 * self.multiply_adds / math.flops
        memory = self.least_bytes / BANDWIDTH[device]
        return (compute, "compute") if compute >= memory else (memory, "memory")


def _over(extent: int, tile: int) -> int:
    return -(-extent // tile)


def _phases(axis: Axis) -> list[tuple[int, int]]:
    """(outputs, taps) of each phase: the outputs that meet the same taps (common_src/phase.h)."""
    phases = axis.input_dilation // math.gcd(axis.stride, axis.input_dilation)
    found = []
    for first in range(min(phases, axis.output)):
        at = first * axis.stride - axis.pad_lo
        taps = [r for r in range(axis.taps) if (at + r * axis.filter_dilation) % axis.input_dilation == 0]
        found.append((_over(axis.output - first, phases), len(taps)))
    return found


def _tiled_activation(
    problem: Conv, axes: Iterable[Axis], channels: tuple[int, int], tile: tuple[int, int, int], wide: bool
) -> tuple[int, int]:
    """Multiply-adds and numbers in tiles; ``channels`` has a group's summed channels and result channels."""
    rows, columns, slice_depth = tile
    summed, results = channels
    steps = 0  # slices of all row tiles
    for phase in itertools.product(*map(_phases, axes)):
        outputs, taps = (math.prod(numbers) for numbers in zip(*phase, strict=True)) if phase else (1, 1)
        slices = taps * _over(summed, slice_depth) if wide else _over(taps * summed, slice_depth)
        steps += _over(problem.layer.batch * outputs, rows) * slices
    steps *= _over(results, columns) * problem.layer.groups
    return steps * rows * columns * slice_depth, steps * slice_depth * (rows + columns)


def _tiled_filter(problem: Conv, tile: tuple[int, int, int], chunk: int | None) -> tuple[int, int]:
    """Multiply-adds and numbers in tiles; a tile's rows belong to any taps, or to one tap's ``chunk``s."""
    rows, columns, slice_depth = tile
    layer = problem.layer
    channels, results = layer.in_channels // layer.groups, layer.out_channels // layer.groups
    column_tiles = _over(results, columns) * layer.groups
    multiply_adds = numbers = 0
    for phase in itertools.product(*map(_phases, problem.geometry.axes)):
        outputs, taps = (math.prod(counts) for counts in zip(*phase, strict=True)) if phase else (1, 1)
        if chunk is None:
            all_rows = _over(taps * channels, rows) * rows
        else:  # the kernel multiplies the half of a tile without a chunk, but does not copy it
            all_rows = taps * _over(channels, chunk) * chunk
        # Parts begin at whole slices, so that only the last has one that is not full.
        depth = _over(layer.batch * outputs, slice_depth) * slice_depth
        row_tiles = _over(all_rows, rows)
        multiply_adds += row_tiles * rows * column_tiles * columns * depth
        numbers += (all_rows * column_tiles + row_tiles * column_tiles * columns) * depth
    return multiply_adds, numbers


class Tiles(NamedTuple):
    """How a kernel cuts a product, read off its name."""

    rows: int
    columns: int
    slice_bytes: int
    wide: bool  # a slice has one tap
    chunk: int | None = None


def tiles_of(kernel: str) -> Tiles | None:
    """The kernel's tiles; None if it has none in shared memory, or tiles of another kind (few_channels)."""
    if gemm := re.match(
        r"gemm_\w+<\w+, GemmTile<(\d+), (\d+), \d+>.*, (true|false), \d+(?:, \w+)?>$", kernel
    ):
        return Tiles(int(gemm[1]), int(gemm[2]), 64, gemm[3] == "true")
    if wgmma := re.match(r"wgmma_\w+<\w+, (\d+)\b", kernel):
        return Tiles(128, int(wgmma[1]), 128, True, 64)
    return None


FIELDS = ("input", "taps", "output", "stride", "pad_lo", "input_dilation", "filter_dilation")
FAMILIES = ("reference", "tiled", "grouped", "few_channels", "gemm", "wgmma")


def count(problem: Conv, op: str, how: Math, kernel: str = "auto") -> Counts:
    """Counts one op as planned for a device of compute capability 9.0."""
    layer, axes = problem.layer, problem.geometry.axes
    native = {
        "dtype": how.dtype,
        "batch": layer.batch,
        "in_channels": layer.in_channels,
        "out_channels": layer.out_channels,
        "groups": layer.groups,
        "axes": [tuple(getattr(axis, field) for field in FIELDS) for axis in axes],
    }
    launched = [launch.kernel for launch in conv_launches(op, kernel, tf32=how.tf32, **native)]
    # Apart from the product there may be a launch that adds partial sums, or one that rounds the filter.
    products = [name for name in readable(launched).values() if name.startswith(FAMILIES)]
    (name,) = products
    family = next(family for family in FAMILIES if name.startswith(family))
    # The workspace's contents are written once and read once.
    workspace = conv_workspace_bytes(op, family, below_highest=how.tf32, **native)
    least = problem.elements(op) * how.bytes + 2 * workspace
    tiles = tiles_of(name)
    if tiles is None:
        return Counts(name, problem.flops(op) // 2, None, least)
    tile = (tiles.rows, tiles.columns, tiles.slice_bytes // how.bytes)
    group = (layer.in_channels // layer.groups, layer.out_channels // layer.groups)
    if op == "wgrad":
        multiply_adds, numbers = _tiled_filter(problem, tile, tiles.chunk)
    elif op == "fprop":
        multiply_adds, numbers = _tiled_activation(problem, axes, group, tile, tiles.wide)
    else:
        transposed = problem.geometry.transpose().axes
        multiply_adds, numbers = _tiled_activation(problem, transposed, group[::-1], tile, tiles.wide)
    return Counts(name, multiply_adds, numbers * how.bytes, least)


HEAD = """\
# Estimated times on a GPU

**Estimates: nothing here was measured.** For each layer of
[benchmarks/shapes.toml](../benchmarks/shapes.toml) the tables give a lower bound of each op's time. It is the
longer of two times, which follow from the device's data sheet:

* *compute*: the multiply-adds of the kernel that the plan chooses, including those of tiles beyond the
  problem's edges, at the dense rate of the arithmetic:
  {rates}.
  *Work* is their number divided by the formula's number of multiply-adds.
* *memory*: operands are read once, the result is written once, and partial sums are written and read, at the
  memory's rate: {bandwidths}.

*Read* is the number of bytes that the blocks' tiles read, divided by the number that *memory* counts; the
caches have to supply the part above 1. A dash stands for a kernel without tiles in shared memory; its *work*
is taken as 1. A measured time below its bound would mean a mistake in the counts.
`python benchmarks/cuda_estimate.py` writes this file.
"""


def table(problems: Iterable[Problem], how: Math) -> str:
    """A Markdown table with a row for each op of each convolution."""
    devices = " | ".join(f"{device}, µs" for device in BANDWIDTH)
    lines = [
        f"| layer | op | kernel | work | read | {devices} | limit |",
        "|---|---|---|---|---|" + "---|" * len(BANDWIDTH) + "---|",
    ]
    for problem in problems:
        if not isinstance(problem, Conv):
            continue
        for op in problem.ops:
            counts = count(problem, op, how)
            needed = problem.flops(op) // 2
            work = f"{counts.multiply_adds / needed:.2f}" if counts.tile_bytes else "—"
            read = f"{counts.tile_bytes / counts.least_bytes:.1f}" if counts.tile_bytes else "—"
            times = [counts.seconds(how, device) for device in BANDWIDTH]
            limits = dict.fromkeys(limit for _, limit in times)
            lines.append(
                f"| {problem.name} | {op} | `{_short(counts.kernel)}` | {work} | {read} | "
                f"{' | '.join(f'{seconds * 1e6:.1f}' for seconds, _ in times)} | {' / '.join(limits)} |"
            )
    return "\n".join(lines)


def _short(kernel: str) -> str:
    """The family, and the tile where there is one."""
    name = re.match(r"(\w+?)(_kernel)?(<|$)", kernel)[1]
    tiles = tiles_of(kernel)
    return f"{name} {tiles.rows}x{tiles.columns}" if tiles else name


def main() -> None:
    """Reads the options and writes the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-o", "--output", type=Path, default=FILE, help="default: docs/cuda_estimate.md")
    args = parser.parse_args()
    try:
        text = page()
    except FileNotFoundError as error:
        sys.exit(f"cuda_estimate.py: {error}")
    args.output.write_text(text)


def page() -> str:
    """The page's text."""
    problems = read_layers(BUILT_IN)
    rates = ", ".join(f"{name} {how.flops / 1e12:.0f} TFLOP/s" for name, how in MATHS.items())
    bandwidths = ", ".join(f"{name} {rate / 1e12} TB/s" for name, rate in BANDWIDTH.items())
    parts = [HEAD.format(rates=rates, bandwidths=bandwidths)]
    parts += [f"## {name}\n\n{table(problems, how)}\n" for name, how in MATHS.items()]
    return "\n".join(parts)


if __name__ == "__main__":
    main()
