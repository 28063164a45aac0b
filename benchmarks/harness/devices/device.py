"""The interface of a device: its peers, how calls are timed, its peaks, and the defaults of options."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

Functions = dict[str, Callable[[], object]]
Spreads = dict[str, dict[str, float]]
Peaks = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Process:
    """One process that measures."""

    program: str  # "jax" or "torch"
    libraries: tuple[str, ...]
    flags: str = ""  # XLA's flags
    share: float = 1.0  # share of the time, relative to the other processes' shares


class Device(ABC):
    """A device, and how it is measured; the attributes are the defaults of the command's options."""

    name: str
    platform: str  # JAX's name of it
    processes: dict[str, Process]  # by peer; the first process also measures ours
    default_peers: tuple[str, ...]
    parts: tuple[str, ...] = ("layers",)
    arithmetics: tuple[str, ...]
    batch: int | None = None  # the largest batch; None leaves the layers unchanged
    seconds: float = math.inf  # for the whole run
    budget: tuple[float, float]  # seconds per function, by default and with --quick
    most_copies: int = 1  # calls in one program, each on its own operands
    most_products: int = 20_000_000  # the most products that a verification sums in float64
    exact_peers: bool = False  # whether the peers' sums of integers in float32 are exact, as ours are
    reads_hlo: bool = False  # whether the report lists XLA's kernels for an op
    pictures: bool = False
    about: str  # the report's second paragraph

    def environment(self, threads: int) -> dict[str, str]:
        """Settings that libraries read when their process starts."""
        return {}

    @abstractmethod
    def peaks(self, seconds: float, threads: int) -> Peaks:
        """Measures the peaks "flops" and "copy" per second, for about ``seconds`` each."""

    @abstractmethod
    def times(self, functions: Functions, budget: float, wait: Callable[[object], object]) -> Spreads:
        """Times a call of each function; ``wait`` takes a result and returns when it is computed."""


def larger(one: Peaks, other: Peaks) -> Peaks:
    """The larger of two measurements, since a disturbance can only make one smaller."""
    return {
        kind: {name: max(value, other.get(kind, {}).get(name, 0.0)) for name, value in rates.items()}
        for kind, rates in one.items()
    }
