"""Judges how nvcc has compiled the package's CUDA kernels, for every architecture that they are for.

Usage: make cuda-compile

Fails on a register spill where the sums live in registers and a spilled one costs a memory access for each
product (tiled, grouped, gemm, wgmma, few_channels), or in a vector kernel, which is to run as fast as memory;
and in any file where ptxas says that it has serialized wgmma or put in waits of its own. A warning has failed
the build already.
"""

import sys

from names import readable
from nvcc_report import label
from ptxas import Compiled, compiled, sources

# The architectures that the files are compiled for (cuda_src/module.cmake), except the oldest: it lacks what
# the fast kernels are made of and runs the others.
ARCHITECTURES = ("sm_80", "sm_86", "sm_89", "sm_90a", "sm_100", "sm_120")
# The folders whose kernels may not spill.
SPILL_FREE = ("tiled", "grouped", "gemm", "wgmma", "few_channels", "pool", "bias")


def judge(file: Compiled) -> tuple[str, bool]:
    """Return the lines to print for one file, and whether all is well."""
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
    """Judge all, print what was found, exit with 1 if anything is wrong."""
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
