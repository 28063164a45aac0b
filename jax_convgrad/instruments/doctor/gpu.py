"""Accelerators: the NVIDIA GPUs of the machine, the CUDA kernels, and what JAX computes on.

A problem fails the doctor where JAX computes on a GPU that these kernels then cannot have. That JAX itself
leaves a GPU alone is only a warning: everything works, as it does on a machine without one.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
from pathlib import Path
from typing import Any

from jax_convgrad.instruments.doctor.processes import Outcome
from jax_convgrad.instruments.doctor.report import Section

_NVIDIA = "0x10de"  # the vendor's number on the PCI bus; devices of class 3 are display controllers
_CUDA_13_DRIVER = 13000  # as cuDriverGetVersion gives it


def _gpus_on_the_bus() -> int:
    """NVIDIA's display controllers, whether or not there is a driver for them. Linux tells."""
    count = 0
    for device in Path("/sys/bus/pci/devices").glob("*"):
        try:
            vendor, kind = (device / "vendor").read_text().strip(), (device / "class").read_text().strip()
        except OSError:
            continue
        count += vendor == _NVIDIA and kind.startswith("0x03")
    return count


def runs_on(capability: tuple[int, int], architectures: str) -> str:
    """How kernels compiled for these architectures run on a device: "binary", "ptx" or "" for not at all.

    ``architectures`` are named as in CMake's CUDA_ARCHITECTURES: "90" is a binary and PTX, "90-real" a binary
    alone, "90-virtual" PTX alone. A binary runs on devices of the same major number and at least its minor,
    one with an "a" on just those; PTX is compiled by the driver for any device at least as new.
    """
    by_ptx = False
    for name in architectures.replace(";", " ").split():
        parts = re.fullmatch(r"(\d+)(\d)([af]?)(-real|-virtual)?", name)
        if not parts:
            continue
        compiled = int(parts[1]), int(parts[2])
        if parts[4] != "-virtual":
            same = compiled == capability
            later = compiled[0] == capability[0] and compiled[1] <= capability[1]
            if same if parts[3] == "a" else later:
                return "binary"
        by_ptx |= parts[4] != "-real" and not parts[3] and compiled <= capability
    return "ptx" if by_ptx else ""


def plugins() -> list[str]:
    """JAX's CUDA plugins that are installed."""
    found = []
    for major in ("12", "13"):
        try:
            found.append(f"jax-cuda{major}-plugin {importlib.metadata.version(f'jax-cuda{major}-plugin')}")
        except importlib.metadata.PackageNotFoundError:
            pass
    return found


def gpu_section(driver: Outcome, cuda: Outcome | None, jax: Outcome, plugins: list[str]) -> Section:
    """From the driver up to JAX, of which the CUDA plugins are named."""
    section = Section("GPU")
    devices: dict[str, Any] = jax.steps.get("devices") or {"kinds": {}, "errors": {}, "default": None}
    gpus = driver.steps.get("devices") or []
    used = bool(devices["kinds"].get("cuda"))
    section.facts = {
        "driver": driver.as_facts(),
        "on_the_bus": _gpus_on_the_bus(),
        "jax": devices,
        "plugins": plugins,
    }
    _driver(section, driver, gpus)
    if gpus:
        _jax_side(section, driver, jax, used)
        _kernels_side(section, driver, cuda, gpus, used)
    elif cuda is not None and "load" in cuda.steps:
        section.note("the CUDA kernels are there, for a machine with a GPU")
    _default(section, jax, devices)
    return section


def _driver(section: Section, driver: Outcome, gpus: list[dict[str, Any]]) -> None:
    on_bus = section.facts["on_the_bus"]
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    failure = next(iter(driver.failures.values()), None)
    if "load" not in driver.steps:
        if on_bus:
            section.warn("driver-missing", f"{on_bus} NVIDIA GPU(s) on the bus, but no driver: {failure}")
        else:
            section.note("no NVIDIA driver, and no NVIDIA GPU is seen")
    elif not gpus and hidden in ("", "-1"):
        section.warn("gpu-hidden", f"CUDA_VISIBLE_DEVICES={hidden} hides every GPU")
    elif failure and "NO_DEVICE" in failure.message and not on_bus:
        section.note("an NVIDIA driver's library, but no NVIDIA GPU")
    elif failure:
        section.warn("driver-fails", f"NVIDIA's driver does not answer: {failure}")
    elif not gpus:
        section.note("an NVIDIA driver, but no GPU that it lets this process see")
    for gpu in gpus:
        section.ok(
            f"{gpu['name']}, compute capability {gpu['capability'][0]}.{gpu['capability'][1]}, "
            f"{gpu['memory'] / 2**30:.0f} GiB; driver for CUDA up to {_cuda_version(driver.steps['version'])}"
        )


