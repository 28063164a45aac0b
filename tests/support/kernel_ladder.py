"""The costs of each CUDA kernel for the same layer: counted in the emulator, or computed with a formula.

    python tests/support/kernel_ladder.py            # prints the tables of docs/kernels.md
    python tests/support/kernel_ladder.py --write    # writes them into it

The emulator counts accesses through named functions (tests/cuda_emulator/README.md). The reference and the
tiled kernels access memory with plain expressions, which it does not see; their columns follow from their
loops. ``copied_bytes`` is that formula for every tiled product. The counters of "gemm", which does the
same in larger tiles, test whether it is right (test_kernel_ladder.py).
"""

from __future__ import annotations

import functools
import itertools
import re
import sys
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from backends import cuda_backend, install
from conv_cases import NHWC, ConvCase
from emulated_counters import counting
from emulated_launches import conv_launches

import jax_convgrad as jc

PAGE = Path(__file__).resolve().parents[2] / "docs" / "kernels.md"
WARP, SECTOR = 32, 32

LAYER = ConvCase("2x8x8x64, 3x3, 64, pad 1", (2, 8, 8, 64), (3, 3, 64, 64), 1, ((1, 1), (1, 1)), order=NHWC)
STRIDED = ConvCase(
    "2x16x16x64, 3x3, 64, stride 2, pad 1", (2, 16, 16, 64), (3, 3, 64, 64), 2, ((1, 1), (1, 1)), order=NHWC
)
STEM = ConvCase(
    "1x64x64x3, 7x7, 64, stride 2, pad 3", (1, 64, 64, 3), (7, 7, 3, 64), 2, ((3, 3), (3, 3)), order=NHWC
)
DEPTHWISE = ConvCase(
    "2x8x8x8, 3x3, 8, pad 1, groups 8", (2, 8, 8, 8), (3, 3, 1, 8), 1, ((1, 1), (1, 1)), 1, 1, 8, order=NHWC
)

OPS = {
    "fprop": lambda case, x, w, dy: jc.conv_general_dilated(x, w, **case.lax_arguments),
    "dgrad": lambda case, x, w, dy: jc.conv_input_grad(dy, w, x.shape, **case.grad_arguments),
    "wgrad": lambda case, x, w, dy: jc.conv_filter_grad(x, dy, w.shape, **case.grad_arguments),
}


class Cost(NamedTuple):
    """The cost of one launch: multiply-adds, bytes, and instructions of warps."""

    multiply_adds: int  # including those with zeros that fill up a tile
    multiplying: float  # the instructions of these
    global_bytes: int  # that the lanes request
    global_sectors: int  # of 32 bytes, that the instructions request from the caches
    shared_bytes: int  # that are read
    moving: int  # instructions that move operands to shared memory or to registers


# ---------------------------------------------------------------------------------- counted by the relation


