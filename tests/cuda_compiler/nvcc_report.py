#!/usr/bin/env python3
"""Runs nvcc as the package's build does, strictly, and keeps ptxas's report of each file in build/nvcc.

A launcher in CMake's sense, CMAKE_CUDA_COMPILER_LAUNCHER (the preset "cuda"): its arguments are nvcc's whole
command line. So what is judged (check.py) and disassembled (sass.py) is what the package is made of. A
launcher that the environment has for C++ files, ccache say, is nvcc's too: it repeats ptxas's report with the
object that it kept.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

REPORTS = Path(__file__).resolve().parents[2] / "build" / "nvcc"
STRICT = ["-Xptxas", "-v", "-Werror", "all-warnings"]


def label(source: Path) -> str:
    """Name of a file of kernels: its path within the last ``cuda_src``, such as ``gemm/fprop.cu``."""
    parts = source.parts
    if "cuda_src" not in parts:
        return source.as_posix()
    return "/".join(parts[len(parts) - parts[::-1].index("cuda_src") :])


def report_file(source: Path, reports: Path = REPORTS) -> Path:
    """Where the report of a file of kernels is kept: many folders have an ``fprop.cu``."""
    return reports / f"{label(source).removesuffix('.cu').replace('/', '-')}.json"


def main() -> None:
    """Exit with nvcc's status."""
    command = sys.argv[1:]
    sources = [argument for argument in command if argument.endswith(".cu")]
    if "-c" not in command or len(sources) != 1:  # it links, or is asked who it is
        sys.exit(subprocess.run(command).returncode)
    file = report_file(Path(sources[0]), REPORTS)
    file.unlink(missing_ok=True)
    launcher = os.environ.get("CMAKE_CXX_COMPILER_LAUNCHER", "").split()
    ran = subprocess.run(
        [*launcher, *command, *STRICT], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if ran.returncode:
        print(ran.stdout, file=sys.stderr)
        sys.exit(ran.returncode)
    built = Path(command[command.index("-o") + 1]).resolve()
    REPORTS.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"source": sources[0], "object": str(built), "report": ran.stdout}, indent=1))


if __name__ == "__main__":
    main()
