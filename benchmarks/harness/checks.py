"""Checks a library's result: ours must be exact on integers, a peer's may differ by its rounding."""

from __future__ import annotations

from harness.devices.device import Device
from harness.problems import Conv
from harness.tasks import Task
from harness.verification import verify

# The relative error of a product: TF32 keeps 10 bits of a factor, and the other 13 may be cut off.
_TF32_EPS = 2.0**-9
# A peer may accumulate in 16 bits, or transform its operands by fractions that are not exact, as Winograd's
# algorithm does. The bounds on ours do not allow that, but the result still has to be about right.
_PEER_EPS = {"bf16": 2.0**-5, "f16": 2.0**-5, "tf32": 2.0**-8, "f32": 2.0**-10, "f64": 2.0**-30}


def peer_eps(task: Task, device: Device) -> float:
    """The relative error of a peer's product; 0 where its sums of integers are exact."""
    return 0.0 if device.exact_peers and task.item_bytes > 2 else _PEER_EPS[task.arithmetic]


def check_result(task: Task, device: Device, operands, result, integers: bool, library: str) -> None:
    """Compares sampled elements with float64 sums: ours are equal where the operands are integers.

    Raises:
      VerificationError: the result is wrong.
    """
    eps = 0.0 if library == "ours" else peer_eps(task, device)
    exact = integers and eps == 0
    if library == "ours" and task.arithmetic == "tf32" and isinstance(task.problem, Conv) and not integers:
        eps = _TF32_EPS
    verify(
        task.problem, task.op, operands, result, exact, library,
        operands_eps=eps, most_products=device.most_products,
    )  # fmt: skip


def first_line(error: Exception) -> str:
    """The error's type and first line."""
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"[:300]
