#!/usr/bin/env python3
"""Runs nvcc as in the package's build, but with warnings as errors, and keeps ptxas's reports in build/nvcc.

This is a CMAKE_CUDA_COMPILER_LAUNCHER of CMake (the preset "cuda"): its arguments are nvcc's whole command
line. So check.py and sass.py read the objects of the package itself. If the environment has a launcher for
C++ files, such as ccache, nvcc gets it too: ccache repeats ptxas's report together with the object.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

REPORTS = Path(__file__).resolve().parents[2] / "build" / "nvcc"
STRICT = ["-Xptxas", "-v", "-Werror", "all-warnings"]


def label(source: Path) -> str:
    """The name of a file of kernels: its path within the last ``cuda_src``, such as ``gemm/fprop.cu``."""
    parts = source.parts
    if "cuda_src" not in parts:
        return source.as_posix()
    return "/".join(parts[len(parts) - parts[::-1].index("cuda_src") :])


def report_file(source: Path, reports: Path = REPORTS) -> Path:
    """The path of a file's report, which includes the folder, since many folders have an ``fprop.cu``."""
    return reports / f"{label(source).removesuffix('.cu').replace('/', '-')}.json"


def main() -> None:
    """Run nvcc and exit with its status."""
    command = sys.argv[1:]
    sources = [argument for argument in command if argument.endswith(".cu")]
    if "-c" not in command or len(sources) != 1:  # nvcc links, or prints its version
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
