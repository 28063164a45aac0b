"""A run: it starts each peer's process, reads its output, and writes the results after every change.

Each process has a share of the time. If it dies, the run starts it again after the task at which it died. The
results list the tasks that were not reached, so an interrupted run still leaves what it measured.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import math
import os
import subprocess
import sys
import tempfile
import threading
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from harness import machine
from harness.devices.device import Process, larger
from harness.layers import scaling_series
from harness.tasks import Task, plan
from harness.verification import VerificationError, same_losses

# -P: the current folder may have a jax_convgrad without built modules.
WORKER = [sys.executable, "-P", "-m", "harness.worker"]
_GRACE = 30.0  # seconds that a process may overrun, since it may be compiling
_MOST_RESTARTS = 3


class Results:
    """The run so far; with a folder, it is written to disk after every change."""

    def __init__(self, run: Namespace):
        self._path = run.out / "results.json" if run.out else None
        self._entries: dict[tuple[str, str], dict] = {}
        self.data: dict = {
            "date": datetime.date.today().isoformat(),
            "command": ["python", "benchmarks/run.py", *sys.argv[1:]],
            "state": "running",
            "machine": machine.describe(run.device.platform == "cuda"),
            "versions": machine.versions(),
            "settings": {
                "device": run.device.name,
                "peers": list(run.peers),
                "threads": run.threads,
                "batch": run.batch,
                "arithmetics": list(run.arithmetics),
                "seconds": None if math.isinf(run.seconds) else run.seconds,
                "budget": run.budget,
                "environment": run.device.environment(run.threads),
            },
            "peaks": {},
            "layers": [],
            "training": {},
            "scaling": [],
            "left_out": {},
            "failures": [],
            "others": None,
        }
        self.save()

    def save(self) -> None:
        if self._path:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            written = self._path.with_suffix(".tmp")
            written.write_text(json.dumps(self.data, indent=1) + "\n")
            written.replace(self._path)

    def add(self, peer: str, task: Task, found: dict) -> None:
        """Adds the output of a peer's process about one task."""
        part = "scaling" if peer == "scaling" else "layers"
        entry = self._entries.get((part, task.key))
        if entry is None:
            entry = self._entries[part, task.key] = task.entry()
            self.data[part].append(entry)
        if peer == "scaling":
            entry |= scaling_place(task)
        seconds = found.get("seconds", {})
        if peer == "deterministic":
            entry["deterministic"] = seconds
        else:
            entry["seconds"] |= seconds
        for library, reason in found.get("unsupported", {}).items():
            entry["unsupported"][f"{library}, {peer}" if peer == "deterministic" else library] = reason
        if found.get("xla"):
            made = found["xla"] if peer == "lax" else {f"{peer} lax": found["xla"].get("lax", {})}
            entry.setdefault("xla", {}).update(made)
        for problem in ("wrong", "failed"):
            if problem in found:
                entry["problems"].append(f"{peer}: {problem}: {found[problem]}")
        if found.get("kernel"):
            entry["kernel"] = found["kernel"]
        self.save()

    def add_training(self, found: dict[str, dict]) -> None:
        """Adds the training steps of one process, except one whose losses differ from ours."""
        training = self.data["training"]
        for library, step in found.items():
            try:
                if "ours" in training:
                    same_losses(training["ours"]["losses"], step["losses"], f"ours and {library}")
                training[library] = step
            except VerificationError as error:
                self.data["failures"].append(str(error))
        self.save()


def scaling_place(task: Task) -> dict:
    """The series to which the task's layer belongs, and its number in it."""
    layer = task.problem.layer
    (series,) = (name for name, problems in scaling_series().items() if task.problem in problems)
    return {"series": series, "value": layer.batch if series == "batch" else layer.in_channels}


def processes_of(run: Namespace) -> dict[str, Process]:
    """The processes by peer; the first one measures ours, even if its peer is not requested."""
    (first, process), *others = run.device.processes.items()
    found = {first: process if first in run.peers else replace(process, libraries=("ours",))}
    if "scaling" in run.parts:
        found["scaling"] = Process("jax", ("ours",))
    return found | {peer: process for peer, process in others if peer in run.peers}


