"""PyTorch's part, a program of its own: a JSON request on stdin, one JSON line per measurement on stdout.

PyTorch's OpenMP threads go on spinning for a while after a call and would slow down whatever JAX runs next,
so it gets a process to itself, and the machine.
"""

from __future__ import annotations

import json
import sys
import time

import numpy as np
import torch
import torch_ops
import torch_training
from problems import KINDS, integer_operands, normal_operands
from timing import measure
from verification import VerificationError, verify

_PAUSE = 2.0  # seconds, until whatever ran before has come to rest


def main() -> None:
    request = json.load(sys.stdin)
    torch.set_num_threads(request["threads"])
    torch.set_grad_enabled(False)
    time.sleep(_PAUSE)
    for entry in request["problems"]:
        problem = KINDS[entry["kind"]].parse(entry["name"], entry["text"])
        integers, numbers = (
            make(problem, np.dtype("float32")) for make in (integer_operands, normal_operands)
        )
        for op in entry["ops"]:
            tell(name=problem.name, op=op, **measured(problem, op, integers, numbers, request))
    if request["training"]:
        tell(training=torch_training.run(request["training"], request["budget"]))


def measured(problem, op, integers, numbers, request) -> dict:
    """Times by memory format, after a check of each result; or why there are none."""
    dtype = getattr(torch, request["dtype"])
    wide = dtype in (torch.float32, torch.float64)
    try:
        if wide:
            for operands, exact in ((integers, True), (numbers, False)):
                for layout, call in torch_ops.calls(problem, op, operands).items():
                    verify(problem, op, operands, call.result(call.run()), exact, f"torch {layout}")
        calls = torch_ops.calls(problem, op, numbers, dtype)
        return {"seconds": measure({layout: call.run for layout, call in calls.items()}, request["budget"])}
    except torch_ops.UnsupportedError as reason:
        return {"unsupported": str(reason)}
    except VerificationError as error:
        return {"wrong": str(error)}


def tell(**entry) -> None:
    print(json.dumps(entry), flush=True)


if __name__ == "__main__":
    main()
