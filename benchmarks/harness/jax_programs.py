"""Compiles each task for our kernels and for jax.lax, verifies the results, compares them and times both.

A program makes several calls in sequence, each on its own operands (tasks.py says how many). It starts once
for all of them, so the time is the device's and not Python's.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from harness import jax_ops, operands, xla_choices
from harness.checks import check_result, first_line, peer_eps
from harness.devices.device import Device
from harness.problems import Conv, Pool
from harness.tasks import ARITHMETICS, Task
from harness.timing import of_one_call
from harness.verification import VerificationError, result_shape
from jax_convgrad.primitives import targets

BATCH = 12  # programs that are compiled in parallel, before any of them is timed
_FAULT = re.compile(r"CUDA_ERROR_(ILLEGAL|MISALIGNED|LAUNCH_(FAILED|TIMEOUT)|ASSERT|INVALID_PC|HARDWARE)")


def start(device: Device, tasks: Sequence[Task], threads: int) -> str:
    """The name of JAX's device; ends the process if it is not on the requested platform."""
    jax.config.update("jax_enable_x64", any(task.dtype == "float64" for task in tasks))
    found = jax.devices()[0]
    if found.platform != {"cuda": "gpu"}.get(device.platform, device.platform):
        raise SystemExit(f"JAX's device is {found}, not one of {device.platform!r}")
    return found.device_kind


def is_fatal(error: Exception) -> bool:
    """Whether this process cannot run anything more."""
    return bool(_FAULT.search(str(error)))


def prepare(tasks: Sequence[Task], libraries: Sequence[str]) -> list[dict]:
    """Compiles the tasks' programs in parallel.

    XLA tries out cuDNN's algorithms while it compiles, so nothing is timed until all are done.
    """
    with ThreadPoolExecutor(min(BATCH, os.cpu_count() or 1)) as pool:
        futures = [{lib: pool.submit(compiled, task, lib) for lib in libraries} for task in tasks]
        return [{lib: future.result() for lib, future in of_task.items()} for of_task in futures]


def operands_of(task: Task) -> list[str]:
    """The operands that the op reads. A gradient does not read the operand that it belongs to."""
    if isinstance(task.problem, Conv):
        return {"fprop": ["x", "w"], "dgrad": ["w", "dy"], "wgrad": ["x", "dy"]}[task.op]
    return {"fprop": ["x"], "dgrad": ["dy"], "fprop+dgrad": ["x", "dy"], "bgrad": ["dy"]}[task.op]


def calls_of(task: Task, library: str) -> Callable:
    """A program that makes the task's calls, each after the previous one is done."""
    function = jax_ops.jitted(task.problem, task.op, library)
    shapes, read = task.problem.shapes(), operands_of(task)

    def run(sets):
        dead = {name: jnp.zeros(shapes[name], task.dtype) for name in shapes if name not in read}
        results = []
        for arrays in sets:
            if results:
                # The next call uses the barrier's output: XLA removes outputs that nothing uses.
                arrays, results[-1] = lax.optimization_barrier((arrays, results[-1]))
            results.append(function(**arrays, **dead))
        return results

    return run


def lowered(task: Task, library: str) -> jax.stages.Lowered:
    """The lowered program in the task's precision."""
    shapes = {
        name: jax.ShapeDtypeStruct(task.problem.shapes()[name], jnp.dtype(task.dtype))
        for name in operands_of(task)
    }
    with jax.default_matmul_precision(ARITHMETICS[task.arithmetic][1]):
        return jax.jit(calls_of(task, library)).lower([shapes] * task.copies)


def compiled(task: Task, library: str):
    """The compiled program, or the error, which the report lists for the layer."""
    try:
        return lowered(task, library).compile()
    except Exception as error:
        return error


def operand_sets(task: Task, integers: bool, count: int):
    """Makes ``count`` sets of operands, for the reference and on the device."""
    few = operands.few_numbers(jnp.dtype(task.dtype), integers)
    on_device = jnp.asarray(few)
    sets = [operands.of_problem(task.problem, few, number) for number in range(count)]
    read = operands_of(task)
    return sets, [{name: _array(on_device, of_set[name]) for name in read} for of_set in sets]


