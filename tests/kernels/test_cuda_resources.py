"""The readers of the compiled CUDA kernels: names, occupancy, the table of resources, machine code."""

import re
from collections import Counter
from pathlib import Path

import names
import occupancy
import ptxas
import pytest
import sass
import table
from emulated_launches import conv_launches, pool_launches

GEMM = (
    "_ZN8convgrad4cuda22gemm_activation_kernelILNS0_4MathE3ENS0_8GemmTileILi128ELi64ELi4EEE"
    "NS0_18GemmFilterAsStoredELb1ELi4EEEvNS_11ConvProblemEPKNS0_9MathTypesIXT_EE6StoredESB_PS9_"
)
POOL = (
    "_ZN8convgrad4cuda12_GLOBAL__N_122vector_avg_pool_kernelINS_8BFloat16ELi8ELi2EEEvNS0_8PoolRowsEPKT_PS5_"
)


def test_names_are_readable():
    assert names.readable([GEMM, POOL]) == {
        GEMM: "gemm_activation_kernel<F32, GemmTile<128, 64, 4>, GemmFilterAsStored, true, 4>",
        POOL: "vector_avg_pool_kernel<BFloat16, 8, 2>",
    }


@pytest.mark.parametrize(
    "architecture, threads, registers, shared, blocks",
    [
        # The example of the CUDA best practices guide: 37 registers, a file of 65,536, at most 64 warps.
        ("sm_80", 128, 37, 0, 12),
        ("sm_80", 320, 37, 0, 4),
        ("sm_90a", 128, 37, 0, 12),
        # Each limit by itself: the most threads, blocks and registers.
        ("sm_80", 1024, 32, 0, 2),
        ("sm_86", 1024, 32, 0, 1),
        ("sm_80", 32, 16, 0, 32),
        ("sm_86", 32, 16, 0, 16),
        ("sm_80", 256, 255, 0, 1),
        # The most shared memory of a block is the multiprocessor's minus 1 KiB for the system.
        ("sm_80", 256, 32, 163 << 10, 1),
        ("sm_80", 256, 32, (163 << 10) + 1, 0),
        ("sm_90a", 256, 32, 227 << 10, 1),
        ("sm_90a", 256, 32, 48 << 10, 4),
        ("sm_80", 256, 32, 48 << 10, 3),
    ],
)
def test_blocks_of_a_multiprocessor(architecture, threads, registers, shared, blocks):
    assert occupancy.blocks(architecture, threads, registers, shared) == blocks


def test_occupancy():
    assert occupancy.occupancy("sm_80", 128, 37, 0) == 0.75
    assert occupancy.occupancy("sm_80", 320, 37, 0) == 0.625


def test_the_table():
    """The table has the instance of a type with the lowest occupancy, and each instance of a gemm."""
    kernels = [
        ptxas.Kernel(name, architecture, registers, 0, 1024)
        for name, registers in ((POOL, 32), (POOL.replace("Li2E", "Li3E"), 64))
        for architecture in table.ARCHITECTURES
    ]
    launched = {f"vector_avg_pool_kernel<BFloat16, 8, {n}>": {(256, 0), (128, 0)} for n in (2, 3)}
    file = ptxas.Compiled(Path("pool/avg_pool.cu"), Path("none.o"), kernels)
    rows, missing = table.rows_of(file, launched)
    assert not missing
    assert table.table(rows).splitlines()[2:] == [
        "| `vector_avg_pool_kernel<BFloat16, …>` | 2 | 64 | 256 | 1024 | 4 | 50% |"
    ]
    # With 32 registers, 2048 threads are possible; 40 KiB of shared memory allow 4 blocks, and five on 9.0.
    file = ptxas.Compiled(
        Path("gemm/x.cu"), Path("none.o"), [ptxas.Kernel(GEMM, a, 32, 0, 0) for a in table.ARCHITECTURES]
    )
    rows, missing = table.rows_of(file, {names.readable([GEMM])[GEMM]: {(256, 0), (256, 40 << 10)}})
    assert rows[0].shared_bytes == 40 << 10
    assert rows[0].blocks == (4, 5)
    assert "| 256 | 40960 | 4 / 5 | 50% / 62% |" in table.table(rows)
    assert table.rows_of(file, {})[1] == [rows[0].name]


AXIS = (10, 3, 10, 1, 1, 1, 1)


