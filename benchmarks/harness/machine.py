"""The machine: what it is, what it can do at most, and how many of its processors the run may use."""

from __future__ import annotations

import os
import platform
import threading
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import numpy as np

_REPEATS = 5
_SECONDS = 0.1
_COPY_BYTES = 256 * 2**20  # of all threads together, far past any cache


def environment(threads: int) -> dict[str, str]:
    """Settings that libraries read when their process starts.

    XLA's pool has as many threads as PJRT_NPROC or NPROC says (no flag of XLA_FLAGS sets it), else as
    many as the process may use processors; PyTorch's has OMP_NUM_THREADS.

    glibc gives memory of 32 MiB and more back to the system when it is freed, and every call that
    allocates its result would pay for fresh pages; in a training step they are long there. So it keeps them.
    """
    count = str(threads)
    return {
        "NPROC": count,
        "PJRT_NPROC": count,
        "OMP_NUM_THREADS": count,
        "MKL_NUM_THREADS": count,
        "JAX_PLATFORMS": "cpu",
        "MALLOC_MMAP_MAX_": "0",
        "MALLOC_TRIM_THRESHOLD_": str(2**62),
        "MALLOC_TOP_PAD_": str(2**26),
    }


def available_processors() -> int:
    """Those that this process may use."""
    if not hasattr(os, "sched_getaffinity"):  # Linux alone has it
        return os.cpu_count() or 1
    return len(os.sched_getaffinity(0))


def limit_processors(threads: int) -> None:
    """Keeps this process and its children on ``threads`` processors, so that no library can use more.

    Raises:
      ValueError: there are not as many.
    """
    if threads > available_processors():
        raise ValueError(f"--threads {threads}: this process may use {available_processors()} processors")
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


def describe() -> dict[str, str | int]:
    """Processor, caches, memory and system, as far as they can be found out."""
    found: dict[str, str | int] = {
        "machine": platform.machine(),
        "system": platform.system(),
        "cores": os.cpu_count() or 1,
        "processor": platform.processor() or platform.machine(),
    }
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        fields = dict(
            (part.strip() for part in line.split(":", 1))
            for line in cpuinfo.read_text().splitlines()
            if ":" in line
        )
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


def versions(packages: tuple[str, ...]) -> dict[str, str]:
    """Of Python and of those packages that are installed."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


class Others:
    """How much of the processors other programs take, from now on."""

    def __init__(self):
        self._start = self._seconds()

    def share(self) -> float | None:
        """Their part of the whole machine since the start; None where the system does not tell."""
        if self._start is None:
            return None
        (busy, own, wall), (busy_then, own_then, wall_then) = self._seconds(), self._start
        if busy == busy_then:  # a sandbox's counters that stand still
            return None
        others = (busy - busy_then) - (own - own_then)
        return max(others, 0.0) / ((wall - wall_then) * (os.cpu_count() or 1))

    def _seconds(self) -> tuple[float, float, float] | None:
        """Processor seconds of all programs and stolen ones, of this one with children, and the clock."""
        statistics = Path("/proc/stat")
        if not statistics.exists():
            return None
        user, nice, system, _, _, irq, softirq, stolen = map(int, statistics.read_text().split()[1:9])
        ticks = user + nice + system + irq + softirq + stolen
        return ticks / os.sysconf("SC_CLK_TCK"), sum(os.times()[:4]), time.perf_counter()


def peaks(threads: int) -> dict[str, dict[str, float]]:
    """FLOP/s of multiply-adds in registers and bytes/s (read and written) of copying, by thread count."""
    counts = sorted({1, threads})
    return {
        "flops": {str(count): _fma_peak(count) for count in counts},
        "copy": {str(count): _copy_peak(count) for count in counts},
    }


def larger(
    one: dict[str, dict[str, float]], other: dict[str, dict[str, float]]
) -> dict[str, dict[str, float]]:
    """Of two measurements of the peaks: what disturbs one can only make it smaller."""
    return {
        kind: {count: max(value, other[kind][count]) for count, value in of_kind.items()}
        for kind, of_kind in one.items()
    }


def _fma_peak(threads: int) -> float:
    from jax_convgrad import _cpu

    def all_at_once() -> float:
        rates = [0.0] * threads

        def work(number: int) -> None:
            rates[number] = _cpu.peak_flops(_SECONDS)

        _in_threads(threads, work)
        return sum(rates)

    return max(all_at_once() for _ in range(_REPEATS))


def _copy_peak(threads: int) -> float:
    elements = _COPY_BYTES // threads // 8
    pairs = [(np.ones(elements), np.zeros(elements)) for _ in range(threads)]

    def work(number: int) -> None:
        source, target = pairs[number]
        np.copyto(target, source)  # memcpy, without the interpreter's lock

    return max(2 * 8 * elements * threads / _in_threads(threads, work) for _ in range(2 * _REPEATS))


def _in_threads(count: int, work: Callable[[int], None]) -> float:
    """Seconds that ``work`` takes in so many threads at once, from the first start to the last end."""
    barrier = threading.Barrier(count)
    spans: list[tuple[float, float]] = []

    def run(number: int) -> None:
        barrier.wait()
        start = time.perf_counter()
        work(number)
        spans.append((start, time.perf_counter()))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return max(end for _, end in spans) - min(start for start, _ in spans)
