"""What the processes that measure on a device have in common: the check of a result, and how they report."""

from __future__ import annotations

import json

from device_plan import Task
from problems import Conv
from verification import verify

LONGEST = 1.0  # seconds of samples of a function, however few they are
QUEUED = 0.01  # seconds of work that are queued before a wait
_MOST_PRODUCTS = 2_000_000  # of a verification, in float64 on one of the host's cores
# How far off a product may be, relative to it: TF32 keeps 10 bits of a factor, and 13 may be cut off.
_TF32_EPS = 2.0**-9
# A peer may add up in 16 bits, or transform its operands, as Winograd's algorithm does, by fractions that
# are not exact: no bound on ours allows that, but it still has to be about right.
_PEER_EPS = {"bf16": 2.0**-5, "tf32": 2.0**-8, "f32": 2.0**-10, "f64": 2.0**-30}


def check_result(task: Task, operands, result, integers: bool, library: str) -> None:
    """Sampled elements against float64 sums: ours are equal where the operands are integers.

    Raises:
      VerificationError: the result is wrong.
    """
    exact, products_eps = integers and library == "ours", 0.0
    if library != "ours":
        products_eps = _PEER_EPS[task.arithmetic]
    elif task.arithmetic == "tf32" and isinstance(task.problem, Conv) and not integers:
        products_eps = _TF32_EPS
    verify(
        task.problem, task.op, operands, result, exact, library,
        operands_eps=products_eps, most_products=_MOST_PRODUCTS,
    )  # fmt: skip


def of_one_call(spread: dict[str, float], calls: int) -> dict[str, float]:
    """Times of a program that makes so many calls, as times of one."""
    return {name: value if name == "samples" else value / calls for name, value in spread.items()}


def first_line(error: Exception) -> str:
    """What it says, in short."""
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"[:300]


def tell(**entry) -> None:
    """One line of JSON, at once."""
    print(json.dumps(entry), flush=True)