def _array(few: jax.Array, repeated: operands.Repeated) -> jax.Array:
    return _repeat(few, repeated.start, repeated.times, repeated.shape)


@partial(jax.jit, static_argnums=(2, 3))
def _repeat(few, start, times, shape):
    return lax.dynamic_slice(jnp.tile(few, times), (start,), (math.prod(shape),)).reshape(shape)


def check(task: Task, programs: dict, device: Device) -> list[dict]:
    """Checks each program's first result on integers and on normal numbers, and returns the latter's sets.

    Raises:
      VerificationError: a result is wrong, or ours differs from lax's.
    """
    normal, normal_arrays = operand_sets(task, False, task.copies)
    integers, integer_arrays = operand_sets(task, True, 1)
    for read, arrays, exact in (
        (integers[0], integer_arrays + normal_arrays[1:], True),
        (normal[0], normal_arrays, False),
    ):
        results = {library: program(arrays)[0] for library, program in programs.items()}
        for library, result in results.items():
            check_result(task, device, read, result, exact, library)
        if exact and task.item_bytes > 2 and {"ours", "lax"} <= results.keys():
            same_everywhere(task, device, results["ours"], results["lax"])
    return normal_arrays


def same_everywhere(task: Task, device: Device, ours, others) -> None:
    """Raises VerificationError if results on integers differ in any element.

    Ours are exact. A peer may use an algorithm that rounds in proportion to the sum's length; it may then
    differ by less than one product.
    """
    # The mean's division is the one step that integers do not make exact.
    slack = 1e-6 if isinstance(task.problem, Pool) and task.problem.reduction == "avg" else 0.0
    if isinstance(task.problem, Conv) and peer_eps(task, device):
        length = task.problem.flops(task.op) / 2 / math.prod(result_shape(task.problem, task.op))
        slack = 0.25 + 4e-6 * length
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(others), strict=True):
        wrong = int(_different(one, other, slack))
        if wrong:
            raise VerificationError(f"{task.key}: {wrong} elements of {one.size} differ from jax.lax's")


@jax.jit
def _different(one, other, slack):
    return jnp.sum(~(jnp.abs(one - other) <= slack), dtype=jnp.int32)


def measured(task: Task, programs: dict, device: Device, budget: float) -> dict:
    """The task's times, which of our kernels ran, XLA's kernels, and the errors."""
    entry: dict = {"unsupported": {}, "xla": {}, "kernel": kernel_of(task, device)}
    working = {}
    for library, program in programs.items():
        if isinstance(program, Exception):
            entry["unsupported"][library] = first_line(program)
        else:
            working[library] = program
            if device.reads_hlo:
                entry["xla"][library] = xla_choices.kernels(program.as_text(), task.copies)
    if "ours" not in working:
        return entry
    try:
        arrays = check(task, working, device)
    except VerificationError as error:
        return {**entry, "wrong": str(error)}
    functions = {library: partial(program, arrays) for library, program in working.items()}
    seconds = device.times(functions, budget, jax.block_until_ready)
    return {**entry, "seconds": {who: of_one_call(spread, task.copies) for who, spread in seconds.items()}}


def kernel_of(task: Task, device: Device, capability: int | None = None) -> str | None:
    """The kernel that our plan takes for a convolution on a GPU of this capability (default: JAX's GPU)."""
    if not isinstance(task.problem, Conv):
        return None
    module, layer = targets.backends[device.platform].module, task.problem.layer
    problem = {
        "dtype": task.dtype,
        "batch": layer.batch,
        "in_channels": layer.in_channels,
        "out_channels": layer.out_channels,
        "groups": layer.groups,
        "axes": [
            (a.input, a.taps, a.output, a.stride, a.pad_lo, a.input_dilation, a.filter_dilation)
            for a in task.problem.geometry.axes
        ],
    }
    if hasattr(module, "cuda_plan"):  # the CPU's module
        return module.plan(task.op, "auto", **problem)["kernel"]
    if capability is None:
        capability = int(jax.devices()[0].compute_capability.partition(".")[0])
    tf32 = task.arithmetic == "tf32"
    return module.plan(task.op, "auto", **problem, tf32=tf32, capability=capability)["kernel"]
