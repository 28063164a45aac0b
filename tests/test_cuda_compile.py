"""The reader of ptxas's report, by which a spilled register in a fast kernel is found."""

import importlib.util
from pathlib import Path

SCRIPT = Path(__file__).parent.parent / ".ci" / "cuda_compile.py"
spec = importlib.util.spec_from_file_location("cuda_compile", SCRIPT)
cuda_compile = importlib.util.module_from_spec(spec)
spec.loader.exec_module(cuda_compile)

REPORT = """\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_Z5tightPf' for 'sm_80'
ptxas info    : Function properties for _Z5tightPf
    712 bytes stack frame, 1240 bytes spill stores, 968 bytes spill loads
ptxas info    : Used 64 registers, used 1 barriers, 712 bytes cumulative stack size, 364 bytes cmem[0]
ptxas info    : Compile time = 61.203 ms
ptxas info    : Compiling entry function '_Z5roomyPf' for 'sm_80'
ptxas info    : Function properties for _Z5roomyPf
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 30 registers, used 0 barriers, 360 bytes cmem[0]
"""


def test_spills_and_registers_are_read():
    assert cuda_compile.parse_report(REPORT) == [
        cuda_compile.Kernel("_Z5tightPf", registers=64, spill_bytes=1240 + 968),
        cuda_compile.Kernel("_Z5roomyPf", registers=30, spill_bytes=0),
    ]


def fake_nvcc(folder, report, status):
    nvcc = folder / "nvcc"
    nvcc.write_text(f"#!/bin/sh\ncat << 'END' >&2\n{report}END\nexit {status}\n")
    nvcc.chmod(0o755)
    return str(nvcc)


def test_a_spill_is_a_failure_in_a_fast_kernel_only(tmp_path):
    nvcc = fake_nvcc(tmp_path, REPORT, 0)
    for name in ("tiled_filter.cu", "grouped_activation.cu", "vector_bgrad.cu"):
        lines, well = cuda_compile.compile_one(nvcc, Path(name), "sm_80")
        assert not well
        assert "_Z5tightPf spills 2208 bytes" in lines
    assert cuda_compile.compile_one(nvcc, Path("direct_wgrad.cu"), "sm_80")[1]


def test_a_failed_compilation_and_an_empty_report_are_failures(tmp_path):
    for report, status in (("error\n", 1), ("", 0)):
        nvcc = fake_nvcc(tmp_path, report, status)
        assert not cuda_compile.compile_one(nvcc, Path("direct_bgrad.cu"), "sm_80")[1]