def test_emulated_launches_without_running():
    """Launches for arrays of 2^44 bytes: grid, threads and kernel of each, also that of the partial sums."""
    problem = {"in_channels": 64, "out_channels": 128, "groups": 1, "dtype": "float32"}
    (launch,) = conv_launches("fprop", "reference", batch=1 << 32, axes=[AXIS] * 2, **problem)
    assert (launch.blocks, launch.threads, launch.shared_bytes) == (1 << 16, 256, 0)
    assert names.readable([launch.kernel])[launch.kernel] == "reference_fprop_kernel<float>"
    product, sum_of_parts = conv_launches("wgrad", "tiled", batch=64, axes=[AXIS] * 2, **problem)
    assert "tiled_filter" in product.kernel
    assert "add_parts" in sum_of_parts.kernel
    with pytest.raises(ValueError, match="grouped"):
        conv_launches("fprop", "grouped", batch=1, axes=[AXIS], **problem)
    problem = {"dtype": "float32", "batch": 8, "channels": 64, "axes": [AXIS] * 2}
    aligned, unaligned = (
        pool_launches("avg_pool", "vector", aligned=is_, **problem) for is_ in (True, False)
    )
    assert aligned[0].kernel != unaligned[0].kernel


LISTING = """
        Function : _Z1kPf
    .headerflags    @"EF_CUDA_SM80 EF_CUDA_PTX_SM(EF_CUDA_SM80)"
        /*0000*/                   MOV R1, c[0x0][0x28] ;          /* 0x00000a0000017a02 */
                                                                   /* 0x000fe20000000f00 */
        /*0010*/              @!P0 LDGSTS.E.BYPASS.128 [R219], [R212.64] ;   /* 0x0 */
        /*0020*/               @P6 HMMA.16816.F32.BF16 R4, R8, R12, R4 ;   /* 0x0 */
        /*0030*/             @!UP1 HMMA.16816.F32.BF16 R4, R8, R12, R4 ;   /* 0x0 */
        Function : _Z1lPf
        /*0000*/                   FFMA R1, R2, R3, R1 ;   /* 0x0 */
        /*0010*/                   HGMMA.64x128x16.F32.BF16 R24, gdesc[UR4].tnspB, R24, gsb0 ;   /* 0x0 */
"""


def test_instructions_are_counted():
    assert sass.parse(LISTING.splitlines()) == {
        "_Z1kPf": {"MOV": 1, "LDGSTS.E.BYPASS.128": 1, "HMMA.16816.F32.BF16": 2},
        "_Z1lPf": {"FFMA": 1, "HGMMA.64x128x16.F32.BF16": 1},
    }


@pytest.mark.parametrize(
    "kernel, instructions, wrong",
    [
        (
            "gemm_filter_kernel<BF16, T, true, 4>",
            "HMMA.16816.F32.BF16 LDSM.16 LDGSTS.E.BYPASS.128 LDGDEPBAR",
            0,
        ),
        ("gemm_filter_kernel<BF16, T, false, 4>", "HMMA.16816.F32.BF16 LDSM.16", 0),
        ("gemm_filter_kernel<BF16, T, false, 4>", "HMMA.16816.F32 LDSM.16", 1),
        ("few_channels_filter_kernel<BF16, 64, true>", "FFMA", 1),
        ("gemm_filter_kernel<F16, T, false, 4>", "HMMA.16816.F32.BF16 LDSM.16", 1),
        ("gemm_filter_kernel<TF32, T, true, 4>", "FFMA LDG.E.128", 4),
        ("gemm_filter_kernel<F64, T, false, 4>", "DFMA", 2),
        ("gemm_filter_kernel<F32, T, false, 4>", "FFMA HMMA.1688.F32.TF32", 1),
        ("wgmma_filter_kernel<BFloat16, 128>", "HGMMA.64x128x16.F32.BF16 UTMALDG.4D.IM2COL", 0),
        ("wgmma_filter_kernel<Float16, 128>", "HGMMA.64x128x16.F32.BF16 UTMALDG.2D", 2),
        ("wgmma_filter_kernel<BFloat16, 128>", "HMMA.16816.F32.BF16 LDGSTS.E.BYPASS.128", 3),
        ("vector_avg_pool_kernel<float, 4, 2>", "LDG.E.64", 1),
        ("vector_avg_pool_kernel<float, 2, 2>", "LDG.E.64", 0),
    ],
)
def test_machine_code_is_judged(kernel, instructions, wrong):
    found = sass.violations(kernel, Counter(instructions.split()), "sm_90a", Counter())
    assert len(found) == wrong, found


