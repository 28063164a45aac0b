"""A net's run: it starts each library's process, lets them take turns, and gathers what they found."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from harness.devices.cpu import Cpu

from whole_steps.registry import Net

PEERS = ("lax", "install", "own", "torch", "compile")
_LIBRARIES = {"lax": "jax", "install": "jax", "own": "jax", "torch": "torch", "compile": "torch"}
_ROUNDS = 5
_PAUSE = 0.3  # seconds: OpenMP's threads spin for a while after a block of PyTorch's
_WORKER = [sys.executable, "-P", "-m", "whole_steps.worker"]


class PeerError(RuntimeError):
    """A library's process could not do what it was asked."""


class Process:
    """A library's process."""

    def __init__(self, net: Net, peer: str, ways: list[str], folder: Path, threads: int, keep_memory: bool):
        self.peer, self.log = peer, folder / f"{peer}.log"
        with self.log.open("w") as log:
            self._process = subprocess.Popen(
                _WORKER, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
                env=environment(threads, keep_memory),
            )  # fmt: skip
        try:
            found = self.ask(
                net=net.name, library=_LIBRARIES[peer], ways=ways, folder=str(folder), threads=threads
            )
        except PeerError:
            self.end()
            raise
        self.ways: list[str] = found["ways"]
        self.prepared: dict[str, Any] = found["prepared"]

    def ask(self, **request: Any) -> dict[str, Any]:
        """Sends a request and waits for the answer."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin and stdout
        try:
            stdin.write(json.dumps(request) + "\n")
            stdin.flush()
        except BrokenPipeError:
            pass
        line = stdout.readline()
        if not line:
            raise PeerError(f"its process ended with status {self._process.wait()}: {self._last_line()}")
        found = json.loads(line)
        if "error" in found:
            raise PeerError(found["error"])
        return found

    def _last_line(self) -> str:
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"

    def end(self) -> None:
        """Ends the process, which ends itself when its input does."""
        assert self._process.stdin and self._process.stdout
        try:
            self._process.stdin.close()
        except BrokenPipeError:
            pass
        self._process.stdout.close()
        self._process.wait()


def environment(threads: int, keep_memory: bool) -> dict[str, str]:
    """The processes' environment: as many threads for every library."""
    settings = Cpu().environment(threads)
    if not keep_memory:
        settings = {name: value for name, value in settings.items() if not name.startswith("MALLOC_")}
    paths = (Path(__file__).parents[1], os.environ.get("PYTHONPATH"))
    return {**os.environ, **settings, "PYTHONPATH": os.pathsep.join(str(path) for path in paths if path)}


def measure(net: Net, peers: list[str], seconds: float, threads: int, keep_memory: bool) -> dict[str, Any]:
    """An entry of the results.

    Args:
      net: which.
      peers: of ``PEERS``; lax is always measured, since the others are compared with it.
      seconds: of blocks, for each way.
      threads: of every library.
      keep_memory: whether glibc keeps freed memory (harness/devices/cpu.py) or has its defaults.

    Returns:
      ``prepared`` and ``seconds`` (least, median, number of steps) by way, ``memory`` (bytes by which the
      process grows in a step), ``profile``, ``errors`` by peer.
    """
    entry: dict[str, Any] = {
        "name": net.name, "what": net.what, "prepared": {}, "seconds": {}, "memory": {}, "profile": {},
        "errors": {},
    }  # fmt: skip
    times: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        processes: list[Process] = []

        def start(peer: str, ways: list[str]) -> Process | None:
            try:
                process = Process(net, peer, ways, Path(folder), threads, keep_memory)
            except PeerError as error:
                entry["errors"][peer] = str(error)
                return None
            processes.append(process)
            entry["prepared"][peer] = process.prepared
            times.update({way: [] for way in process.ways})
            return process

        def take_turn(process: Process, part: float) -> None:
            for way in process.ways:
                time.sleep(_PAUSE)
                times[way] += process.ask(do="block", way=way, seconds=part)["times"]

        try:
            if start("lax", ["lax"]) is None:
                return entry
            for peer in ("install", "own"):
                if peer in peers:
                    start(peer, [peer])
            if "torch" in peers or "compile" in peers:
                torch = start("torch", ["contiguous", "channels_last"])
                if torch and "compile" in peers:
                    take_turn(torch, seconds / _ROUNDS)
                    faster = min(torch.ways, key=lambda way: min(times[way]))
                    start("compile", [f"compiled {faster}"])
            for number in range(_ROUNDS):
                for process in processes[:: 1 if number % 2 else -1]:
                    take_turn(process, seconds / _ROUNDS)
            for process in processes:
                for way in process.ways:
                    entry["memory"][way] = process.ask(do="memory", way=way)["growth"]
                    if _LIBRARIES[process.peer] == "jax":
                        calls = max(4, min(20, round(1 / min(times[way]))))
                        found = process.ask(do="profile", way=way, calls=calls)["profile"]
                        entry["profile"][way] = found
        except PeerError as error:
            entry["errors"]["run"] = str(error)
        finally:
            for process in processes:
                process.end()
    entry["seconds"] = {
        way: {"least": min(of), "median": statistics.median(of), "steps": len(of)}
        for way, of in times.items()
        if of
    }
    return entry
