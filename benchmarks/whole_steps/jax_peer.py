"""jax's side of a net: with lax, under install(), or on this package's own layers."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

import jax_convgrad
from whole_steps import jax_steps, start, trace
from whole_steps.layers import Layers, own_layers
from whole_steps.registry import Net, batch_of

_COMPILING = 2.0  # seconds after which a step isn't compiled once more: the least time counts


class Peer:
    """One way in a process, since install() is for a whole process."""

    def __init__(self, net: Net, ways: list[str], folder: Path, threads: int):
        (self.way,) = ways
        arrays = jax_steps.initial(net) if self.way == "lax" else start.read(folder)
        if self.way == "install":
            jax_convgrad.install()
        step = jax_steps.step_of(net, own_layers() if self.way == "own" else Layers())
        batch = batch_of(net)
        seconds: list[float] = []
        while not seconds or (sum(seconds) < _COMPILING and len(seconds) < 3):
            jax.clear_caches()
            arguments = jax_steps.state_of(arrays), batch
            begun = time.perf_counter()
            self.step = jax.jit(step, donate_argnums=0).trace(*arguments).lower().compile()
            seconds.append(time.perf_counter() - begun)
        analysis = self.step.memory_analysis()
        self.prepared: dict[str, Any] = {
            "compiling": min(seconds),
            # Donated arguments have the outputs' place.
            "program_bytes": analysis.temp_size_in_bytes
            + analysis.output_size_in_bytes
            - analysis.alias_size_in_bytes,
        }
        if self.way == "install":
            report = jax_convgrad.installed_report()
            on_lax = sum(row.times for row in report.on_lax)
            self.prepared["kernels"] = sum(row.times for row in report.rows) - on_lax
            self.prepared["on_lax"] = [str(row) for row in report.on_lax]
        if self.way == "lax":
            start.write(folder, arrays, net, self._first)
        else:
            self.prepared["compared"] = {self.way: start.compared(folder, arrays, net, self._first)}
        self.state, self.batch = jax_steps.state_of(arrays), jax.device_put(batch)
        self.ways: dict[str, Callable[[], object]] = {self.way: self._run}

    def _first(self, arrays: start.Arrays, batch: start.Arrays) -> start.Arrays:
        return jax_steps.found(*self.step(jax_steps.state_of(arrays), jax.device_put(batch)))

    def _run(self) -> None:
        self.state, losses = self.step(self.state, self.batch)
        jax.block_until_ready((self.state, losses))

    def profile(self, way: str, calls: int) -> dict[str, Any]:
        return trace.profile(self.step.as_text(), self._run, calls)
