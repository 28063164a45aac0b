"""Compiles every kernel in cuda_src, and the checks of its PTX, with nvcc and judges ptxas's report.

Usage: python .ci/cuda_compile.py NVCC

Fails on any warning, and on a register spill in a kernel whose sums live in registers, where a spilled one
costs a memory access for each product, or in a vector kernel, which is to run as fast as memory.
"""

import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
ARCHITECTURES = ("sm_80", "sm_90a")
# The package also holds code for an architecture that lacks some of these instructions.
PTX_ARCHITECTURES = ("sm_75", *ARCHITECTURES)
# How the names of the files begin whose kernels may not spill.
SPILL_FREE = ("tiled_", "grouped_", "gemm_", "few_channels_", "vector_")


class Kernel(NamedTuple):
    """One instance of a kernel, as ptxas reports it."""

    name: str
    registers: int
    spill_bytes: int


def parse_report(text: str) -> list[Kernel]:
    """Read the kernels off what `nvcc -Xptxas -v` prints."""
    kernels = []
    for part in re.split(r"Compiling entry function", text)[1:]:
        name = re.match(r" '(\w+)'", part)[1]
        spills = re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", part)
        registers = re.search(r"Used (\d+) registers", part)
        kernels.append(Kernel(name, int(registers[1]), int(spills[1]) + int(spills[2])))
    return kernels


def compile_one(nvcc: str, source: Path, architecture: str) -> tuple[str, bool]:
    """Return the lines to print for one file and architecture, and whether all is well."""
    command = [nvcc, "-std=c++17", "-O3", f"-arch={architecture}", "-Xptxas", "-v"]
    command += ["-Werror", "all-warnings", "-I", str(ROOT), "-c", str(source), "-o", os.devnull]
    result = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    report = result.stdout + result.stderr
    title = f"{source.name} {architecture}"
    if result.returncode != 0:
        return f"{title}: FAILED\n{report}", False

    kernels = parse_report(report)
    if not kernels:
        return f"{title}: FAILED, no kernel in ptxas's report\n{report}", False
    registers = max(kernel.registers for kernel in kernels)
    spilling = [kernel for kernel in kernels if kernel.spill_bytes]
    lines = [f"{title}: {len(kernels)} kernels, at most {registers} registers, {len(spilling)} spilling"]
    lines += [f"    {kernel.name} spills {kernel.spill_bytes} bytes" for kernel in spilling]
    return "\n".join(lines), not (spilling and source.name.startswith(SPILL_FREE))


def main() -> None:
    """Compile all, print a line each, exit with 1 if anything is wrong."""
    nvcc = sys.argv[1]
    jobs = []
    for pattern, architectures in (
        ("cuda_src/*.cu", ARCHITECTURES),
        ("tests/cuda_emulator/selftest/ptx_*.cu", PTX_ARCHITECTURES),
    ):
        sources = sorted(ROOT.glob(pattern))
        if not sources:
            sys.exit(f"cuda_compile: no file is {pattern}")
        jobs += [(nvcc, source, architecture) for source in sources for architecture in architectures]
    good = True
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for lines, well in pool.map(lambda job: compile_one(*job), jobs):
            print(lines, flush=True)
            good = good and well
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