def measure(run: Namespace) -> dict:
    """Measures everything that was requested and returns the contents of the JSON file."""
    results, end, others = Results(run), time.monotonic() + run.seconds, machine.Others()
    tasks = run.tasks if "layers" in run.parts else []
    growing = [problem for series in scaling_series().values() for problem in series]
    growing_tasks = plan(growing, run.ops, run.arithmetics[:1])
    processes = processes_of(run)
    with tempfile.TemporaryDirectory() as folder:
        start = str(Path(folder) / "start.npz")  # the same for every library's training
        while processes:
            peer, process = next(iter(processes.items()))
            share = process.share / sum(later.share for later in processes.values())
            trains = "training" in run.parts and peer not in ("scaling", "deterministic")
            run_peer(
                results, run, peer, process,
                tasks=growing_tasks if peer == "scaling" else tasks,
                seconds=(end - time.monotonic()) * share,
                training=start if trains else None,
            )  # fmt: skip
            del processes[peer]
    results.data |= {"state": "complete", "others": others.share()}
    results.save()
    return results.data


def run_peer(
    results: Results, run: Namespace, peer: str, process: Process, tasks: Sequence[Task], seconds: float,
    training: str | None,
) -> None:  # fmt: skip
    """Runs one peer's process, and starts it again after a task at which it died."""
    left = {task.key: task for task in tasks}
    end = time.monotonic() + seconds
    for _ in range(1 + _MOST_RESTARTS):
        begun: list[str] = []
        finished, reached = False, 0

        def read(line: dict) -> None:
            nonlocal begun, finished, reached
            begun = line.get("begun", begun)
            finished = finished or "finished" in line
            if "peaks" in line:
                results.data["peaks"] = larger(line["peaks"], results.data["peaks"])
                results.save()
            if "training" in line:
                results.add_training(line["training"])
            if "task" in line:
                task = left.pop(line["task"])
                say_entry(peer, task.key, line)
                results.add(peer, task, line)
                begun, reached = [], reached + 1

        request = {
            "device": run.device.name,
            "program": process.program,
            "libraries": process.libraries,
            "tasks": [task.to_json() for task in left.values()],
            "seconds": end - time.monotonic(),
            "budget": run.budget,
            "threads": run.threads,
            "peaks": process.program == "jax" and not results.data["peaks"],
            "training": training,
        }
        status = run_process(run, process.flags, request, read)
        if finished or not (begun or reached) or time.monotonic() > end:
            break
        for key in begun:  # the op that it ran, or those that it was compiling
            message = f"the process ended with status {status}"
            results.add(peer, left.pop(key), {"failed": message})
    if not finished and status:
        results.data["failures"].append(f"{peer}: its process ended with status {status}")
    results.data["left_out"][peer] = list(left)
    results.save()


def run_process(run: Namespace, flags: str, request: dict, read: Callable[[dict], None]) -> int:
    """Starts a worker, yields each of its lines, and stops it if it overruns its time by far."""
    here = str(Path(__file__).parents[1])
    environment = {
        **os.environ,
        **run.device.environment(run.threads),
        "PYTHONPATH": os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")])),
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip(),
    }
    if run.device.platform != "cuda":
        environment["JAX_PLATFORMS"] = run.device.platform
    with subprocess.Popen(
        WORKER, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        seconds = max(request["seconds"], 0) + _GRACE
        stop = threading.Timer(min(seconds, threading.TIMEOUT_MAX), process.kill)
        stop.daemon = True
        stop.start()
        try:
            with contextlib.suppress(BrokenPipeError):
                json.dump(request, process.stdin)
                process.stdin.close()
            for line in process.stdout:
                if line.startswith("{"):
                    read(json.loads(line))
        finally:
            stop.cancel()
    return process.returncode


def say_entry(peer: str, key: str, line: dict) -> None:
    """Prints one line about a task."""
    seconds = line.get("seconds", {})
    times = ", ".join(f"{who} {spread['median'] * 1e3:.4g}" for who, spread in seconds.items())
    reasons = [*line.get("unsupported", {}).values(), line.get("wrong"), line.get("failed")]
    text = f"{peer:13} {key:36} {times + ' ms' if times else ''} {'; '.join(filter(None, reasons))}"
    print(text[:200], file=sys.stderr, flush=True)
