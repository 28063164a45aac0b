"""Times each op of a layer on each of the CPU kernels that serve it, asked for by name, verified first.

python benchmarks/cpu_rungs.py "8x28x28x64, 3x3, 64, pad 1"
python benchmarks/cpu_rungs.py "8x56x56x3, 7x7, 64, stride 2, pad 3" --ops dgrad --threads 1

GFLOP/s counts two for each product that the formula has, and is of the fastest call, since what disturbs a
call can only make it slower. docs/kernels.md says what each kernel has that the one before has not.
"""

from __future__ import annotations

import argparse
import os
import sys
import time

import machine
from problems import Conv

OPS = ("fprop", "dgrad", "wgrad")
KERNELS = (
    "reference",
    *(
        f"{family}.{isa}"
        for family in ("pairs", "planar", "grouped", "dot", "tiled")
        for isa in ("plain", "avx2", "avx512")
    ),
)
_READY = "JAX_CONVGRAD_CPU_RUNGS_READY"


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The layer, and how it is timed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("layer", help='as in "8x28x28x64, 3x3, 64, pad 1"')
    parser.add_argument("--ops", default=",".join(OPS), help="default: %(default)s")
    parser.add_argument("--threads", type=int, default=1, help="processors (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=0.6, help="of each kernel (default: %(default)s)")
    args = parser.parse_args(argv)
    args.ops = args.ops.split(",")
    if unknown := set(args.ops) - set(OPS):
        parser.error(f"--ops: {', '.join(sorted(unknown))} is none of {', '.join(OPS)}")
    if args.threads < 1 or args.seconds <= 0:
        parser.error("--threads and --seconds must be positive")
    try:
        args.problem = Conv.parse(args.layer, args.layer)
    except ValueError as error:
        parser.error(str(error))
    return args


def functions_by_kernel(problem: Conv, op: str, operands: dict) -> dict:
    """The op as a jitted function on each kernel that serves it here.

    A compiled program keeps the kernel that its backend named when it was lowered.
    """
    import dataclasses

    import jax
    from jax_ops import jitted

    from jax_convgrad.primitives import ffi

    chosen, functions = ffi.backends["cpu"], {}
    try:
        for kernel in KERNELS:
            ffi.backends["cpu"] = dataclasses.replace(chosen, kernel=kernel)
            jax.clear_caches()
            try:
                functions[kernel] = jitted(problem, op, "ours").lower(**operands).compile()
            except ValueError as refused:  # not this layer, or not on this machine
                if "kernel" not in str(refused):
                    raise
    finally:
        ffi.backends["cpu"] = chosen
        jax.clear_caches()
    return functions


def measure_op(problem: Conv, op: str, seconds: float) -> dict[str, float]:
    """GFLOP/s of each kernel that serves the op.

    Raises:
      VerificationError: a kernel's result is wrong.
    """
    import jax
    import jax.numpy as jnp
    from jax_peers import verify_libraries
    from problems import integer_operands, normal_operands

    integers, numbers = (make(problem, jnp.dtype("float32")) for make in (integer_operands, normal_operands))
    operands = jax.device_put(numbers)
    functions = functions_by_kernel(problem, op, operands)
    verify_libraries(problem, op, functions, integers, numbers)

    fastest = dict.fromkeys(functions, float("inf"))
    end = time.perf_counter() + seconds * len(functions)
    while time.perf_counter() < end:
        for kernel, function in functions.items():
            jax.block_until_ready(function(**operands))  # finds the caches as another kernel left them
            start = time.perf_counter()
            jax.block_until_ready(function(**operands))
            fastest[kernel] = min(fastest[kernel], time.perf_counter() - start)
    return {kernel: problem.flops(op) / time / 1e9 for kernel, time in fastest.items()}


def main() -> None:
    args = parse_arguments()
    machine.limit_processors(args.threads)
    if _READY not in os.environ:  # libraries read these settings when the process starts
        environment = {**os.environ, **machine.environment(args.threads), _READY: "1"}
        os.execve(sys.executable, [sys.executable, *sys.argv], environment)
    by_op = {op: measure_op(args.problem, op, args.seconds) for op in args.ops}
    print(f"{args.problem.text}, float32, GFLOP/s on {args.threads} of the processors:")
    print(f"{'kernel':16}" + "".join(f"{op:>10}" for op in by_op))
    for kernel in KERNELS:
        if any(kernel in rates for rates in by_op.values()):
            cells = (
                f"{rates[kernel]:10.1f}" if kernel in rates else f"{'-':>10}" for rates in by_op.values()
            )
            print(f"{kernel:16}" + "".join(cells))


if __name__ == "__main__":
    main()
