"""The CPU: every library has the same threads, calls do not queue, and the peaks are those of the threads."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import ClassVar

import numpy as np

from harness.devices.device import Device, Functions, Peaks, Process, Spreads
from harness.timing import measure

_REPEATS = 5
_COPY_BYTES = 256 * 2**20  # for all threads together, far larger than any cache


class Cpu(Device):
    """The processors that ``limit_processors`` leaves."""

    name = platform = "cpu"
    processes: ClassVar = {"lax": Process("jax", ("ours", "lax")), "torch": Process("torch", ("torch",))}
    default_peers = ("lax",)
    parts = ("layers", "training", "scaling")
    arithmetics = ("f32",)
    batch = 8
    budget = (0.6, 0.1)
    exact_peers = True
    pictures = True
    about = "A layer whose arrays stay in the cache can exceed the copy rate."

    def environment(self, threads: int) -> dict[str, str]:
        """Settings for equal thread pools, and for an allocator that keeps its memory.

        PJRT_NPROC or NPROC sets the size of XLA's thread pool (no flag in XLA_FLAGS does); without them it
        is the number of processors that the process may use. OMP_NUM_THREADS sets PyTorch's.

        By default glibc returns freed blocks of 32 MiB and more to the system, so every call that allocates
        its result would pay for fresh pages. A training step reuses its pages, so glibc is set to keep them.
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

    def peaks(self, seconds: float, threads: int) -> Peaks:
        """Measures FLOP/s of multiply-adds in registers and bytes/s of copying, by thread count."""
        counts = sorted({1, threads})
        return {
            "flops": {str(count): _fma_peak(count, seconds) for count in counts},
            "copy": {str(count): _copy_peak(count) for count in counts},
        }

    def times(self, functions: Functions, budget: float, wait: Callable[[object], object]) -> Spreads:
        """Waits for each call: two queued calls would run at the same time."""

        def waiting(function):
            return lambda: wait(function())

        return measure({name: waiting(function) for name, function in functions.items()}, budget)


def available_processors() -> int:
    """The number of processors that this process may use."""
    if not hasattr(os, "sched_getaffinity"):  # only Linux has it
        return os.cpu_count() or 1
    return len(os.sched_getaffinity(0))


def limit_processors(threads: int) -> None:
    """Keeps this process and its children on ``threads`` processors, so that no library can use more.

    Raises:
      ValueError: there are not that many.
    """
    if threads > available_processors():
        raise ValueError(f"--threads {threads}: this process may use {available_processors()} processors")
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


def _fma_peak(threads: int, seconds: float) -> float:
    from jax_convgrad import _cpu

    def all_at_once() -> float:
        rates = [0.0] * threads

        def work(number: int) -> None:
            rates[number] = _cpu.peak_flops(min(seconds, 0.1))

        _in_threads(threads, work)
        return sum(rates)

    return max(all_at_once() for _ in range(_REPEATS))


def _copy_peak(threads: int) -> float:
    elements = _COPY_BYTES // threads // 8
    pairs = [(np.ones(elements), np.zeros(elements)) for _ in range(threads)]

    def work(number: int) -> None:
        source, target = pairs[number]
        np.copyto(target, source)  # memcpy, which releases the interpreter's lock

    return max(2 * 8 * elements * threads / _in_threads(threads, work) for _ in range(2 * _REPEATS))


def _in_threads(count: int, work: Callable[[int], None]) -> float:
    """The seconds from the first start to the last end of ``work`` in ``count`` threads at once."""
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
