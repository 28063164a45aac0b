"""Times functions that take turns, as medians and quartiles, so that a disturbance has little effect."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping

import numpy as np

_SHORTEST_SAMPLE = 2e-4  # seconds: the clock and the loop take a negligible part of it
_FEWEST_SAMPLES, _MOST_SAMPLES = 5, 200


def _return(result: object) -> object:
    return result


def measure(
    functions: Mapping[str, Callable[[], object]],
    budget: float,
    *,
    shortest: float = _SHORTEST_SAMPLE,
    most: float = math.inf,
    wait: Callable[[object], object] = _return,
) -> dict[str, dict[str, float]]:
    """Measures the seconds per call of functions.

    The functions take turns until each has used ``budget`` seconds and has enough samples. A turn begins
    with a call that does not count, so every library is measured after itself and not after its peer.

    Args:
      functions: what to measure, by name.
      budget: seconds of samples of each function.
      shortest: seconds that a sample should last. A device queues the calls of a sample, and a sample of
        this length makes the cost of queueing and of the wait for the last call negligible.
      most: seconds of samples of each function after which few samples are enough, if a call takes very long.
      wait: takes the result of a sample's last call and returns when it is computed.

    Returns:
      For each function the median, the quartiles, the least time and the number of samples.
    """
    calls = {name: _calls_a_sample(function, shortest, wait) for name, function in functions.items()}
    samples: dict[str, list[float]] = {name: [] for name in functions}
    spent = dict.fromkeys(functions, 0.0)
    open_names = list(functions)
    while open_names:
        for name in open_names:
            function, count = functions[name], calls[name]
            wait(function())  # finds the caches in the state that another function left
            elapsed = _timed(function, count, wait)
            samples[name].append(elapsed / count)
            spent[name] += elapsed
        open_names = [
            name
            for name in open_names[::-1]  # another function goes first in each round
            if (len(samples[name]) < _FEWEST_SAMPLES and spent[name] < most)
            or (spent[name] < budget and len(samples[name]) < _MOST_SAMPLES)
        ]
    return {name: spread(times) for name, times in samples.items()}


def _calls_a_sample(function: Callable[[], object], shortest: float, wait: Callable[[object], object]) -> int:
    wait(function())
    count, elapsed = 1, _timed(function, 1, wait)
    while elapsed < shortest / 2:  # a single call takes longer than one of many in a queue
        count = math.ceil(count * min(shortest / elapsed, 100))
        elapsed = _timed(function, count, wait)
    return count


def _timed(function: Callable[[], object], count: int, wait: Callable[[object], object]) -> float:
    result = None
    start = time.perf_counter()
    for _ in range(count):
        result = function()
    wait(result)
    return time.perf_counter() - start


def spread(times: list[float]) -> dict[str, float]:
    """The median, the quartiles, the least time and the number of samples."""
    q1, median, q3 = map(float, np.percentile(times, [25, 50, 75]))
    return {"median": median, "q1": q1, "q3": q3, "least": min(times), "samples": len(times)}


def of_one_call(spread: dict[str, float], calls: int) -> dict[str, float]:
    """Converts the times of a program with several calls to times of one call."""
    return {name: value if name == "samples" else value / calls for name, value in spread.items()}
