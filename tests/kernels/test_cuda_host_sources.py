"""Compiles the host's sources of the CUDA module with the host's compiler and CUDA's own headers.

The emulator's headers declare device intrinsics, which the real headers declare only in nvcc's device pass.
So a source that builds with the emulator may not build in the package.
"""

import os
import shutil
import subprocess
from pathlib import Path

import jaxlib
import pytest

ROOT = Path(__file__).resolve().parents[2]
NVCC = shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")
SOURCES = [*sorted((ROOT / "cuda_src").rglob("*.cc")), ROOT / "ffi_src" / "handlers_cuda.cc"]


@pytest.mark.skipif(NVCC is None, reason="no nvcc on this machine")
@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.relative_to(ROOT).as_posix())
def test_it_builds_without_the_emulator(source):
    headers = Path(jaxlib.__file__).parent / "include"
    command = [
        NVCC,
        "-std=c++17",
        "-I",
        ROOT,
        "-isystem",
        headers,
        "-Xcompiler",
        "-fsyntax-only",
        "-c",
        source,
    ]
    done = subprocess.run([*command, "-o", os.devnull], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
