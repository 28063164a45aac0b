"""The device, its driver and clocks, and the versions of what runs on it."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

import machine

_QUERY = {
    "device": "name",
    "driver": "driver_version",
    "memory": "memory.total",
    "most SM clock": "clocks.max.sm",
    "most memory clock": "clocks.max.memory",
    "power limit": "power.limit",
    "temperature": "temperature.gpu",
}
_PACKAGES = (
    "jax_convgrad", "jax", "jaxlib", "jax-cuda13-plugin", "jax-cuda12-plugin", "nvidia-cudnn-cu13",
    "nvidia-cudnn-cu12", "torch", "numpy",
)  # fmt: skip


def describe(platform: str) -> dict[str, str | int]:
    """The machine; of its GPU what nvidia-smi tells."""
    found = machine.describe()
    if platform == "cuda" and shutil.which("nvidia-smi"):
        command = ["nvidia-smi", f"--query-gpu={','.join(_QUERY.values())}", "--format=csv,noheader"]
        told = subprocess.run(command, capture_output=True, text=True)
        values = told.stdout.splitlines()[0].split(", ") if told.stdout else []
        found = dict(zip(_QUERY, values, strict=False)) | found
    return found


def versions() -> dict[str, str]:
    """Of Python and the packages, and which module the CUDA kernels come from."""
    found = machine.versions(_PACKAGES)
    package = find_spec("jax_convgrad")
    folder = Path(package.origin).parent if package and package.origin else None
    for module in sorted(folder.glob("_cuda*.so")) if folder else []:
        found[module.name] = f"sha256 {hashlib.sha256(module.read_bytes()).hexdigest()[:16]}"
    return found


if __name__ == "__main__":
    for name, value in (describe("cuda") | versions()).items():
        print(f"{name}: {value}")