def tied_pairs(case: ConvCase) -> int:
    """The number of pairs (r, o) that the relation ties to an input, over all axes."""
    pairs = 1
    for axis in case.axes:
        at = np.arange(axis.output)[:, None] * axis.stride + np.arange(axis.taps) * axis.filter_dilation
        at = at - axis.pad_lo
        tied = (at >= 0) & (at % axis.input_dilation == 0) & (at // axis.input_dilation < axis.input)
        pairs *= int(tied.sum())
    return pairs


def terms(case: ConvCase) -> int:
    """The number of products in the formula, which has none on padding, between strides or dilated inputs."""
    return case.x[0] * tied_pairs(case) * case.w[-2] * case.w[-1]


def reference_cost(case: ConvCase, op: str, item: int = 2) -> Cost:
    """The cost of "reference", where each product reads both its factors.

    The 32 lanes are neighbours in the result's last dimension. In dgrad this is c: all lanes read the same
    dy[n,o,k], and w[r,c,k] in 32 rows of the filter. In wgrad it is k: all read the same x[n,i,c], and 32
    neighbouring dy[n,o,k].
    """
    group_in, features = case.w[-2:]
    if case.groups != 1 or group_in % WARP or features % WARP:
        raise ValueError(f"lanes are counted for whole warps of channels, but the layer is {case.name}")
    instructions = terms(case) // WARP  # multiply-adds; each needs two loads
    if op == "dgrad":
        lines = 1 + WARP  # from lane to lane features * item bytes, at least a sector
        assert features * item >= SECTOR
    else:
        lines = 1 + WARP * item // SECTOR
    return Cost(terms(case), instructions, 2 * item * terms(case), lines * instructions, 0, 2 * instructions)


def copied_bytes(case: ConvCase, op: str, rows: int, columns: int, item: int = 2) -> tuple[int, int]:
    """The bytes of both operands that a product in tiles of shared memory copies; untied positions need none.

    Every column of tiles copies the first operand once, every row of tiles the second.
    """
    row_tiles, column_tiles, _ = tiles(case, op, rows, columns, 1)
    group_in, features = case.w[-2:]
    pairs = case.x[0] * tied_pairs(case)
    gathered = {"fprop": pairs * group_in, "dgrad": pairs * features, "wgrad": pairs * group_in}
    straight = {"fprop": case.w, "dgrad": case.w, "wgrad": case.y}
    return item * gathered[op] * column_tiles, item * int(np.prod(straight[op])) * row_tiles


def product(case: ConvCase, op: str) -> tuple[int, int, int]:
    """The rows, columns and depth of one group's matrix product."""
    group_in, features = case.w[-2], case.w[-1] // case.groups
    taps = int(np.prod(case.w[:-2]))
    inputs, outputs = (case.x[0] * int(np.prod(array[1:-1])) for array in (case.x, case.y))
    return {
        "fprop": (outputs, features, taps * group_in),
        "dgrad": (inputs, group_in, taps * features),
        "wgrad": (taps * group_in, features, outputs),
    }[op]


def tiles(case: ConvCase, op: str, *tile: int) -> tuple[int, ...]:
    """The number of tiles along each side of the product."""
    return tuple(-(-size // side) for size, side in zip(product(case, op), tile, strict=True))


def phases(case: ConvCase, op: str) -> list[tuple[int, int, int]]:
    """The products of the phases of one group; the results of a phase meet the same taps."""
    if op != "dgrad":
        assert all(axis.input_dilation == 1 for axis in case.axes), case.name
        return [product(case, op)]
    _, columns, depth = product(case, op)
    ways = []
    for axis in case.axes:
        taps = [
            tuple(
                r
                for r in range(axis.taps)
                if (i * axis.input_dilation + axis.pad_lo - r * axis.filter_dilation) % axis.stride == 0
            )
            for i in range(axis.input)
        ]
        ways.append(Counter(taps).items())
    taps = int(np.prod(case.w[:-2]))
    return [
        (
            case.x[0] * int(np.prod([rows for _, rows in way])),
            columns,
            int(np.prod([len(met) for met, _ in way])) * (depth // taps),
        )
        for way in itertools.product(*ways)
    ]


def tiled_cost(case: ConvCase, op: str, item: int = 2) -> Cost:
    """The cost of "tiled": tiles of 64 x 64 x 16, 256 threads with 4 x 4 sums (cuda_src/tiled/tile.cuh)."""
    slices = sum(
        -(-rows // 64) * -(-columns // 64) * -(-depth // 16) for rows, columns, depth in phases(case, op)
    )
    multiply_adds = slices * 64 * 64 * 16
    copied = sum(copied_bytes(case, op, 64, 64, item))
    # A slice is 2048 numbers, each loaded once and stored in shared memory once. For each depth a thread
    # reads 4 numbers of either operand, for 16 products.
    fills, reads = slices * 2 * 2048 // WARP, slices * 16 * 256 * 8
    return Cost(
        multiply_adds,
        multiply_adds // WARP,
        copied,
        copied // SECTOR,  # 16 neighbouring channels of 16 bits are one sector
        reads * 4,
        fills + reads // WARP,
    )


# -------------------------------------------------------------------------------- counted by the emulator


def counted(case: ConvCase, op: str, kernel: str) -> dict:
    """The emulator's counters of one launch, in bfloat16."""
    install(cuda_backend(kernel))
    run = jax.jit(functools.partial(OPS[op], case))
    arrays = case.arrays("bfloat16")
    run(*arrays).block_until_ready()
    with counting() as counters:
        run(*arrays).block_until_ready()
    install("cpu")
    return counters


def gemm_cost(case: ConvCase, op: str) -> Cost:
    """The cost of "gemm"."""
    found = counted(case, op, "gemm")
    copies, reads = found["cp_async_global"], found["ldmatrix"]
    return Cost(
        found["mma_bf16"],
        found["mma_bf16"] / (16 * 8 * 16),
        copies["bytes"],
        copies["sectors"],
        reads["bytes"],
        copies["instructions"] + reads["instructions"],
    )


def wgmma_cost(case: ConvCase, op: str) -> Cost:
    """The cost of "wgmma", in instructions of a warpgroup; each names two operands in shared memory."""
    found = counted(case, op, "wgmma")
    copies, reads = found["tma_global"], found["wgmma_shared"]
    return Cost(
        found["wgmma_bf16"],
        reads["instructions"] / 2,
        copies["bytes"],
        copies["sectors"],
        reads["bytes"],
        copies["instructions"],
    )


RUNGS = {"reference": reference_cost, "tiled": tiled_cost, "gemm": gemm_cost, "wgmma": wgmma_cost}

# ---------------------------------------------------------------------------------------------- the tables


def _number(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def _markdown(head: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def rungs_table(op: str) -> str:
    """The bytes moved and the instructions issued for 1000 products of the formula."""
    head = ["kernel", "multiply-adds", "their instructions", "bytes from global memory", "in sectors of 32"]
    head += ["bytes from shared memory", "instructions that move operands"]
    rows = []
    for name, cost_of in RUNGS.items():
        cost = cost_of(LAYER, op)
        numbers = [cost.multiply_adds, cost.multiplying, cost.global_bytes, SECTOR * cost.global_sectors]
        numbers += [cost.shared_bytes, cost.moving]
        rows.append([f"`{name}`", *(_number(1000 * number / terms(LAYER)) for number in numbers)])
    return _markdown(head, rows)


def stride_table() -> str:
    """The multiply-adds of a strided dgrad."""
    rows = []
    for name, cost_of in RUNGS.items():
        done = cost_of(STRIDED, "dgrad").multiply_adds
        rows.append([f"`{name}`", str(done), f"{done / terms(STRIDED):.2f}"])
    return _markdown(["kernel", "multiply-adds", "per product of the formula"], rows)


def few_channels_table() -> str:
    """The number of times that a first layer's activations are read: x in fprop, x and dy in wgrad."""
    x_bytes, y_bytes = 2 * int(np.prod(STEM.x)), 2 * int(np.prod(STEM.y))
    gathered, _ = copied_bytes(STEM, "fprop", 128, 64)
    rows = [("fprop", "x", gathered / x_bytes, x_bytes)]
    rows += [
        (
            "wgrad",
            "x and dy",
            sum(copied_bytes(STEM, "wgrad", 64, 64)) / (x_bytes + y_bytes),
            x_bytes + y_bytes,
        )
    ]
    cells = []
    for op, what, by_gemm, once in rows:
        staged = SECTOR * counted(STEM, op, "few_channels")["cp_async_global"]["sectors"]
        cells.append([op, what, f"{by_gemm:.2f}", f"{staged / once:.2f}"])
    return _markdown(["op", "times that it reads", "`gemm`, by formula", "`few_channels`, counted"], cells)


def grouped_table() -> str:
    """The multiply-adds of a depthwise layer as one matrix product per group."""
    rows = []
    for op in OPS:
        done = counted(DEPTHWISE, op, "gemm")["mma_bf16"]
        rows.append([op, str(terms(DEPTHWISE)), str(done), f"{done / terms(DEPTHWISE):.0f}"])
    return _markdown(["op", "products of the formula", "multiply-adds of `gemm`", "times as many"], rows)


def launch_table() -> str:
    """The sizes of the launches of LAYER's dgrad."""
    axes = [(a.input, a.taps, a.output, a.stride, a.pad_lo, 1, 1) for a in LAYER.axes]
    problem = {"batch": LAYER.x[0], "in_channels": LAYER.x[-1], "out_channels": LAYER.w[-1], "groups": 1}
    rows = []
    for kernel in RUNGS:
        (launch,) = conv_launches("dgrad", kernel, dtype="bfloat16", axes=axes, **problem)
        rows.append([f"`{kernel}`", *map(str, (launch.blocks, launch.threads, launch.shared_bytes))])
    return _markdown(["kernel", "blocks", "threads a block", "bytes of shared memory a block"], rows)


TABLES = {
    "dgrad": functools.partial(rungs_table, "dgrad"),
    "wgrad": functools.partial(rungs_table, "wgrad"),
    "launches": launch_table,
    "stride": stride_table,
    "few_channels": few_channels_table,
    "grouped": grouped_table,
}


def _place(name: str) -> re.Pattern:
    return re.compile(rf"(<!-- counted: {name} -->\n\n)(.*?)(\n\n)", re.DOTALL)


def on_the_page(name: str) -> str:
    """The table in docs/kernels.md."""
    return _place(name).search(PAGE.read_text())[2]


def main() -> None:
    """Prints the tables, or writes them into the page."""
    text = PAGE.read_text() if "--write" in sys.argv else None
    for name, table in TABLES.items():
        if text is None:
            print(f"{name}\n\n{table()}\n")
        else:
            place = _place(name).search(text)
            text = text[: place.start(2)] + table() + text[place.end(2) :]
    if text is not None:
        PAGE.write_text(text)


if __name__ == "__main__":
    main()
