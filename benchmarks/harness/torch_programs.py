"""PyTorch on a device, a program of its own: a JSON request on stdin, JSON lines on stdout.

cuDNN's algorithms are tried out (cudnn.benchmark), arrays are channels last where PyTorch has that format. As
for JAX, a program makes several calls on operands of their own: on a GPU they are captured in a CUDA graph,
so that PyTorch does not wait for Python either.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable

import device_operands
import ml_dtypes  # noqa: F401 (by which NumPy knows bfloat16)
import numpy as np
import torch
import torch_ops
from device_plan import ARITHMETICS, Task
from device_worker import LONGEST, QUEUED, check_result, first_line, of_one_call, tell
from timing import measure
from verification import VerificationError


def calls_on(task: Task, device: str, integers: bool, count: int):
    """The operands that the reference reads, and a call for each of ``count`` sets, in the last format."""
    dtype = getattr(torch, task.dtype)
    few = device_operands.few_numbers(np.dtype(task.dtype), integers)
    # By way of float64, as PyTorch takes no bfloat16 from NumPy: nothing is rounded.
    on_device = torch.from_numpy(few.astype(np.float64)).to(device, dtype)
    sets = [device_operands.operands(task.problem, few, number) for number in range(count)]
    calls, layout = [], ""
    for operands in sets:
        arrays = {name: _tensor(on_device, a) for name, a in operands.items()}
        layout, call = list(torch_ops.calls(task.problem, task.op, arrays, dtype, device).items())[-1]
        calls.append(call)
    return sets[0], calls, layout


def _tensor(few: torch.Tensor, a: device_operands.Repeated) -> torch.Tensor:
    return few.repeat(a.times)[a.start : a.start + a.size].reshape(a.shape)


def program(calls: list[Callable[[], object]], device: str) -> Callable[[], object]:
    """All calls as one function, which on a GPU launches a graph."""
    if device != "cuda":
        return lambda: [call() for call in calls]
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for call in calls:  # chooses cuDNN's algorithms, which a capture may not
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = [call() for call in calls]

    def run():
        graph.replay()
        return results

    return run


def measured(task: Task, device: str, budget: float) -> dict:
    """The task's time, or what speaks against a result."""
    full = ARITHMETICS[task.arithmetic][1] == "highest"
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = not full
    entry: dict = {"task": task.to_json(), "copies": task.copies, "seconds": {}, "unsupported": {}}
    try:
        for integers in (True, False):
            operands, calls, layout = calls_on(task, device, integers, 1 if integers else task.copies)
            check_result(task, operands, calls[0].result(calls[0].run()), integers, "torch")
        run = program([call.run for call in calls], device)
        wait = (lambda _: torch.cuda.synchronize()) if device == "cuda" else (lambda _: None)
        turns = measure({"torch": run}, budget, shortest=min(QUEUED, budget), most=LONGEST, wait=wait)
        seconds = turns["torch"]
    except torch_ops.UnsupportedError as reason:
        return {**entry, "unsupported": {"torch": str(reason)}}
    except VerificationError as error:
        return {**entry, "wrong": str(error)}
    return {**entry, "seconds": {"torch": {**of_one_call(seconds, task.copies), "layout": layout}}}


def main() -> None:
    start = time.monotonic()
    request = json.load(sys.stdin)
    device = request["platform"]
    if device == "cuda" and not torch.cuda.is_available():
        sys.exit("device_torch: PyTorch sees no CUDA device")
    torch.set_grad_enabled(False)
    torch.backends.cudnn.benchmark = True
    tell(device=torch.cuda.get_device_name() if device == "cuda" else "cpu")
    for entry in request["tasks"]:
        if time.monotonic() - start > request["seconds"]:
            break
        task = Task.from_json(entry)
        tell(begun=[task.key])
        try:
            tell(**measured(task, device, request["budget"]))
        except Exception as error:
            tell(task=task.to_json(), copies=task.copies, seconds={}, failed=first_line(error))
            if "CUDA error" in str(error) and not isinstance(error, torch.cuda.OutOfMemoryError):
                raise
        if device == "cuda":
            torch.cuda.empty_cache()
    tell(finished=True)


if __name__ == "__main__":
    main()
