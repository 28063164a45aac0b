"""PyTorch's side of a net: eagerly in both memory formats, or by torch.compile."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from whole_steps import start
from whole_steps.registry import Net
from whole_steps.torch_steps import Training, formats

COMPILED = "compiled "


class Peer:
    """The ways "contiguous" and "channels_last", and either after "compiled "."""

    def __init__(self, net: Net, ways: list[str], folder: Path, threads: int):
        torch.set_num_threads(threads)
        arrays, found = start.read(folder), formats(net)
        self.ways: dict[str, Callable[[], object]] = {}
        self.prepared: dict[str, Any] = {"compared": {}, "compiling": {}}
        for way in ways:
            memory = way.removeprefix(COMPILED)
            if memory not in found:
                continue
            trainings: list[Training] = []

            def first(
                arrays: start.Arrays, batch: start.Arrays, way: str = way, memory: str = memory,
                trainings: list[Training] = trainings,
            ) -> start.Arrays:  # fmt: skip
                training = Training(net, arrays, batch, found[memory], way.startswith(COMPILED))
                trainings[:] = [training]
                return training.found(training.step())

            begun = time.perf_counter()
            first(*start.argument_sets(arrays, net)[0])
            self.prepared["compiling"][way] = time.perf_counter() - begun
            self.prepared["compared"][way] = start.compared(folder, arrays, net, first)
            self.ways[way] = trainings[-1].step

    def profile(self, way: str, calls: int) -> dict[str, Any]:
        return {}
