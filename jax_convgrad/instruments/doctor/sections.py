"""The sections of the report: what the steps' results say, and which of it is a problem."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import sys
from pathlib import Path

import jax_convgrad
from jax_convgrad import native, source_folder
from jax_convgrad.instruments.doctor.processes import Result
from jax_convgrad.instruments.doctor.report import FAILED, NOTE, OK, WARNING, Report, with_this_python
from jax_convgrad.versions import LOWEST_JAX, NEWEST_TESTED_JAX, numbers, text

STEPS = ("numpy", "jaxlib", "jax", "_cpu", "_cuda", "jax_convgrad", "devices", "devices cuda", "nvidia-smi")
_SETTINGS = re.compile("JAX_|XLA_|CUDA_VISIBLE_DEVICES|LD_LIBRARY_PATH|LD_PRELOAD|PYTHONPATH")
_MISFIT = "no kernel image|unsupported toolchain|driver version is insufficient"


def versions(report: Report, results: dict[str, Result]) -> None:
    """Versions of Python, of this package, of what it requires, and of what it is used with."""
    report.begin("Versions")
    report.add(OK, f"Python {platform.python_version()}, {sys.executable}\non {platform.platform()}")
    folder = source_folder.OWN_FOLDER
    line = f"jax_convgrad {jax_convgrad.__version__}, {folder}"
    if source_folder.is_source_folder():
        if elsewhere := source_folder.installed_elsewhere():
            instead = f"take the clone out of PYTHONPATH, so that Python finds {elsewhere}"
        elif python := source_folder.python_of_clone():
            instead = f"{python} -m jax_convgrad doctor"
        else:
            instead = f'{sys.executable} -m pip install "{folder.parent}"'
        line += "\nis the source folder, in which nothing is built"
        report.add(FAILED, line, "source-folder", instead=instead)
    else:
        report.add(OK, line)
    installed = {found.name: found.version for found in reversed([*importlib.metadata.distributions()])}
    for name in ("numpy", "jaxlib", "jax"):
        version, file = results[name].value or (installed.get(name, ""), "")
        line, failure = f"{name} {version}, {Path(file).parent}", results[name].failure
        if failure == f"ModuleNotFoundError: No module named {name!r}":
            report.add(FAILED, f"{name} is not installed for this Python", "package-missing")
        elif failure:
            report.add(FAILED, f"{name} {version} cannot be imported: {failure}", "package-broken")
        elif name != "numpy" and numbers(version) < LOWEST_JAX:
            report.add(FAILED, f"{line}\nis older than {text(LOWEST_JAX)}", "package-too-old")
        elif name != "numpy" and numbers(version)[:2] > NEWEST_TESTED_JAX:
            report.add(NOTE, f"{line}\nis newer than {text(NEWEST_TESTED_JAX)}, the newest that is tested")
        else:
            report.add(OK, line)
    optional = [f"{name} {installed.get(name, '-')}" for name in ("optax", "flax", "matplotlib")]
    report.add(NOTE, f"optional: {', '.join(optional)}")


def kernels(report: Report, results: dict[str, Result]) -> None:
    """The native modules, and the package on top of them."""
    report.begin("Kernels")
    for name in ("_cpu", "_cuda"):
        owner = (name == "_cuda" and native.cuda_package()) or "jax_convgrad"
        folder, result = native.folder_of(owner), results[name]
        file, others = (
            source_folder.module_file(name, owner),
            ", ".join(p.name for p in folder.glob(f"{name}.*")),
        )
        if file and result.failure:
            line = f"{file.name} does not load: {result.failure}"
            remedy = with_this_python(native.remedy(owner, name, result.failure))
            report.add(FAILED, line, "kernels-unusable", remedy=remedy)
        elif file:
            ffi, built_for = result.value
            line = f"{file.name} loads, built for XLA's FFI {text(ffi)}"
            line += " with CUDA {} for {}".format(*built_for) if name == "_cuda" else ""
            report.add(OK, line + (f"\nfrom {folder}" if owner != "jax_convgrad" else ""))
        elif name == "_cuda" and owner == "jax_convgrad" and not others:
            report.add(NOTE, "no CUDA kernels in this installation")
        else:
            line = f"no {name} for this Python in {folder}"
            line += f", only {others}" if others else ""
            remedy = with_this_python(native.remedy(owner, name))
            report.add(FAILED, line, "kernels-unusable", remedy=remedy)
    if mismatch := native.cuda_mismatch():
        details = {"package": native.CUDA_PACKAGE, "version": jax_convgrad.__version__}
        report.add(FAILED, mismatch.partition(": pip")[0], "cuda-package-mismatch", **details)
    _, sets = results["_cpu"].value or ("", [])
    chosen, known = os.environ.get("JAX_CONVGRAD_CPU_ISA", ""), ", ".join(sets)
    if sets and chosen and chosen not in sets:
        line = f"this machine has no JAX_CONVGRAD_CPU_ISA={chosen}: every call fails"
        report.add(FAILED, line, "instruction-set-unknown", known=known)
    elif sets:
        report.add(OK, f"the CPU kernels run on {chosen or sets[-1]}; there are {known}")
    package = results["jax_convgrad"]
    if not package.failure:
        report.add(OK, f"the package imports, with kernels for {' and '.join(package.value)}")
    elif not report.problems(FAILED):
        problem = "package-too-old" if "was compiled for XLA's FFI" in package.failure else "package-broken"
        report.add(FAILED, f"the package cannot be imported: {package.failure}", problem)


def devices(report: Report, results: dict[str, Result]) -> None:
    """The processor, the GPUs as nvidia-smi lists them, and what JAX computes on."""
    report.begin("Devices")
    info = Path("/proc/cpuinfo")
    name = re.search("^model name\\s*: (.*)", info.read_text() if info.exists() else "", re.MULTILINE)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    report.add(OK, f"{name[1] if name else platform.machine()}, {cores} cores may be used")
    gpus = results["nvidia-smi"].value or "nvidia-smi finds no GPU (a container needs --gpus all)"
    report.add(NOTE, gpus)
    driver = re.match(r"(\d+)\.[\d.]+, ", gpus)
    default, cuda = results["devices"], results["devices cuda"]
    if not default.failure:
        report.add(OK, f"JAX computes on {default.value} by default")
    if "incompatible with the framework's API version" in default.failure:
        report.add(FAILED, f"jaxlib cannot call the kernels: {default.failure}", "package-too-old")
    elif default.failure and not results["jax"].failure:
        report.add(FAILED, f"JAX finds no device: {default.failure}", "jax-has-no-device")
    elif not cuda.failure and results["_cuda"].failure:
        line = "no CUDA kernels: jax.lax computes on the GPU"
        remedy = with_this_python(native.cuda_remedy())
        report.add(FAILED, line, "cuda-kernels-missing", remedy=remedy)
    elif cuda.failure and driver and not results["jax"].failure:
        major = "13" if int(driver[1]) >= 580 else "12"
        report.add(WARNING, f"JAX does not use the GPU: {cuda.failure}", "jax-without-gpu", major=major)
    elif cuda.failure and default.value not in (None, "cpu"):
        report.add(NOTE, f"there are no kernels for {default.value}: jax.lax computes there")


def settings(report: Report) -> None:
    """Environment variables that change what is computed, where, or how fast."""
    report.begin("Settings")
    found = [f"{name}={os.environ[name]}" for name in sorted(filter(_SETTINGS.match, os.environ))]
    report.add(NOTE, "\n".join(found) or "no environment variable changes how JAX or the kernels run")


def self_check(report: Report, platform: str, results: dict[str, Result]) -> None:
    """Reports what is wrong on the platform, and a table of the errors of each op and dtype."""
    report.begin(f"Self-check on {platform}")
    tables: dict[str, dict[str, float]] = {}
    for step, result in results.items():
        part, (errors, wrong) = step.split()[-1], result.value or ({}, [result.failure])
        tables |= {part: errors} if errors else {}
        if wrong:
            problem = "install-fails" if part == "install" else "self-check-fails"
            problem = "cuda-kernels-misfit" if re.search(_MISFIT, result.failure) else problem
            report.add(FAILED, f"{part}: " + ",\n".join(wrong), problem)
    if not any(finding["section"] == report.section for finding in report.findings):
        report.add(OK, "every op agrees with jax.lax and gives the same bits twice, and install() works")
    if tables:
        lines = [f"{'largest error / bound':21}" + "".join(f"{dtype:>10}" for dtype in tables)]
        for op in next(iter(tables.values())):
            lines.append(f"{op:21}" + "".join(f"{table[op]:10.3f}" for table in tables.values()))
        report.add(NOTE, "\n".join(lines))
