"""Reads ptxas's figures for each kernel from the reports that nvcc_report.py keeps."""

import json
import re
from pathlib import Path
from typing import NamedTuple

from nvcc_report import REPORTS, label, report_file

ROOT = Path(__file__).resolve().parents[2]


class Kernel(NamedTuple):
    """One instance of a kernel on one architecture."""

    name: str  # mangled
    architecture: str  # as in "sm_80"
    registers: int
    spill_bytes: int
    shared_bytes: int = 0  # static, without the dynamic bytes of a launch


class Compiled(NamedTuple):
    """One file of kernels, compiled for all architectures."""

    source: Path
    object: Path
    kernels: list[Kernel]
    losses: tuple[str, ...] = ()  # what ptxas reports as slower than written

    @property
    def label(self) -> str:
        """The file's path within cuda_src."""
        return label(self.source)

    @property
    def folder(self) -> str:
        """The name of the kernels in the file, such as ``gemm``; empty if they belong to no folder."""
        return self.label.rpartition("/")[0]

    def on(self, architecture: str) -> list[Kernel]:
        """The kernels of one architecture."""
        return [kernel for kernel in self.kernels if kernel.architecture == architecture]


def parse_report(text: str) -> list[Kernel]:
    """Read the kernels from the output of `nvcc -Xptxas -v`."""
    kernels = []
    for part in re.split(r"Compiling entry function", text)[1:]:
        name, architecture = re.match(r" '(\w+)' for '(\w+)'", part).groups()
        spills = re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", part)
        registers = re.search(r"Used (\d+) registers", part)
        shared = re.search(r"(\d+) bytes smem", part)
        kernels.append(
            Kernel(
                name,
                architecture,
                int(registers[1]),
                int(spills[1]) + int(spills[2]),
                int(shared[1]) if shared else 0,
            )
        )
    return kernels


# Examples are a wgmma that waits for each instruction, because registers are short or others touch its sums,
# and a setmaxnreg that is ignored. For ptxas this is information, so -Werror does not catch it.
_LOSS = re.compile(
    r"^ptxas .*?: *(.*(?:Potential Performance Loss|warpgroup\.wait is injected).*)$", re.MULTILINE
)


def parse_losses(text: str) -> tuple[str, ...]:
    """The lines of a report in which ptxas says that the code will be slower than written."""
    return tuple(line.rstrip() for line in _LOSS.findall(text))


def compiled(source: Path, reports: Path = REPORTS) -> Compiled:
    """Read the report that the last build of a file left.

    Raises:
      FileNotFoundError: nvcc_report.py has not built the file.
    """
    kept = json.loads(report_file(source, reports).read_text())
    report = kept["report"]
    return Compiled(source, Path(kept["object"]), parse_report(report), parse_losses(report))


def sources() -> list[Path]:
    """Every file of kernels."""
    return sorted((ROOT / "cuda_src").rglob("*.cu"), key=label)
