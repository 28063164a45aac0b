"""Our kernels and jax.lax on a device, a program of its own: a JSON request on stdin, JSON lines on stdout.

A program makes several calls, each on operands of its own (device_plan.py says how many), one after another:
it starts once for all of them, so what is timed is the device and not Python. Many programs are queued before
the wait for the last one.
"""

from __future__ import annotations

import json
import math
import os
import re
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import device_operands
import device_peaks
import jax
import jax.numpy as jnp
import jax_ops
import xla_choices
from device_plan import ARITHMETICS, Task
from device_worker import LONGEST, QUEUED, check_result, first_line, of_one_call, tell
from jax import lax
from problems import Conv, Pool
from timing import measure
from verification import VerificationError, result_shape

from jax_convgrad.primitives import ffi

_BATCH = 12  # programs that are compiled side by side, before any of them is timed
# After one of these nothing more can be run in this process.
_FAULT = re.compile(r"CUDA_ERROR_(ILLEGAL|MISALIGNED|LAUNCH_(FAILED|TIMEOUT)|ASSERT|INVALID_PC|HARDWARE)")


def operands_of(task: Task) -> list[str]:
    """Which operands the op reads. Of the one that a gradient is taken by, it needs the shape alone."""
    if isinstance(task.problem, Conv):
        return {"fprop": ["x", "w"], "dgrad": ["w", "dy"], "wgrad": ["x", "dy"]}[task.op]
    return {"fprop": ["x"], "dgrad": ["dy"], "fprop+dgrad": ["x", "dy"], "bgrad": ["dy"]}[task.op]


def calls_of(task: Task, library: str) -> Callable:
    """One program that makes the task's copies of the call, none before the one ahead of it is done."""
    function = jax_ops.jitted(task.problem, task.op, library)
    shapes, read = task.problem.shapes(), operands_of(task)

    def run(sets):
        dead = {name: jnp.zeros(shapes[name], task.dtype) for name in shapes if name not in read}
        results = []
        for operands in sets:
            if results:
                # The result goes on from behind the barrier: XLA drops what nothing there asks for.
                operands, results[-1] = lax.optimization_barrier((operands, results[-1]))
            results.append(function(**operands, **dead))
        return results

    return run


def lowered(task: Task, library: str) -> jax.stages.Lowered:
    """The program in the task's precision, before XLA has it."""
    shapes = {
        name: jax.ShapeDtypeStruct(task.problem.shapes()[name], jnp.dtype(task.dtype))
        for name in operands_of(task)
    }
    with jax.default_matmul_precision(ARITHMETICS[task.arithmetic][1]):
        return jax.jit(calls_of(task, library)).lower([shapes] * task.copies)


def compiled(task: Task, library: str):
    """The program, or what XLA says against it; and the seconds it took."""
    start = time.monotonic()
    try:
        return lowered(task, library).compile(), time.monotonic() - start
    except Exception as error:  # of any library: told beside the layer, and the run goes on
        return error, time.monotonic() - start


def operand_sets(task: Task, integers: bool, count: int):
    """So many sets of operands, as the reference reads them and on the device."""
    few = device_operands.few_numbers(jnp.dtype(task.dtype), integers)
    on_device = jnp.asarray(few)
    sets = [device_operands.operands(task.problem, few, number) for number in range(count)]
    read = operands_of(task)
    return sets, [{name: _array(on_device, of_set[name]) for name in read} for of_set in sets]


def _array(few: jax.Array, repeated: device_operands.Repeated) -> jax.Array:
    return _repeat(few, repeated.start, repeated.times, repeated.shape)


@partial(jax.jit, static_argnums=(2, 3))
def _repeat(few, start, times, shape):
    return lax.dynamic_slice(jnp.tile(few, times), (start,), (math.prod(shape),)).reshape(shape)


def check(task: Task, programs: dict) -> list[dict]:
    """Each program's first result on integers and on normally distributed numbers; gives the latter's sets.

    Raises:
      VerificationError: a result is wrong.
    """
    sixteen_bits = task.dtype == "bfloat16"
    normal, normal_arrays = operand_sets(task, False, task.copies)
    integers, integer_arrays = operand_sets(task, True, 1)
    for operands, arrays, exact in (
        (integers[0], integer_arrays + normal_arrays[1:], True),
        (normal[0], normal_arrays, False),
    ):
        results = {library: program(arrays)[0] for library, program in programs.items()}
        for library, result in results.items():
            check_result(task, operands, result, exact, library)
        if exact and not sixteen_bits and len(results) == 2:
            same_everywhere(task, *results.values())
    return normal_arrays


