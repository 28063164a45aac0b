"""Tasks, each one op of one layer in one arithmetic, and their order if the time is limited."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from harness.problems import KINDS, Bias, Conv, Pool, Problem

OPS = ("fprop", "dgrad", "wgrad", "bgrad", "fprop+dgrad")
# A call's dtype and precision. At lax's DEFAULT precision float32 is multiplied in TF32.
ARITHMETICS = {
    "bf16": ("bfloat16", "default"),
    "tf32": ("float32", "default"),
    "f32": ("float32", "highest"),
    "f64": ("float64", "highest"),
    "f16": ("float16", "default"),
}
_OF_PRODUCTS = ("tf32", "f64")  # pooling and the bias gradient multiply nothing
WEAK = ("grouped", "depthwise", "dilated", "transposed", "few channels", "1-D", "3-D")
CLASSES = ("dense", *WEAK, "one image", "pooling", "bias")
_LATE = 100
_WORKING_SET = 2**28  # bytes that one program touches: several times the size of a GPU's second-level cache


@dataclass(frozen=True)
class Task:
    """One op of one layer in one arithmetic."""

    problem: Problem
    op: str
    arithmetic: str
    most_copies: int = 1

    @property
    def key(self) -> str:
        return f"{self.problem.name} {self.op} {self.arithmetic}"

    @property
    def dtype(self) -> str:
        return ARITHMETICS[self.arithmetic][0]

    @property
    def item_bytes(self) -> int:
        return 2 if self.dtype == "bfloat16" else np.dtype(self.dtype).itemsize

    @property
    def bytes(self) -> int:
        """The bytes of the operands and the result, each counted once."""
        return self.problem.elements(self.op) * self.item_bytes

    @property
    def copies(self) -> int:
        """The number of calls, each on its own operands, that one program makes.

        It is so large that no call finds its operands in the cache, and that starting the program costs
        little compared with running it.
        """
        return min(math.ceil(_WORKING_SET / self.bytes), self.most_copies)

    def to_json(self) -> dict:
        problem = self.problem
        return {
            "problem": [problem.kind, problem.name, problem.text],
            "rest": [self.op, self.arithmetic, self.most_copies],
        }

    @classmethod
    def from_json(cls, entry: dict) -> Task:
        kind, name, text = entry["problem"]
        return cls(KINDS[kind].parse(name, text), *entry["rest"])

    def entry(self) -> dict:
        """The task's entry in the results, before anything is measured."""
        return {
            "name": self.problem.name,
            "kind": self.problem.kind,
            "op": self.op,
            "arithmetic": self.arithmetic,
            "layer": self.problem.text,
            "source": self.problem.source,
            "classes": classes(self.problem),
            "flops": self.problem.flops(self.op),
            "bytes": self.bytes,
            "copies": self.copies,
            "seconds": {},
            "unsupported": {},
            "problems": [],
        }


def classes(problem: Problem) -> list[str]:
    """The layer's classes: pooling, bias, one image, one or several of WEAK, else dense."""
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
    problems: Iterable[Problem], ops: Sequence[str], arithmetics: Sequence[str], most_copies: int = 1
) -> list[Task]:
    """All tasks, layer by layer."""
    return [
        Task(problem, op, arithmetic, most_copies)
        for problem in problems
        for arithmetic in ARITHMETICS
        if arithmetic in arithmetics and (isinstance(problem, Conv) or arithmetic not in _OF_PRODUCTS)
        for op in problem.ops
        if op in ops
    ]


def most_telling_first(tasks: Sequence[Task]) -> list[Task]:
    """Orders tasks so that a run that stops at any time has covered every class of layers.

    The first layer of each class in bf16 comes first, then the second ones and the first ones in TF32, and
    so on.
    """
    of_class: Counter[str] = Counter()
    place = {}
    for problem in dict.fromkeys(task.problem for task in tasks):
        names = classes(problem)
        # No goal applies to a single image.
        place[problem] = min(of_class[name] for name in names) + (_LATE if "one image" in names else 0)
        of_class.update(names)
    rank = list(ARITHMETICS).index
    return sorted(tasks, key=lambda task: place[task.problem] + rank(task.arithmetic))
