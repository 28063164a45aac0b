"""Verifies and times each task's calls in PyTorch, in its memory formats.

On a GPU PyTorch tries out cuDNN's algorithms (cudnn.benchmark), arrays are channels last if PyTorch has that
format, and a CUDA graph has a program's calls, so PyTorch, like XLA, does not wait for Python. On the CPU
both formats are measured, and the faster one counts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import ml_dtypes  # noqa: F401 (by which NumPy knows bfloat16)
import numpy as np
import torch

from harness import operands, torch_ops
from harness.checks import check_result
from harness.devices.device import Device
from harness.tasks import ARITHMETICS, Task
from harness.timing import of_one_call
from harness.verification import VerificationError

BATCH = 1


def start(device: Device, tasks: Sequence[Task], threads: int) -> str:
    """The device's name; ends the process if PyTorch has no such device."""
    torch.set_grad_enabled(False)
    torch.backends.cudnn.benchmark = True
    if device.platform == "cpu":
        torch.set_num_threads(threads)
        return "cpu"
    if not torch.cuda.is_available():
        raise SystemExit("PyTorch sees no CUDA device")
    return torch.cuda.get_device_name()


def is_fatal(error: Exception) -> bool:
    """Whether this process cannot run anything more."""
    return "CUDA error" in str(error) and not isinstance(error, torch.cuda.OutOfMemoryError)


def prepare(tasks: Sequence[Task], libraries: Sequence[str]) -> list[None]:
    """Does nothing: PyTorch compiles no programs."""
    return [None] * len(tasks)


def calls_on(task: Task, platform: str, integers: bool, count: int):
    """The operands for the reference and, by memory format, a call for each of ``count`` sets."""
    dtype = getattr(torch, task.dtype)
    few = operands.few_numbers(np.dtype(task.dtype), integers)
    # PyTorch takes no bfloat16 from NumPy. The detour over float64 rounds nothing.
    on_device = torch.from_numpy(few.astype(np.float64)).to(platform, dtype)
    sets = [operands.of_problem(task.problem, few, number) for number in range(count)]
    calls: dict[str, list[torch_ops.Call]] = {}
    for of_set in sets:
        arrays = {name: _tensor(on_device, a) for name, a in of_set.items()}
        formats = torch_ops.calls(task.problem, task.op, arrays, dtype, platform)
        for layout in list(formats) if platform == "cpu" else list(formats)[-1:]:
            calls.setdefault(layout, []).append(formats[layout])
    return sets[0], calls


def _tensor(few: torch.Tensor, a: operands.Repeated) -> torch.Tensor:
    return few.repeat(a.times)[a.start : a.start + a.size].reshape(a.shape)


def program(calls: list[torch_ops.Call], platform: str) -> Callable[[], object]:
    """All calls as one function, which on a GPU launches a graph."""
    if platform == "cpu":
        return lambda: [call.run() for call in calls]
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for call in calls:  # chooses cuDNN's algorithms, which is not allowed during a capture
            call.run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = [call.run() for call in calls]

    def run():
        graph.replay()
        return results

    return run


def measured(task: Task, prepared: None, device: Device, budget: float) -> dict:
    """The task's time, or the error."""
    platform = device.platform
    full = ARITHMETICS[task.arithmetic][1] == "highest"
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = not full
    try:
        for integers in (True, False):
            read, calls = calls_on(task, platform, integers, 1 if integers else task.copies)
            for call, *_ in calls.values():
                check_result(task, device, read, call.result(call.run()), integers, "torch")
    except torch_ops.UnsupportedError as reason:
        return {"unsupported": {"torch": str(reason)}}
    except VerificationError as error:
        return {"wrong": str(error)}
    programs = {layout: program(of_layout, platform) for layout, of_layout in calls.items()}
    wait = (lambda _: None) if platform == "cpu" else (lambda _: torch.cuda.synchronize())
    seconds = device.times(programs, budget, wait)
    del calls, programs
    if platform != "cpu":
        torch.cuda.empty_cache()
    return {"seconds": {"torch": faster(seconds, task.copies)}}


def faster(seconds: dict[str, dict], calls: int = 1) -> dict:
    """The times of one call in the memory format with the smaller median."""
    layout = min(seconds, key=lambda name: seconds[name]["median"])
    return {**of_one_call(seconds[layout], calls), "layout": layout}