# Lines of one kernel, as cuobjdump writes them.
LINES = {
    "wgmma BF16": [
        "        /*1a40*/                   UTMALDG.5D.IM2COL [UR40], [UR18], UR7, desc[UR4] ;",
        "        /*2f10*/                   HGMMA.64x256x16.F32.BF16 R24, gdesc[UR8], R24, !UPT ;",
        "        /*2f20*/              @!P1 HGMMA.64x256x16.F32.BF16 R24, gdesc[UR12], R24, gsb0 ;",
    ],
    "wgmma F16": [
        "        /*1a40*/              @!P0 UTMALDG.4D.IM2COL [UR40], [UR18], UR7, desc[UR4] ;",
        "        /*2f10*/                   HGMMA.64x128x16.F32 R24, gdesc[UR8], R24, !UPT ;",
    ],
    "wgmma TF32": [
        "        /*1a40*/             @!UP0 UTMALDG.3D.IM2COL [UR40], [UR18], UR7, desc[UR4] ;",
        "        /*2f10*/                   HGMMA.64x256x8.F32.TF32 R24, R4, gdesc[UR8], R24, gsb0 ;",
    ],
    "gemm BF16": [
        "        /*0a10*/                   LDGSTS.E.BYPASS.LTC128B.128 [R219+0x40], [R212.64] ;",
        "        /*0a20*/                   LDGDEPBAR ;",
        "        /*0b10*/                   LDSM.16.MT88.4 R4, [R3+UR4] ;",
        "        /*0b20*/              @!P0 HMMA.16816.F32.BF16 R4, R8, R12, R4 ;",
    ],
}


@pytest.mark.parametrize(
    "lines, kernel, misses",
    [
        ("wgmma BF16", "wgmma_filter_kernel<BFloat16, 256>", []),
        ("wgmma F16", "wgmma_filter_kernel<Float16, 128>", []),
        ("wgmma TF32", "wgmma_activation_kernel<float, 256>", []),
        ("gemm BF16", "gemm_filter_kernel<BF16, T, true, 4>", []),
        # The type differs from the kernel's name.
        ("wgmma BF16", "wgmma_filter_kernel<Float16, 256>", ["HGMMA"]),
        ("wgmma TF32", "wgmma_filter_kernel<BFloat16, 256>", ["HGMMA"]),
        ("wgmma F16", "wgmma_activation_kernel<float, 128>", ["HGMMA"]),
        ("gemm BF16", "gemm_filter_kernel<F16, T, true, 4>", ["HMMA"]),
        ("gemm BF16", "wgmma_filter_kernel<BFloat16, 128>", ["HGMMA", "UTMALDG", "HMMA"]),
    ],
)
def test_a_listing_is_judged(lines, kernel, misses):
    """The test goes from lines to a verdict: an instruction that the parser truncates breaks its rule."""
    parsed = sass.parse(["        Function : _Z1kPf", *LINES[lines]])
    assert sum(parsed["_Z1kPf"].values()) == len(LINES[lines])
    found = sass.violations(kernel, parsed["_Z1kPf"], "sm_90a", Counter())
    assert len(found) == len(misses)
    assert all(re.search(rf" has (no )?{miss}", wrong) for miss, wrong in zip(misses, found, strict=True))


def test_another_box_than_im2col_is_a_violation():
    parsed = sass.parse([line.replace(".IM2COL", "") for line in ["  Function : k", *LINES["wgmma BF16"]]])
    (wrong,) = sass.violations("wgmma_filter_kernel<BFloat16, 256>", parsed["k"], "sm_90a", Counter())
    assert "IM2COL" in wrong


def test_the_page_has_the_files_and_kernels_of_the_sources():
    """`make cuda-table` has to run again if a file or a kernel gets another name."""
    root = Path(__file__).parents[2]
    page = (root / "docs" / "cuda_kernels.md").read_text()
    headings = re.findall(r"^## (\S+)$", page, re.MULTILINE)
    assert headings == sorted(
        p.relative_to(root / "cuda_src").as_posix() for p in (root / "cuda_src").rglob("*.cu")
    )
    sources = "\n".join(path.read_text() for path in (root / "cuda_src").rglob("*.cu*"))
    kernels = set(re.findall(r"(?:__global__[^;{]*?|\n\s+)(\w+_kernel)\(", sources))
    assert set(re.findall(r"^\| `(\w+_kernel)\b", page, re.MULTILINE)) == kernels