def _cuda_version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"


def _jax_side(section: Section, driver: Outcome, jax: Outcome, used: bool) -> None:
    plugins = section.facts["plugins"]
    details = {
        "cuda": "13" if driver.steps["version"] >= _CUDA_13_DRIVER else "12",
    }
    platforms = os.environ.get("JAX_PLATFORMS", "")
    if used:
        section.ok(f"JAX computes on it: {', '.join(plugins) or 'with a CUDA plugin'}")
    elif "devices" not in jax.steps:
        section.note("what JAX makes of it is not known (see above)")
    elif platforms and not {"cuda", "gpu"} & set(platforms.split(",")):
        section.note(f"JAX leaves it alone, as JAX_PLATFORMS={platforms} says")
    elif not plugins:
        section.warn("jax-without-cuda", "JAX is installed without CUDA, and computes on the CPU", **details)
    else:
        why = section.facts["jax"]["errors"].get("cuda", "")
        section.warn("jax-cuda-fails", f"JAX has {', '.join(plugins)} but does not see it: {why}", **details)


def _kernels_side(
    section: Section, driver: Outcome, cuda: Outcome | None, gpus: list[dict[str, Any]], used: bool
) -> None:
    problem = section.fail if used else section.warn
    if cuda is None:
        path = shutil.which("nvcc") or next(iter(map(str, Path("/usr/local").glob("cuda*/bin/nvcc"))), "")
        problem(
            "cuda-kernels-missing",
            "the package was built without CUDA kernels: on the GPU jax.lax computes",
            nvcc=f"nvcc is {path}" if path else "install NVIDIA's CUDA toolkit (nvcc)",
            path=path or "/usr/local/cuda/bin/nvcc",
        )
        return
    if "build" not in cuda.steps:
        section.note("the CUDA kernels do not load (see above)")
        return
    toolkit, architectures = cuda.steps["build"]
    section.facts["built"] = {"toolkit": toolkit, "architectures": architectures}
    highest = driver.steps["version"] // 1000
    if toolkit and int(toolkit.split(".")[0]) > highest:
        problem(
            "driver-older-than-toolkit",
            f"the CUDA kernels are built with CUDA {toolkit}, newer than the driver knows",
            driver=str(highest),
        )
    for gpu in {tuple(gpu["capability"]): gpu for gpu in gpus}.values():
        capability = tuple(gpu["capability"])
        way = runs_on(capability, architectures)
        details = {"architecture": f"{capability[0]}{capability[1]}"}
        if way == "binary":
            section.ok(f"the CUDA kernels (CUDA {toolkit}) have code for {gpu['name']}")
        elif way == "ptx":
            section.warn(
                "gpu-compiles-at-first-call",
                f"for {gpu['name']} the driver compiles the kernels, anew after each update",
                **details,
            )
        else:
            problem(
                "gpu-architecture-missing",
                f"the CUDA kernels are compiled for {architectures}, which {gpu['name']} does not run",
                **details,
            )


def _default(section: Section, jax: Outcome, devices: dict[str, Any]) -> None:
    failure = jax.failures.get("devices")
    if failure:
        unknown_flag = re.search(r"[Uu]nknown flags? in XLA_FLAGS: (.*)", jax.stderr)
        if unknown_flag:
            section.fail("xla-flags-unknown", f"JAX ends at an unknown flag in XLA_FLAGS: {unknown_flag[1]}")
        elif failure.raised:
            # Asked for cuda where no plugin is, JAX 0.10 fails at an assertion without a text.
            bare = f"JAX raises {failure.raised} when it is asked for its devices"
            section.fail("jax-has-no-device", f"JAX finds no device: {failure}" if failure.message else bare)
        else:
            section.fail("jax-dies", f"JAX, asked for its devices: {failure}")
        return
    if devices["default"] is None:
        return
    kinds = devices["kinds"]
    section.ok(f"JAX computes on {devices['default']} where nothing else is asked for")
    for platform in kinds:
        if platform not in ("cpu", "cuda"):
            section.note(
                f"{platform} ({kinds[platform][0]}): there are no kernels for it, jax.lax computes there"
            )
