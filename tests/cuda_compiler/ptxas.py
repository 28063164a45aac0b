"""What ptxas says of each kernel, from the reports that nvcc_report.py keeps."""

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
    shared_bytes: int = 0  # static: what a launch asks for comes on top


class Compiled(NamedTuple):
    """One file of kernels, compiled for all architectures."""

    source: Path
    object: Path
    kernels: list[Kernel]
    losses: tuple[str, ...] = ()  # what ptxas says that it had to make slower

    @property
    def label(self) -> str:
        """Its path within cuda_src."""
        return label(self.source)

    @property
    def folder(self) -> str:
        """The name of the kernels in it, such as ``gemm``; empty where they belong to none."""
        return self.label.rpartition("/")[0]

    def on(self, architecture: str) -> list[Kernel]:
        """The kernels of one architecture."""
        return [kernel for kernel in self.kernels if kernel.architecture == architecture]


def parse_report(text: str) -> list[Kernel]:
    """Read the kernels off what `nvcc -Xptxas -v` prints."""
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


# wgmma that waits for each instruction, for want of registers or because others touch its sums, a setmaxnreg
# that is ignored: ptxas calls these information, so that -Werror lets them pass.
_LOSS = re.compile(
    r"^ptxas .*?: *(.*(?:Potential Performance Loss|warpgroup\.wait is injected).*)$", re.MULTILINE
)


def parse_losses(text: str) -> tuple[str, ...]:
    """The lines of a report in which ptxas says that code will be slower than it was written."""
    return tuple(line.rstrip() for line in _LOSS.findall(text))


def compiled(source: Path, reports: Path = REPORTS) -> Compiled:
    """What the last build of a file of kernels left.

    Raises:
      FileNotFoundError: it was not built by way of nvcc_report.py.
    """
    kept = json.loads(report_file(source, reports).read_text())
    report = kept["report"]
    return Compiled(source, Path(kept["object"]), parse_report(report), parse_losses(report))


def sources() -> list[Path]:
    """Every file of kernels."""
    return sorted((ROOT / "cuda_src").rglob("*.cu"), key=label)