def same_everywhere(task: Task, ours, others) -> None:
    """Raises VerificationError where results on integers differ in any element, by about a product or more.

    Ours are exact, but the other library may use an algorithm that rounds, in proportion to the sum's length.
    """
    slack = 1e-6 if isinstance(task.problem, Pool) and task.problem.reduction == "avg" else 0.0
    if isinstance(task.problem, Conv):
        length = task.problem.flops(task.op) / 2 / math.prod(result_shape(task.problem, task.op))
        slack = 0.25 + 4e-6 * length
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(others), strict=True):
        wrong = int(_different(one, other, slack))
        if wrong:
            raise VerificationError(f"{task.key}: {wrong} elements of {one.size} differ from jax.lax's")


@jax.jit
def _different(one, other, slack):
    return jnp.sum(~(jnp.abs(one - other) <= slack), dtype=jnp.int32)


def measured(task: Task, programs: dict, budget: float) -> dict:
    """The task's times, what XLA made of it, and what speaks against a result."""
    entry: dict = {"task": task.to_json(), "copies": task.copies, "seconds": {}, "unsupported": {}, "xla": {}}
    entry["compile_seconds"] = {library: round(seconds, 2) for library, (_, seconds) in programs.items()}
    working = {}
    for library, (program, _) in programs.items():
        if isinstance(program, Exception):
            entry["unsupported"][library] = first_line(program)
        else:
            working[library] = program
            entry["xla"][library] = xla_choices.kernels(program.as_text(), task.copies)
    if "ours" not in working:
        return entry
    try:
        arrays = check(task, working)
    except VerificationError as error:
        return {**entry, "wrong": str(error)}
    functions = {library: lambda program=program: program(arrays) for library, program in working.items()}
    seconds = measure(
        functions, budget, shortest=min(QUEUED, budget), most=LONGEST, wait=jax.block_until_ready
    )
    entry["seconds"] = {library: of_one_call(spread, task.copies) for library, spread in seconds.items()}
    return entry


def kernel_of(task: Task, module, capability: int) -> str | None:
    """The kernel that our plan takes for a convolution; None where the module is another backend's."""
    if not isinstance(task.problem, Conv) or not hasattr(module, "chosen_kernel"):
        return None
    layer = task.problem.layer
    return module.chosen_kernel(
        op=task.op,
        dtype=task.dtype,
        batch=layer.batch,
        in_channels=layer.in_channels,
        out_channels=layer.out_channels,
        groups=layer.groups,
        axes=[
            (a.input, a.taps, a.output, a.stride, a.pad_lo, a.input_dilation, a.filter_dilation)
            for a in task.problem.geometry.axes
        ],
        tf32=task.arithmetic == "tf32",
        capability=capability,
    )


def main() -> None:
    start = time.monotonic()
    request = json.load(sys.stdin)
    jax.config.update("jax_enable_x64", True)
    device = jax.devices()[0]
    if device.platform != {"cuda": "gpu"}.get(request["platform"], request["platform"]):
        sys.exit(f"device_jax: JAX's device is {device}, not one of {request['platform']!r}")
    tell(device=device.device_kind)
    module = ffi.backends[request["platform"]].module
    capability = int(getattr(device, "compute_capability", "0").partition(".")[0])
    if request["peaks"]:
        tell(peaks=device_peaks.peaks(request["budget"], request["peak_scale"]))
    tasks = [Task.from_json(entry) for entry in request["tasks"]]
    libraries, compiling = request["libraries"], 0.0
    with ThreadPoolExecutor(min(_BATCH, os.cpu_count() or 1)) as pool:
        for first in range(0, len(tasks), _BATCH):
            batch = tasks[first : first + _BATCH]
            # A batch that takes as long to compile as the ones before would come too late to be measured.
            begun = time.monotonic()
            if begun - start + compiling > request["seconds"]:
                break
            tell(begun=[task.key for task in batch])
            futures = [{lib: pool.submit(compiled, task, lib) for lib in libraries} for task in batch]
            # XLA tries out cuDNN's algorithms while it compiles: nothing is timed until all are done.
            made = [{lib: future.result() for lib, future in of_task.items()} for of_task in futures]
            tell(begun=[])
            compiling = max(compiling, time.monotonic() - begun)
            for task, programs in zip(batch, made, strict=True):
                if time.monotonic() - start > request["seconds"]:
                    break
                tell(begun=[task.key])
                try:
                    kernel = kernel_of(task, module, capability)
                    tell(kernel=kernel, **measured(task, programs, request["budget"]))
                except Exception as error:
                    tell(task=task.to_json(), copies=task.copies, seconds={}, failed=first_line(error))
                    if _FAULT.search(str(error)):
                        raise
    tell(finished=True)


if __name__ == "__main__":
    main()
