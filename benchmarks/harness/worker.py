"""The process that measures: a JSON request on stdin, JSON lines on stdout.

Each library has its own process, and so the whole machine: PyTorch's OpenMP threads spin for a while after a
call and would slow down what runs next, and a crash ends only one library's process.
"""

from __future__ import annotations

import importlib
import json
import sys
import time

from harness.checks import first_line
from harness.devices import DEVICES
from harness.tasks import Task


def tell(**entry) -> None:
    """Prints one line of JSON at once."""
    print(json.dumps(entry), flush=True)


def main() -> None:
    end = time.monotonic()
    request = json.load(sys.stdin)
    end += request["seconds"]
    device, budget = DEVICES[request["device"]], request["budget"]
    tasks = [Task.from_json(entry) for entry in request["tasks"]]
    library = importlib.import_module(f"harness.{request['program']}_programs")
    tell(device=library.start(device, tasks, request["threads"]))
    if request["peaks"]:
        tell(peaks=device.peaks(budget, request["threads"]))
    preparing = 0.0
    for first in range(0, len(tasks), library.BATCH):
        batch = tasks[first : first + library.BATCH]
        begun = time.monotonic()
        # If the next batch takes as long to prepare as the last ones, there is no time left to measure it.
        if begun + preparing > end:
            break
        tell(begun=[task.key for task in batch])
        prepared = library.prepare(batch, request["libraries"])
        tell(begun=[])
        preparing = max(preparing, time.monotonic() - begun)
        for task, programs in zip(batch, prepared, strict=True):
            if time.monotonic() > end:
                break
            tell(begun=[task.key])
            try:
                tell(task=task.key, **library.measured(task, programs, device, budget))
            except Exception as error:
                tell(task=task.key, failed=first_line(error))
                if library.is_fatal(error):
                    raise
    if request["training"]:
        training = importlib.import_module(f"harness.{request['program']}_training")
        tell(training=training.run(request["training"], request["libraries"], 2 * budget))
    if request["peaks"] and time.monotonic() < end:
        tell(peaks=device.peaks(budget, request["threads"]))
    tell(finished=True)


if __name__ == "__main__":
    main()
