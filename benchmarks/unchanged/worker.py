"""One program's process: whether both ways agree, what runs on the kernels, and the times of both.

programs.py starts it. It writes what it found as JSON.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax

import jax_convgrad
from unchanged.agreement import least_disagreement
from unchanged.registry import Program, all_programs

_BLOCK = 0.02  # seconds that a block of calls should last: the clock and the loop are nothing against it
_FEWEST_BLOCKS = 4


def run(program: Program, budget: float) -> dict[str, Any]:
    """What is found about one program.

    Args:
      program: which one.
      budget: seconds of blocks of both ways together; at least four blocks each are timed.

    Returns:
      ``disagreement``, ``kernels`` and ``on_lax`` (operations that run where), ``reasons`` (of those on lax),
      ``seconds`` (the least of a call, by way) and ``blocks``.
    """
    function, arguments = program.make()
    arguments = jax.device_put(arguments)
    traced = jax.jit(function).trace(*arguments)  # once: install() changes only what is made of it
    lax = traced.lower().compile()
    jax_convgrad.install()
    try:
        ours = traced.lower().compile()
        report = jax_convgrad.installed_report()
    finally:
        jax_convgrad.uninstall()
    on_lax = sum(row.times for row in report.on_lax)
    found = {
        "disagreement": least_disagreement(ours, lax, arguments),
        "kernels": sum(row.times for row in report.rows) - on_lax,
        "on_lax": on_lax,
        "reasons": [str(row) for row in report.on_lax],
    }
    seconds, blocks = least(
        {
            "ours": lambda: jax.block_until_ready(ours(*arguments)),
            "lax": lambda: jax.block_until_ready(lax(*arguments)),
        },
        budget,
    )
    return {**found, "seconds": seconds, "blocks": blocks}


def least(functions: Mapping[str, Callable[[], object]], budget: float) -> tuple[dict[str, float], int]:
    """Least seconds of a call of each function, of blocks that take turns, and how many blocks each had.

    The first call of a turn does not count, since it finds the caches as another function left them.
    """
    seconds = dict.fromkeys(functions, math.inf)
    counts = dict.fromkeys(functions, 1)
    blocks, end = 0, time.perf_counter() + budget
    while blocks < _FEWEST_BLOCKS or time.perf_counter() < end:
        for name in list(functions)[:: 1 if blocks % 2 else -1]:
            function, count = functions[name], counts[name]
            function()
            start = time.perf_counter()
            for _ in range(count):
                function()
            elapsed = (time.perf_counter() - start) / count
            seconds[name] = min(seconds[name], elapsed)
            counts[name] = max(1, min(math.ceil(_BLOCK / elapsed), 1000))
        blocks += 1
    return seconds, blocks


def main() -> None:
    name, budget, out = sys.argv[1:]
    Path(out).write_text(json.dumps(run(all_programs()[name], float(budget))))


if __name__ == "__main__":
    main()
