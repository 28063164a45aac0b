"""Checks how nvcc compiled the package's CUDA kernels for each architecture.

Usage: make cuda-compile

Fails if a kernel spills a register although its sums are in registers, where a spilled sum costs a memory
access per product (tiled, grouped, gemm, wgmma, few_channels), or if a vector kernel does, which should be as
fast as memory. Fails for any file if ptxas reports that it has serialized wgmma or inserted waits. Warnings
already fail the build.
"""

import sys

from names import readable
from nvcc_report import label
from ptxas import Compiled, compiled, sources

# The architectures of the build (cuda_src/module.cmake), except the oldest: it lacks the instructions of the
# fast kernels and runs the others.
ARCHITECTURES = ("sm_80", "sm_86", "sm_89", "sm_90a", "sm_100", "sm_120")
# The folders whose kernels may not spill.
SPILL_FREE = ("tiled", "grouped", "gemm", "wgmma", "few_channels", "pool", "bias")


def judge(file: Compiled) -> tuple[str, bool]:
    """Return the lines to print for one file, and whether it passes."""
    lines = [f"    FAILED, ptxas: {loss}" for loss in file.losses]
    well = not lines
    names = readable(kernel.name for kernel in file.kernels)
    most = []
    for architecture in ARCHITECTURES:
        kernels = file.on(architecture)
        if not kernels:
            lines.append(f"    {architecture}: FAILED, no kernel in ptxas's report")
            well = False
            continue
        most.append(max(kernel.registers for kernel in kernels))
        for kernel in kernels:
            if kernel.spill_bytes:
                lines.append(f"    {architecture}: {names[kernel.name]} spills {kernel.spill_bytes} bytes")
                well = well and file.folder not in SPILL_FREE
    count = len({kernel.name for kernel in file.kernels})
    title = f"{file.label}: {count} kernels, at most {'/'.join(map(str, most)) or 'no'} registers"
    return "\n".join([title, *lines]), well


def main() -> None:
    """Check all files, print the results, exit with 1 if a check fails."""
    good = True
    print(f"registers on {'/'.join(ARCHITECTURES)}")
    for source in sources():
        try:
            lines, well = judge(compiled(source))
        except FileNotFoundError as missing:
            lines, well = f"{label(source)}: FAILED, it was not compiled: no {missing.filename}", False
        print(lines, flush=True)
        good = good and well
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
