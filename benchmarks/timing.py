"""Times of functions that take turns, as medians and quartiles, so that a disturbance counts for little."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping

import numpy as np

_SHORTEST_SAMPLE = 2e-4  # seconds: the clock and the loop are nothing against it
_FEWEST_SAMPLES, _MOST_SAMPLES = 5, 200


def measure(functions: Mapping[str, Callable[[], object]], budget: float) -> dict[str, dict[str, float]]:
    """Seconds a call of each function, which must return only when its work is done.

    Each is called in turn until it has used ``budget`` seconds and been sampled often enough. A turn begins
    with a call that does not count, so that every library is measured after itself and not after its peer.

    Returns:
      For each the median, the quartiles and the number of samples.
    """
    calls = {}
    for name, function in functions.items():
        function()
        start = time.perf_counter()
        function()
        calls[name] = max(1, math.ceil(_SHORTEST_SAMPLE / (time.perf_counter() - start)))
    samples: dict[str, list[float]] = {name: [] for name in functions}
    spent = dict.fromkeys(functions, 0.0)
    open_names = list(functions)
    while open_names:
        for name in open_names:
            function, count = functions[name], calls[name]
            function()  # finds the caches as another function left them
            start = time.perf_counter()
            for _ in range(count):
                function()
            elapsed = time.perf_counter() - start
            samples[name].append(elapsed / count)
            spent[name] += elapsed
        open_names = [
            name
            for name in open_names[::-1]  # who goes first changes every round
            if len(samples[name]) < _FEWEST_SAMPLES
            or (spent[name] < budget and len(samples[name]) < _MOST_SAMPLES)
        ]
    return {name: spread(times) for name, times in samples.items()}


def spread(times: list[float]) -> dict[str, float]:
    """Median, quartiles and count."""
    q1, median, q3 = np.percentile(times, [25, 50, 75])
    return {"median": float(median), "q1": float(q1), "q3": float(q3), "samples": len(times)}
