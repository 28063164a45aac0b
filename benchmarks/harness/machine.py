"""The machine: its hardware, the installed versions, and how busy other programs keep it."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Iterable
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

_PACKAGES = (
    "jax_convgrad", "jax", "jaxlib", "jax-cuda13-plugin", "jax-cuda12-plugin", "nvidia-cudnn-cu13",
    "nvidia-cudnn-cu12", "torch", "numpy", "optax",
)  # fmt: skip
_GPU = {
    "device": "name",
    "driver": "driver_version",
    "GPU memory": "memory.total",
    "maximum SM clock": "clocks.max.sm",
    "maximum memory clock": "clocks.max.memory",
    "power limit": "power.limit",
    "temperature": "temperature.gpu",
}


def describe(gpu: bool) -> dict[str, str | int]:
    """The GPU if the run uses one; processor, caches, memory and system if the machine reports them."""
    found: dict[str, str | int] = _gpu() if gpu and shutil.which("nvidia-smi") else {}
    found |= {
        "machine": platform.machine(),
        "system": platform.system(),
        "cores": os.cpu_count() or 1,
        "processor": platform.processor() or platform.machine(),
    }
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        pairs = (line.split(":", 1) for line in cpuinfo.read_text().splitlines() if ":" in line)
        fields = {name.strip(): value.strip() for name, value in pairs}
        found["processor"] = fields.get("model name", found["processor"])
        flags = fields.get("flags", fields.get("Features", "")).split()
        wide = ("avx512f", "avx512_bf16", "avx2", "fma", "asimd", "sve")
        found["vectors"] = ", ".join(flag for flag in wide if flag in flags)
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        level, kind, size = ((index / name).read_text().strip() for name in ("level", "type", "size"))
        if kind != "Instruction":
            found[f"L{level} cache"] = size
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        found["memory"] = f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GiB"
    return found


def _gpu() -> dict[str, str | int]:
    command = ["nvidia-smi", f"--query-gpu={','.join(_GPU.values())}", "--format=csv,noheader"]
    answer = subprocess.run(command, capture_output=True, text=True).stdout
    return dict(zip(_GPU, answer.splitlines()[0].split(", ") if answer else [], strict=False))


def versions(packages: Iterable[str] = _PACKAGES) -> dict[str, str]:
    """The versions of Python and of installed packages, and the CUDA module's hash."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    package = find_spec("jax_convgrad")
    folder = Path(package.origin).parent if package and package.origin else None
    for module in sorted(folder.glob("_cuda*.so")) if folder else []:
        found[module.name] = f"sha256 {hashlib.sha256(module.read_bytes()).hexdigest()[:16]}"
    return found


class Others:
    """The share of the processors that other programs take from now on."""

    def __init__(self):
        self._start = self._seconds()

    def share(self) -> float | None:
        """Their share of the whole machine since the start; None if the system does not report it."""
        if self._start is None:
            return None
        (busy, own, wall), (busy_then, own_then, wall_then) = self._seconds(), self._start
        if busy == busy_then:  # a sandbox's counters may stand still
            return None
        others = (busy - busy_then) - (own - own_then)
        return max(others, 0.0) / ((wall - wall_then) * (os.cpu_count() or 1))

    def _seconds(self) -> tuple[float, float, float] | None:
        """Processor seconds of all programs (with stolen time), of this one and its children; the clock."""
        statistics = Path("/proc/stat")
        if not statistics.exists():
            return None
        user, nice, system, _, _, irq, softirq, stolen = map(int, statistics.read_text().split()[1:9])
        ticks = user + nice + system + irq + softirq + stolen
        return ticks / os.sysconf("SC_CLK_TCK"), sum(os.times()[:4]), time.perf_counter()


if __name__ == "__main__":
    for name, value in (describe(True) | versions()).items():
        print(f"{name}: {value}")
