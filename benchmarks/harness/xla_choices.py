"""Counts the kernels that XLA uses for an op, from the HLO of its optimised program.

A program names the functions of cuDNN and cuBLAS that it calls. Everything else is an XLA fusion, whose
name here lists the instructions in it that move or reduce whole arrays.
"""

from __future__ import annotations

import re
from collections import Counter

# In a type, even a tuple's, no word after a space is followed by a bracket.
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?[\w.-]+ = .*? ([a-z][\w-]*)\(.*$", re.MULTILINE)
_TARGET = re.compile(r'custom_call_target="([^"]+)"')
_CALLED = re.compile(r"calls=%?([\w.-]+)")
_LIBRARY = re.compile(r'"kind":"(__[^"]+)"')  # the backend of a fusion that cuDNN or Triton compiles
# Instructions that name a fusion: they rearrange, widen or sum an array, or are the op itself.
_TELLING = (
    "convolution", "dot", "pad", "transpose", "reverse", "concatenate", "gather", "scatter", "reduce",
    "reduce-window", "select-and-scatter",
)  # fmt: skip
# Instructions that run no kernel.
_FREE = {
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "opt-barrier", "after-all", "iota",
    "async-done", "copy-done",
}  # fmt: skip


def kernels(text: str, calls: int = 1) -> dict[str, float]:
    """Counts each kernel that one call of the op runs, in a program that makes ``calls`` calls.

    Raises:
      ValueError: the text has no entry computation.
    """
    entry = _instructions(text, "ENTRY ")
    if not entry:
        raise ValueError("the text is not an HLO module: it has no ENTRY computation")
    counts = Counter(_name(instruction, text) for instruction in entry if instruction[1] not in _FREE)
    return {name: round(count / calls, 2) for name, count in counts.most_common()}


def _instructions(text: str, start: str) -> list[re.Match]:
    """The instructions of the computation whose first line begins with ``start``."""
    found = re.search(rf"^{start}.*?^}}", text, re.MULTILINE | re.DOTALL)
    return list(_INSTRUCTION.finditer(found[0])) if found else []


def _name(instruction: re.Match, text: str) -> str:
    line, opcode = instruction[0], instruction[1]
    target, called = _TARGET.search(line), _CALLED.search(line)
    if target:
        return target[1]
    if opcode not in ("fusion", "async-start") or not called:
        return opcode
    inside = {match[1] for match in _instructions(text, rf"%?{re.escape(called[1])} ")}
    telling = [name for name in _TELLING if name in inside] or ["elementwise"]
    library = _LIBRARY.search(line)
    return f"{library[1] if library else 'fusion'} ({', '.join(telling)})"


def text_of(counts: dict[str, float]) -> str:
    """The counts as a table's cell."""
    return " + ".join(name if count == 1 else f"{count:g} x {name}" for name, count in counts.items())
