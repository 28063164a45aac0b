"""What is measured on a device, and in which order, for a run that may end at any time.

A task is one op of one layer in one arithmetic. Tasks are ordered so that whatever has been measured covers
every class of layers: the first layer of each class in bf16, then the second ones and the first ones in TF32,
and so on.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from problems import KINDS, Bias, Conv, Pool, Problem

# What a call says: dtype and precision. TF32 is what float32 is multiplied in at lax's DEFAULT precision.
ARITHMETICS = {
    "bf16": ("bfloat16", "default"),
    "tf32": ("float32", "default"),
    "f32": ("float32", "highest"),
    "f64": ("float64", "highest"),
}
# Nothing is multiplied in pooling and the bias gradient.
_WITHOUT_PRODUCTS = ("bf16", "f32")
WEAK = ("grouped", "depthwise", "dilated", "transposed", "few channels", "1-D", "3-D")
_LATE = 100
_WORKING_SET = 2**28  # bytes that one program touches: some times what the second-level cache of a GPU holds


@dataclass(frozen=True)
class Task:
    """One op of one layer in one arithmetic."""

    problem: Problem
    op: str
    arithmetic: str
    most_copies: int = 16

    @property
    def key(self) -> str:
        return f"{self.problem.name} {self.op} {self.arithmetic}"

    @property
    def dtype(self) -> str:
        return ARITHMETICS[self.arithmetic][0]

    @property
    def bytes(self) -> int:
        """Of operands and result, each once."""
        return self.problem.elements(self.op) * (
            2 if self.dtype == "bfloat16" else np.dtype(self.dtype).itemsize
        )

    @property
    def copies(self) -> int:
        """How many calls, each on operands of its own, one program makes.

        Enough that nothing is found in the cache that the call before left there, and that starting the
        program is little against running it.
        """
        return min(math.ceil(_WORKING_SET / self.bytes), self.most_copies)

    def to_json(self) -> dict:
        return {
            "kind": self.problem.kind,
            "name": self.problem.name,
            "text": self.problem.text,
            "op": self.op,
            "arithmetic": self.arithmetic,
            "most_copies": self.most_copies,
        }

    @classmethod
    def from_json(cls, entry: dict) -> Task:
        problem = KINDS[entry["kind"]].parse(entry["name"], entry["text"])
        return cls(problem, entry["op"], entry["arithmetic"], entry["most_copies"])


def classes(problem: Problem) -> list[str]:
    """What the layer counts as: pooling, bias, one or several of WEAK, else dense; or one image."""
    match problem:
        case Pool():
            return ["pooling"]
        case Bias():
            return ["bias"]
        case Conv():
            pass
    layer, axes = problem.layer, problem.geometry.axes
    if layer.batch == 1:
        return ["one image"]
    found = {
        "grouped": 1 < layer.groups < layer.in_channels,
        "depthwise": layer.groups > 1 and layer.groups == layer.in_channels,
        "dilated": any(axis.filter_dilation > 1 for axis in axes),
        "transposed": layer.transposed,
        "few channels": layer.groups == 1 and layer.in_channels <= 4,
        "1-D": len(axes) == 1,
        "3-D": len(axes) == 3,
    }
    return [name for name in WEAK if found[name]] or ["dense"]


def plan(
    problems: Iterable[Problem], ops: Sequence[str], arithmetics: Sequence[str], most_copies: int = 16
) -> list[Task]:
    """All tasks, the most telling ones first."""
    of_class: Counter[str] = Counter()
    ranked = []
    for problem in problems:
        place = min(of_class[name] for name in classes(problem))
        of_class.update(classes(problem))
        if "one image" in classes(problem):  # no goal is about these
            place += _LATE
        known = [a for a in ARITHMETICS if isinstance(problem, Conv) or a in _WITHOUT_PRODUCTS]
        for later, arithmetic in enumerate(known):
            if arithmetic in arithmetics:
                for op in problem.ops:
                    if op in ops:
                        ranked.append((place + later, Task(problem, op, arithmetic, most_copies)))
    return [
        task for _, task in sorted(ranked, key=lambda pair: pair[0])
    ]  # sorting keeps what is equal in order
