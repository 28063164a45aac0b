"""The machine and how it is told to run: Python, the processor, environment variables."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

from jax_convgrad.instruments.doctor.processes import Outcome
from jax_convgrad.instruments.doctor.report import Section

# Those that kernels are there for, or XLA's own code asks for; of all that a processor says it has.
_FEATURES = (
    *("sse4_2", "avx", "f16c", "fma", "bmi2", "avx2", "avx512f", "avx512bw", "avx512vl", "avx512_bf16"),
    *("avx512_fp16", "amx_bf16", "asimd", "fphp", "asimdhp", "bf16", "i8mm", "sve"),
)


def python_section() -> Section:
    """Python's version, and the platform."""
    section = Section("Python and platform")
    version = ".".join(map(str, sys.version_info[:3]))
    text = f"Python {version}, {sys.executable}"
    if sys.version_info < (3, 11):  # noqa: UP036  # in a checkout, it may run on any
        section.fail("python-too-old", f"{text}: jax_convgrad needs 3.11 or later")
    else:
        section.ok(text)
    libc = " ".join(platform.libc_ver()).strip()
    section.ok(", ".join(filter(None, [platform.system(), platform.release(), platform.machine(), libc])))
    section.facts = {
        "python": version,
        "executable": sys.executable,
        "platform": platform.platform(),
        "machine": platform.machine(),
        "libc": libc,
        "path": sys.path,
    }
    return section


def _processor() -> tuple[str, list[str]]:
    """Its name, and the features among ``_FEATURES``, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        return platform.processor() or platform.machine(), []
    told: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        told.setdefault(name.strip(), value.strip())
    features = (told.get("flags") or told.get("Features") or "").split()
    return told.get("model name") or platform.machine(), [name for name in _FEATURES if name in features]


def _quota() -> float | None:
    """How many cores' time the control group allows, as containers set it; None where it sets no limit."""
    for quota_file, period_file in (
        ("/sys/fs/cgroup/cpu.max", None),
        ("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "/sys/fs/cgroup/cpu/cpu.cfs_period_us"),
    ):
        try:
            words = Path(quota_file).read_text().split()
            if period_file is not None:
                words += Path(period_file).read_text().split()
            quota, period = words[:2]
            if quota not in ("max", "-1"):
                return int(quota) / int(period)
        except (OSError, ValueError):
            continue
    return None


def cpu_section(native: Outcome | None) -> Section:
    """The processor, the cores that may be used, and what the CPU kernels make of it."""
    section = Section("CPU")
    name, features = _processor()
    section.ok(name)
    total = os.cpu_count() or 1
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else total
    quota = _quota()
    limit = f", and a container's quota of {quota:g}" if quota is not None else ""
    section.ok(f"{allowed} of {total} cores may be used{limit}")
    if features:
        section.note(f"features: {' '.join(features)}")
    section.facts = {"name": name, "features": features, "cores": total, "allowed": allowed, "quota": quota}
    sets = native.steps.get("instruction_sets") if native else None
    if native is None or sets is None:
        section.note("the CPU kernels could not be asked (see above)")
        return section
    section.facts["instruction_sets"] = sets
    common = native.steps.get("common")
    chosen = os.environ.get("JAX_CONVGRAD_CPU_ISA", "")
    if chosen and chosen not in sets:
        section.fail(
            "instruction-set-unknown",
            f"JAX_CONVGRAD_CPU_ISA={chosen} is none that this machine has: every call of a kernel fails",
            known=", ".join(sets),
        )
        return section
    if chosen and chosen != sets[-1]:
        section.warn("instruction-set-narrowed", f"JAX_CONVGRAD_CPU_ISA={chosen}, where {sets[-1]} is faster")
    elif sets == ["plain"] and platform.machine().lower() in ("x86_64", "amd64"):
        section.warn(
            "cpu-without-avx2", "neither AVX2 nor AVX-512: the kernels run on SSE2, several times slower"
        )
    else:
        section.ok(f"the kernels run on {sets[-1]}; there are {', '.join(sets)}")
    if common:
        section.facts["common_layer"] = common
        kernels = ", ".join(f"{op} {facts['kernel']}" for op, facts in common.items())
        section.ok(f"a common 3x3 layer takes: {kernels}")
    return section


_MATTER = (
    *("JAX_PLATFORMS", "JAX_ENABLE_X64", "JAX_DEFAULT_MATMUL_PRECISION", "JAX_DISABLE_JIT", "JAX_DEBUG_NANS"),
    *("JAX_NUM_CPU_DEVICES", "JAX_COMPILATION_CACHE_DIR", "XLA_FLAGS", "XLA_PYTHON_CLIENT_PREALLOCATE"),
    *(
        "XLA_PYTHON_CLIENT_MEM_FRACTION",
        "CUDA_VISIBLE_DEVICES",
        "LD_LIBRARY_PATH",
        "LD_PRELOAD",
        "PYTHONPATH",
    ),
)
# Of the library, and of its tests and benchmarks.
_OWN = ("JAX_CONVGRAD_CPU_ISA", "JAX_CONVGRAD_TEST_", "JAX_CONVGRAD_EMULATOR_", "JAX_CONVGRAD_BENCHMARK_")
_FALSE = ("", "0", "false", "off", "no", "n", "f")


def settings_section() -> Section:
    """Environment variables that change what is computed, where, or how fast."""
    section = Section("Settings")
    own = sorted(name for name in os.environ if name.startswith("JAX_CONVGRAD_"))
    for name in (*own, *_MATTER):
        if name not in os.environ:
            continue
        value = os.environ[name]
        section.facts[name] = value
        if name in own and not name.startswith(_OWN):
            section.warn("setting-unknown", f"{name}={value} is no setting of jax_convgrad")
        elif name in ("JAX_DISABLE_JIT", "JAX_DEBUG_NANS") and value.lower() not in _FALSE:
            section.warn("setting-slows", f"{name}={value} makes everything slow")
        else:
            section.note(f"{name}={value}")
    if not section.facts:
        section.ok("no environment variable changes how JAX or the kernels run")
    return section
