"""Disassembles the package's CUDA kernels and checks which instructions their machine code has.

Usage: make sass

A compiler may translate code for tensor cores or asynchronous copies into other instructions; neither the
emulator nor a test of numbers would notice.
"""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from names import readable
from nvcc_report import label
from ptxas import compiled, sources


class Rule(NamedTuple):
    """The instructions that every kernel with a matching readable name must have, and must not have."""

    kernel: str  # a regular expression
    has: tuple[str, ...] = ()  # the beginnings of instructions, as regular expressions
    lacks: tuple[str, ...] = ()
    architectures: tuple[str, ...] = ("sm_80", "sm_90a")


TENSOR_CORES = "[HDQI]MMA|HGMMA"
RULES = (
    # Tensor cores in the stored type: a depth of 16 for 16 bits, 8 for TF32.
    Rule(r"^(gemm|few_channels)_\w+<BF16,", has=(r"HMMA\.16816\.F32\.BF16",)),
    Rule(r"^(gemm|few_channels)_\w+<F16,", has=(r"HMMA\.16816\.F32(?!\.BF16)",)),
    Rule(r"^(gemm|few_channels)_\w+<TF32,", has=(r"HMMA\.1688\.F32\.TF32",)),
    Rule(r"^(gemm|few_channels)_\w+<F64,", has=("DMMA",)),
    Rule(r"^gemm_\w+<(BF16|F16|TF32|F64),", lacks=("FFMA", "DFMA")),
    Rule(r"^gemm_\w+<(BF16|F16),", has=("LDSM",)),
    # Full f32 has no tensor cores.
    Rule(r"^(gemm|few_channels)_\w+<F32,", has=("FFMA",), lacks=(TENSOR_CORES,)),
    # Whole chunks of 16 bytes are copied into shared memory, past registers and the first-level cache.
    Rule(r"^gemm_\w+<.*, true, \d+(, \w+)?>", has=(r"LDGSTS\.E\.BYPASS\.(LTC128B\.)?128", "LDGDEPBAR")),
    # Hopper: a warpgroup's product of operands that the tensor memory accelerator has copied.
    Rule(r"^wgmma_\w+<BFloat16,", has=(r"HGMMA\.\w+\.F32\.BF16",), architectures=("sm_90a",)),
    Rule(r"^wgmma_\w+<Float16,", has=(r"HGMMA\.\w+\.F32(?!\.[BT]F)",), architectures=("sm_90a",)),
    Rule(r"^wgmma_\w+<float,", has=(r"HGMMA\.\w+\.F32\.TF32",), architectures=("sm_90a",)),
    Rule(r"^wgmma_", has=(r"UTMALDG\..*IM2COL",), lacks=("HMMA", "FFMA"), architectures=("sm_90a",)),
    Rule(r"^(tiled|grouped)_\w+<(float|BFloat16|Float16)\b", has=("FFMA",), lacks=(TENSOR_CORES,)),
    Rule(r"^(tiled|grouped)_\w+<double\b", has=("DFMA",), lacks=(TENSOR_CORES,)),
    # A thread's neighbouring channels are one access, except if each goes to another position.
    Rule(
        r"^(vector|cell)_(?!max_pool_select)\w+_kernel<(float, 4|double, 2|BFloat16, 8|Float16, 8)\b",
        has=(r"LDG\.E\.128",),
    ),
)
# The folders whose kernels have rules.
FOLDERS = ("bias", "few_channels", "gemm", "grouped", "pool", "tiled", "wgmma")


def tool() -> str:
    """The path of a cuobjdump with an nvdisasm in the place where it looks for it.

    Raises:
      FileNotFoundError: there is none.
    """
    packaged = sorted(Path(sysconfig.get_path("purelib")).glob("nvidia/*/bin/cuobjdump"))
    for found in (*map(str, packaged), shutil.which("cuobjdump")):
        if found:
            return found
    raise FileNotFoundError("no cuobjdump: pip install '.[sass]', or put the CUDA toolkit's on the PATH")


# A line of SASS: an address, an optional predicate, and the instruction, whose extents have a lower-case x.
_INSTRUCTION = re.compile(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Za-z0-9_.]*)")
_FUNCTION = re.compile(r"^\s*Function : (\w+)")


def parse(lines: Iterable[str]) -> dict[str, Counter]:
    """Count each instruction of each kernel, by its mangled name."""
    kernels: dict[str, Counter] = {}
    current = None
    for line in lines:
        if function := _FUNCTION.match(line):
            current = kernels.setdefault(function[1], Counter())
        elif current is not None and (instruction := _INSTRUCTION.match(line)):
            current[instruction[1]] += 1
    return kernels


def disassemble(path: Path, architecture: str) -> dict[str, Counter]:
    """Count the instructions of each kernel in an object file."""
    found = tool()
    beside = {**os.environ, "PATH": f"{Path(found).parent}{os.pathsep}{os.environ.get('PATH', '')}"}
    command = [found, "-sass", "-arch", architecture, str(path)]
    with subprocess.Popen(
        command, env=beside, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as ran:
        kernels = parse(ran.stdout)
        error = ran.stderr.read()
    if ran.returncode:
        raise RuntimeError(f"cuobjdump failed on {path.name}: {error.strip()}")
    return kernels


def violations(kernel: str, instructions: Counter, architecture: str, met: Counter) -> list[str]:
    """The rules that one kernel breaks, as messages; ``met`` counts the kernels of each rule."""
    wrong = []

    def has(beginning: str) -> bool:
        return any(re.match(beginning, instruction) for instruction in instructions)

    for rule in RULES:
        if architecture not in rule.architectures or not re.search(rule.kernel, kernel):
            continue
        met[rule, architecture] += 1
        wrong += [f"{kernel} has no {it} on {architecture}" for it in rule.has if not has(it)]
        wrong += [f"{kernel} has {it} on {architecture}" for it in rule.lacks if has(it)]
    return wrong


def main() -> None:
    """Print how many kernels each rule was checked on; exit with 1 if a kernel breaks a rule."""
    met: Counter = Counter()
    architectures = sorted({architecture for rule in RULES for architecture in rule.architectures})
    jobs = [
        (source, architecture)
        for source in sources()
        if label(source).rpartition("/")[0] in FOLDERS
        for architecture in architectures
    ]
    wrong = []
    try:
        tool()
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            found = list(pool.map(lambda job: disassemble(compiled(job[0]).object, job[1]), jobs))
    except (FileNotFoundError, RuntimeError) as error:
        sys.exit(f"sass: {error}")
    for (_, architecture), kernels in zip(jobs, found, strict=True):
        names = readable(kernels)
        for mangled, instructions in kernels.items():
            wrong += violations(names[mangled], instructions, architecture, met)
    for rule in RULES:
        counts = [met[rule, architecture] for architecture in rule.architectures]
        print(f"{rule.kernel}\n    {'/'.join(map(str, counts))} kernels on {'/'.join(rule.architectures)}")
        if 0 in counts:
            wrong.append(f"no kernel matches {rule.kernel}")
    print("\n".join(wrong))
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
