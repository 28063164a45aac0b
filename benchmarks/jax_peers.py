"""Our kernels and jax.lax, interleaved in this process: verified, compared with each other, timed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import jax
import numpy as np
from jax_ops import jitted
from problems import Pool, Problem, integer_operands, normal_operands
from timing import measure
from verification import VerificationError, verify


def run(
    problems: Sequence[Problem], ops: Sequence[str], libraries: Sequence[str], dtype: str, budget: float
) -> Iterator[tuple[Problem, str, dict[str, dict[str, float]]]]:
    """Yields each problem, op, and every library's times.

    Raises:
      VerificationError: a library's result is wrong, or ours is another than lax's.
    """
    for problem in problems:
        wanted = [op for op in problem.ops if op in ops]
        if not wanted:
            continue
        integers = integer_operands(problem, jax.numpy.dtype(dtype))
        numbers = normal_operands(problem, jax.numpy.dtype(dtype))
        device_numbers = jax.device_put(numbers)
        for op in wanted:
            functions = {library: jitted(problem, op, library) for library in libraries}
            verify_libraries(problem, op, functions, integers, numbers)
            calls = {
                library: partial(_wait_for, function, device_numbers)
                for library, function in functions.items()
            }
            yield problem, op, measure(calls, budget)


def _wait_for(function, operands):
    return jax.block_until_ready(function(**operands))


def verify_libraries(problem: Problem, op: str, functions, integers, numbers) -> None:
    """Sampled elements against float64, and where lax is among the libraries all of ours against lax's.

    Raises:
      VerificationError: something is wrong.
    """
    wide = integers[next(iter(integers))].dtype in (np.float32, np.float64)
    for operands, exact in ((integers, True), (numbers, False)):
        results = {library: jax.device_get(f(**operands)) for library, f in functions.items()}
        for library, result in results.items():
            # lax may round its partial sums to a 16-bit type.
            if library == "ours" or wide:
                verify(problem, op, operands, result, exact, library)
        if exact and wide and {"ours", "lax"} <= set(results):
            pairs = zip(jax.tree.leaves(results["ours"]), jax.tree.leaves(results["lax"]), strict=True)
            # The mean's division is the one step that integers do not make exact.
            slack = 1e-6 if isinstance(problem, Pool) and problem.reduction == "avg" else 0
            for ours, lax in pairs:
                if not np.allclose(ours, lax, rtol=0, atol=slack):
                    wrong = np.sum(ours != lax)
                    raise VerificationError(
                        f"{op} of {problem.name} ({problem.text}): {wrong} elements differ from jax.lax's"
                    )
