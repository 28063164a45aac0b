"""What the processes that measure on a device have in common: the check of a result, and how they report."""

from __future__ import annotations

import json

from device_plan import Task
from problems import Conv
from verification import verify

QUEUED = 0.01  # seconds of work that are queued before a wait
_MOST_PRODUCTS = 2_000_000  # of a verification, in float64 on one of the host's cores
# TF32 keeps 10 bits of a factor, and a library may cut the others off.
_TF32_EPS = 2.0**-9
# A library that adds up in 16 bits, which the bounds on ours do not allow, still has to be about right.
_COARSE_EPS = 2.0**-5


def check_result(task: Task, operands, result, integers: bool, library: str) -> None:
    """Sampled elements against float64 sums: equal where the operands are integers.

    Raises:
      VerificationError: the result is wrong.
    """
    coarse = task.dtype == "bfloat16" and library != "ours"
    products_eps = 0.0
    if coarse:
        products_eps = _COARSE_EPS
    elif task.arithmetic == "tf32" and isinstance(task.problem, Conv) and not integers:
        products_eps = _TF32_EPS
    verify(
        task.problem, task.op, operands, result, integers and not coarse, library,
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
