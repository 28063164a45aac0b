"""The launches of calls of the CUDA kernels, which the emulator's module lists without running them."""

import importlib.util
import os
import subprocess
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]


class Launch(NamedTuple):
    """One launch of a kernel."""

    kernel: str  # mangled
    blocks: int
    threads: int
    shared_bytes: int  # dynamic


@cache
def _library() -> Path:
    folder = Path(os.environ.get("JAX_CONVGRAD_EMULATOR_DIR", ROOT / "build" / "dev" / "cuda_emulator"))
    found = sorted(folder.glob("_cuda_emulated*.so"))
    if not found:
        raise FileNotFoundError(f"no _cuda_emulated module in {folder}: build it with `make emulator`")
    return found[0]


@cache
def _module(name: str = "_cuda_launches") -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, _library())
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def _symbols() -> dict[int, str]:
    """Maps addresses in the library to the functions there."""
    ran = subprocess.run(["nm", "--defined-only", _library()], capture_output=True, text=True, check=True)
    columns = (line.split() for line in ran.stdout.splitlines())
    return {int(at, 16): name for at, kind, name in columns if kind in "tTwW"}


def kernels() -> list[str]:
    """The convolution kernels that can be selected by name."""
    return _module("_cuda_emulated").kernels()


def conv_workspace_bytes(op: str, kernel: str, *, below_highest: bool = False, **problem) -> int:
    """The workspace of a call that selects the kernel by name."""
    return _module("_cuda_emulated").conv_workspace_bytes(
        op=op, kernel=kernel, below_highest=below_highest, **problem
    )


def plan(op: str, kernel: str, **problem) -> dict:
    """The facts of a call, by the CUDA module itself."""
    return _module("_cuda_emulated").plan(op=op, kernel=kernel, **problem)


def _launches(found: list[tuple[int, int, int, int]]) -> list[Launch]:
    return [Launch(_symbols()[offset], *numbers) for offset, *numbers in found]


def conv_launches(
    op: str, kernel: str, *, tf32: bool = False, aligned: bool = True, **problem
) -> list[Launch]:
    """The launches of "fprop", "fprop, bias", "dgrad" or "wgrad" with a kernel that is selected by name.

    ``problem`` has the arguments of conv_workspace_bytes.

    Raises:
      ValueError: the kernel does not support the problem.
    """
    return _launches(_module().conv_launches(op=op, kernel=kernel, tf32=tf32, aligned=aligned, **problem))


def pool_launches(op: str, kernel: str, *, aligned: bool = True, **problem) -> list[Launch]:
    """The launches of a pooling op, by its FFI name, or of bgrad with a row for each of the outputs."""
    return _launches(_module().pool_launches(op=op, kernel=kernel, aligned=aligned, **problem))
