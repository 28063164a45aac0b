"""The tables of docs/kernels.md have the emulator's counts, and their formulas agree with it."""

import kernel_ladder as ladder
import numpy as np
import pytest
from conv_cases import NHWC, ConvCase

pytestmark = pytest.mark.emulator


@pytest.mark.parametrize("name", ladder.TABLES)
def test_the_pages_tables_are_those_emulated(name):
    assert ladder.on_the_page(name) == ladder.TABLES[name]()


def test_the_numbers_in_the_text_are_those_emulated():
    text = ladder.PAGE.read_text()
    layer = ladder.LAYER
    copies = ladder.counted(layer, "dgrad", "gemm")["cp_async_global"]["instructions"]
    by_tma = ladder.counted(layer, "dgrad", "wgmma")["tma_global"]["instructions"]
    assert f"the layer has {ladder.terms(layer):,}" in text.replace("\n", " ")
    assert f"{by_tma} instructions for the whole layer where `gemm`'s threads issue {copies} copies" in text
    wgmma = ladder.wgmma_cost(layer, "dgrad")
    assert f"= {wgmma.multiply_adds / wgmma.multiplying:,.0f} multiply-adds" in text
    for kernel, counter in (("gemm", "ldmatrix"), ("gemm", "cp_async_shared"), ("wgmma", "wgmma_shared")):
        assert ladder.counted(layer, "dgrad", kernel)[counter]["excess"] == 0


TILED = [
    ladder.LAYER,
    ConvCase("four tiles of rows", (8, 8, 8, 64), (3, 3, 64, 64), 1, ((1, 1), (1, 1)), order=NHWC),
    ConvCase("tails", (3, 7, 9, 40), (3, 2, 40, 56), 1, ((1, 1), (0, 1)), order=NHWC),
]


@pytest.mark.parametrize("op", ladder.OPS)
@pytest.mark.parametrize("case", TILED, ids=lambda case: case.name)
def test_the_formula_for_copies_is_what_emulated_gemm_copies(case, op):
    by_formula = sum(ladder.copied_bytes(case, op, 64 if op == "wgrad" else 128, 64))
    assert ladder.gemm_cost(case, op).global_bytes == by_formula


@pytest.mark.parametrize("op", ["dgrad", "wgrad"])
def test_the_reference_kernels_loads_are_those_of_their_loops(op):
    """Lane by lane, address by address, as reference/sums.cu has them."""
    case, item = ConvCase("one row", (1, 7, 32), (3, 32, 64), 2, ((1, 1),), order=("NWC", "WIO", "NWC")), 2
    (axis,) = case.axes
    C, K = case.w[-2:]
    result = case.x if op == "dgrad" else case.w
    multiply_adds = instructions = sectors = 0
    for warp in range(int(np.prod(result)) // ladder.WARP):
        lanes = np.arange(ladder.WARP) + warp * ladder.WARP
        for first, second in _factors_of(op, lanes, axis, C, K):
            instructions += 1
            multiply_adds += len(lanes)
            sectors += sum(len(set(at * item // ladder.SECTOR)) for at in (first, second))
    cost = ladder.reference_cost(case, op)
    assert (cost.multiply_adds, cost.multiplying) == (multiply_adds, instructions)
    assert (cost.global_sectors, cost.moving) == (sectors, 2 * instructions)
    assert cost.global_bytes == 2 * item * multiply_adds


def _factors_of(op, lanes, axis, C, K):
    """The elements of both factors that 32 lanes read, product by product."""
    if op == "dgrad":
        i, c = lanes[0] // C, lanes % C
        for r in range(axis.taps):
            at = i + axis.pad_lo - r
            if at < 0 or at % axis.stride or at // axis.stride >= axis.output:
                continue
            for k in range(K):
                yield at // axis.stride * K + k + 0 * lanes, (r * C + c) * K + k
        return
    k, c, r = lanes % K, lanes[0] // K % C, lanes[0] // K // C
    for o in range(axis.output):
        i = o * axis.stride + r - axis.pad_lo
        if 0 <= i < axis.input:
            yield i * C + c + 0 * lanes, o * K + k
