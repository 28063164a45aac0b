"""One library's process: requests as lines of JSON on stdin, an answer to each on stdout.

It stays alive while the others are measured, so that blocks of all libraries can take turns.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from harness.checks import first_line

from whole_steps import memory
from whole_steps.registry import NETS, Net


class Library(Protocol):
    """What jax_library and torch_library have: ``Peer(net, way, folder, threads)``."""

    ways: dict[str, Callable[[], object]]
    """Makes a step and waits for it, by way."""
    prepared: dict[str, Any]
    """What the process found out before any time is measured."""

    def profile(self, way: str, calls: int) -> dict[str, Any]:
        """Whose time a step takes; empty where the library has no such table."""


def block(step: Callable[[], object], seconds: float) -> list[float]:
    """Seconds of each step, after one that does not count: it finds the caches as others left them."""
    step()
    times: list[float] = []
    gc.disable()
    try:
        while not times or sum(times) < seconds:
            start = time.perf_counter()
            step()
            times.append(time.perf_counter() - start)
    finally:
        gc.enable()
    return times


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer

    def answer(**found: Any) -> None:
        answers.write(json.dumps(found) + "\n")
        answers.flush()

    request = json.loads(sys.stdin.readline())
    net: Net = NETS[request["net"]]
    try:
        module = importlib.import_module(f"whole_steps.{request['library']}_peer")
        peer: Library = module.Peer(net, request["ways"], Path(request["folder"]), request["threads"])
    except Exception as error:
        answer(error=f"{type(error).__name__}: {first_line(error)}")
        raise
    answer(ways=list(peer.ways), prepared=peer.prepared)
    for line in sys.stdin:
        request = json.loads(line)
        step = peer.ways[request["way"]]
        if request["do"] == "block":
            answer(times=block(step, request["seconds"]))
        elif request["do"] == "memory":
            answer(growth=memory.growth(step))
        else:
            answer(profile=peer.profile(request["way"], request["calls"]))


if __name__ == "__main__":
    main()
