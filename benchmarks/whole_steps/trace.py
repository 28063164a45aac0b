"""Whose time a compiled step takes: the profiler's trace, each operation with what it is."""

from __future__ import annotations

import math
import re
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax

from whole_steps.table import OURS

_CONTAINERS = {"while", "call", "conditional"}  # the operations in them have events of their own
_MOVES = {"parameter", "copy", "transpose", "bitcast", "reshape", "convert", "tuple", "get-tuple-element"}
_INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?([\w.-]+) = (\(.*?\)|\S+) ([\w-]+)\(")
_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.-]+) \(.*\{\s*$")
_NORM = re.compile(r"/(?:\w+_)?(?:bn|norm)\d*/")


@dataclass
class Operation:
    """An instruction of the optimised program, with what a fusion has inside."""

    name: str
    shape: str
    opcodes: set[str]
    scopes: list[str]  # the traced operations that it came from
    target: str = ""
    calls: list[str] = field(default_factory=list)

    def kind(self) -> str:
        """The row of the table that counts it."""
        if self.target.startswith("jax_convgrad"):
            return OURS
        if self.opcodes & {"convolution"} or "conv" in self.target:
            return "convolutions"
        if self.opcodes & {"reduce-window", "select-and-scatter"}:
            return "pooling"
        if self.opcodes & {"dot"} or "matmul" in self.target or "dot" in self.target:
            return "matrix products"
        if self.opcodes <= _MOVES:
            return "copies"
        if any(_NORM.search(scope) for scope in self.scopes):
            return "norms"
        if self.scopes and not any("jvp(" in scope for scope in self.scopes):
            return "optimizer"
        return "reductions" if "reduce" in self.opcodes else "element-wise"

    def origin(self) -> str:
        """The pass, the layer without its numbers and the traced operation, such as "backward: bn mul"."""
        parts = [
            part for scope in self.scopes[:1] for part in scope.split("/") if not part.startswith("jit(")
        ]
        if not parts:
            return " ".join(sorted(self.opcodes))
        passes = {"transpose(jvp(": "backward", "jvp(": "forward"}
        which = next((name for start, name in passes.items() if parts[0].startswith(start)), "update")
        named = [re.sub(r"_?[0-9]+(?=_|$)", "", part) for part in parts[1:][-2:] or parts]
        return f"{which}: {' '.join(named)}"


def operations(program: str) -> dict[str, Operation]:
    """The instructions of a program's text, by name."""
    computations: dict[str, list[Operation]] = {}
    inside: list[Operation] = []
    for line in program.splitlines():
        if begun := _COMPUTATION.match(line):
            inside = computations.setdefault(begun[1], [])
        elif found := _INSTRUCTION.match(line):
            target = re.search(r'custom_call_target="([^"]*)"', line)
            scope = re.search(r'op_name="([^"]*)"', line)
            calls = re.findall(r"(?:calls|to_apply|body)=%?([\w.-]+)", line)
            inside.append(
                Operation(
                    found[1], found[2].partition("{")[0], {found[3]}, [scope[1]] if scope else [],
                    target[1] if target else "", calls if found[3] == "fusion" else [],
                )
            )  # fmt: skip
    for instructions in computations.values():
        for operation in instructions:
            for name in operation.calls:
                for part in computations[name]:
                    operation.opcodes |= part.opcodes
                    operation.scopes += part.scopes
            if operation.calls:
                operation.opcodes -= {"fusion"}
    return {operation.name: operation for of in computations.values() for operation in of}


@dataclass(frozen=True)
class Span:
    """When an operation ran, in seconds, in which execution of the program."""

    run: int
    name: str
    start: float
    end: float


def spans(file: Path, known: dict[str, Operation]) -> list[Span]:
    """The operations' spans in a trace.

    An operation that runs on other threads may return before it is done; then a second event tells its end.
    """
    begun: dict[Any, tuple[int, str, float, float]] = {}
    ended: dict[Any, float] = {}
    for plane in jax.profiler.ProfileData.from_file(str(file)).planes:
        for line in plane.lines:
            for event in line.events:
                stats = dict(event.stats)
                if "hlo_op" in stats and stats["hlo_op"] in known:
                    key = stats.get("_p", (len(begun),))
                    begun[key] = (
                        stats["run_id"], stats["hlo_op"], event.start_ns, event.start_ns + event.duration_ns
                    )  # fmt: skip
                elif event.name.startswith("end: "):
                    ended[stats.get("_c")] = event.start_ns
    return [
        Span(run, name, start / 1e9, max(end, ended.get(key, end)) / 1e9)
        for key, (run, name, start, end) in begun.items()
        if not known[name].opcodes & _CONTAINERS
    ]


def shares(of_run: Iterable[Span]) -> dict[str, float]:
    """Seconds by operation; those that run at the same time share it, so the sum is what the clock shows."""
    marks = sorted(
        (time, starts, span.name) for span in of_run for time, starts in ((span.start, 1), (span.end, 0))
    )
    seconds: dict[str, float] = defaultdict(float)
    running: list[str] = []
    before = 0.0
    for time, starts, name in marks:
        for other in running:
            seconds[other] += (time - before) / len(running)
        if starts:
            running.append(name)
        else:
            running.remove(name)
        before = time
    return dict(seconds)


def profile(program: str, run: Callable[[], object], calls: int, shown: int = 15) -> dict[str, Any]:
    """What a run spends on what: the least time of each operation in ``calls`` runs.

    Returns:
      ``seconds`` (of all operations), ``kinds`` (seconds and count by kind) and ``largest`` (the groups of
      operations of one kind and origin that take longest: seconds, count, and one of them with its shape).
    """
    known = operations(program)
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder, profiler_options=options):
            for _ in range(calls):
                run()
        (file,) = Path(folder).rglob("*.xplane.pb")
        by_run: dict[int, list[Span]] = defaultdict(list)
        for span in spans(file, known):
            by_run[span.run].append(span)
    if not by_run:
        return {}
    of_runs = [shares(of_run) for of_run in by_run.values()]
    seconds = {name: min(of.get(name, math.inf) for of in of_runs) for name in of_runs[0]}
    kinds: dict[str, dict[str, float]] = defaultdict(lambda: {"seconds": 0.0, "count": 0})
    groups: dict[tuple[str, str], dict[str, Any]] = {}
    for name in sorted(seconds, key=seconds.__getitem__, reverse=True):
        operation = known[name]
        kind, origin = operation.kind(), operation.origin()
        named = {"kind": kind, "origin": origin, "example": f"{name} {operation.shape}"}
        group = groups.setdefault((kind, origin), {**named, "seconds": 0.0, "count": 0})
        for of in (kinds[kind], group):
            of["seconds"] += seconds[name]
            of["count"] += 1
    return {
        "seconds": sum(seconds.values()),
        "kinds": dict(sorted(kinds.items(), key=lambda item: -item[1]["seconds"])),
        "largest": sorted(groups.values(), key=lambda group: -group["seconds"])[:shown],
    }
