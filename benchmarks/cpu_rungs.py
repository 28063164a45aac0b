"""Verifies and times each op of a layer on each CPU kernel that serves it.

python benchmarks/cpu_rungs.py "8x28x28x64, 3x3, 64, pad 1"
python benchmarks/cpu_rungs.py "8x56x56x3, 7x7, 64, stride 2, pad 3" --ops dgrad --threads 1

GFLOP/s counts two operations for each product in the formula. It comes from the fastest sample, since a
disturbance can only make a call slower. docs/kernels.md says what each kernel adds to the one before.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import os
import sys
from collections.abc import Sequence
from functools import partial

from harness.devices import DEVICES
from harness.devices.cpu import limit_processors
from harness.problems import Conv
from harness.tasks import Task

FAMILIES = ("pairs", "planar", "grouped", "dot", "tiled", "winograd")
KERNELS = ("reference", *(f"{family}.{isa}" for family in FAMILIES for isa in ("plain", "avx2", "avx512")))
CPU = DEVICES["cpu"]
# "winograd" transforms its operands by fractions, so its sums of integers are rounded.
ROUNDING = copy.copy(CPU)
ROUNDING.exact_peers = False
_READY = "JAX_CONVGRAD_CPU_RUNGS_READY"


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The layer, and how it is timed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("layer", help='as in "8x28x28x64, 3x3, 64, pad 1"')
    parser.add_argument("--ops", default=",".join(Conv.ops), help="default: %(default)s")
    parser.add_argument("--kernels", default=",".join(KERNELS), help="default: all")
    parser.add_argument("--threads", type=int, default=1, help="processors (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=0.6, help="of each kernel (default: %(default)s)")
    args = parser.parse_args(argv)
    args.ops = args.ops.split(",")
    if unknown := set(args.ops) - set(Conv.ops):
        parser.error(f"--ops: {', '.join(sorted(unknown))} is not one of {', '.join(Conv.ops)}")
    args.kernels = args.kernels.split(",")
    if unknown := set(args.kernels) - set(KERNELS):
        parser.error(f"--kernels: {', '.join(sorted(unknown))} is not one of {', '.join(KERNELS)}")
    if args.threads < 1 or args.seconds <= 0:
        parser.error("--threads and --seconds must be positive")
    try:
        args.problem = Conv.parse(args.layer, args.layer)
    except ValueError as error:
        parser.error(str(error))
    return args


def programs_by_kernel(task: Task, kernels: Sequence[str] = KERNELS) -> dict:
    """Compiles the task's program for each of the kernels that serves it here.

    A program keeps the kernel that its backend had when it was lowered.
    """
    import jax
    from harness import jax_programs

    from jax_convgrad.primitives import targets

    chosen, programs = targets.backends["cpu"], {}
    try:
        for kernel in kernels:
            targets.backends["cpu"] = dataclasses.replace(chosen, kernel=kernel)
            jax.clear_caches()
            program = jax_programs.compiled(task, "ours")
            if not isinstance(program, Exception):
                programs[kernel] = program
            elif "kernel" not in str(program):  # it would say: not this layer, or not on this machine
                raise program
    finally:
        targets.backends["cpu"] = chosen
        jax.clear_caches()
    return programs


def measure_op(problem: Conv, op: str, seconds: float, kernels: Sequence[str] = KERNELS) -> dict[str, float]:
    """GFLOP/s of each kernel that serves the op.

    Raises:
      VerificationError: a kernel's result is wrong.
    """
    import jax
    from harness import jax_programs

    task = Task(problem, op, "f32")
    programs = programs_by_kernel(task, kernels)
    rounding = {kernel: program for kernel, program in programs.items() if kernel.startswith("winograd")}
    exact = {kernel: program for kernel, program in programs.items() if kernel not in rounding}
    arrays = jax_programs.check(task, exact, CPU)
    if rounding:
        jax_programs.check(task, rounding, ROUNDING)
    functions = {kernel: partial(program, arrays) for kernel, program in programs.items()}
    spreads = CPU.times(functions, seconds, jax.block_until_ready)
    return {kernel: problem.flops(op) / spread["least"] / 1e9 for kernel, spread in spreads.items()}


def main() -> None:
    args = parse_arguments()
    limit_processors(args.threads)
    if _READY not in os.environ:  # libraries read these settings when the process starts
        environment = {**os.environ, **CPU.environment(args.threads), _READY: "1"}
        os.execve(sys.executable, [sys.executable, *sys.argv], environment)
    by_op = {op: measure_op(args.problem, op, args.seconds, args.kernels) for op in args.ops}
    print(f"{args.problem.text}, float32, GFLOP/s on {args.threads} of the processors:")
    print(f"{'kernel':16}" + "".join(f"{op:>10}" for op in by_op))
    for kernel in KERNELS:
        if any(kernel in rates for rates in by_op.values()):
            cells = (f"{rates[kernel]:.1f}" if kernel in rates else "-" for rates in by_op.values())
            print(f"{kernel:16}" + "".join(f"{cell:>10}" for cell in cells))


if __name__ == "__main__":
    main()
