"""Counts the instructions per multiply-add of hot kernels, and fails if a count has increased.

python benchmarks/instructions.py            # compare with benchmarks/instructions.toml
python benchmarks/instructions.py --update   # write the counts into it
python benchmarks/instructions.py --clang    # the same for the kernels that clang compiled

The kernels run in a separate program, cpu_kernels/run_kernel in build/dev or build/clang; `make instructions`
and `make test-clang` build it first.

Unlike times, counts are the same on a busy machine. `perf stat` counts if the system permits it, otherwise
valgrind's callgrind, which knows AVX2 but not AVX-512: so both count AVX2 on x86-64.
"""

from __future__ import annotations

import argparse
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable
from pathlib import Path

from harness.problems import Bias, Conv, Pool, Problem

BUILD = Path(__file__).parent.parent / "build"
COUNTS = Path(__file__).with_suffix(".toml")
MARGIN = 1.1  # allows for another compiler's choices
ISA = "avx2" if platform.machine() in ("x86_64", "AMD64") else "plain"
_WHOLE_AXIS = (1, 1, 1, 1, 0, 1, 1)

Counter = Callable[[list[str]], int]


def perf(command: list[str]) -> int:
    """The instructions that a process executes in user space.

    Raises:
      RuntimeError: perf is not installed, or the system does not permit it to count.
    """
    if shutil.which("perf") is None:
        raise RuntimeError("perf is not installed")
    ran = subprocess.run(
        ["perf", "stat", "-x", ",", "-e", "instructions:u", "--", *command], capture_output=True, text=True
    )
    for line in ran.stderr.splitlines():
        count, *rest = line.split(",")
        if ran.returncode == 0 and "instructions" in ",".join(rest) and count.isdigit():
            return int(count)
    raise RuntimeError(f"perf stat cannot count here: {ran.stderr.strip()}")


def callgrind(command: list[str]) -> int:
    """The instructions of a process, which valgrind executes one by one.

    Raises:
      RuntimeError: valgrind is not installed, or it met an instruction that it does not know.
    """
    if shutil.which("valgrind") is None:
        raise RuntimeError("valgrind is not installed")
    with tempfile.TemporaryDirectory() as folder:
        out = f"--callgrind-out-file={folder}/out"
        ran = subprocess.run(["valgrind", "--tool=callgrind", out, *command], capture_output=True, text=True)
    counted = re.search(r"Collected : (\d+)", ran.stderr)
    if ran.returncode or counted is None:
        raise RuntimeError(f"valgrind failed: {ran.stderr.strip()[-1000:]}")
    return int(counted[1])


def working_counter(program: list[str]) -> Counter:
    """Chooses perf if it can count, else callgrind.

    Raises:
      RuntimeError: neither works; the message has both reasons.
    """
    reasons = []
    for counter in (perf, callgrind):
        try:
            counter(program)
            return counter
        except RuntimeError as reason:
            reasons.append(str(reason))
    raise RuntimeError("; ".join(reasons))


def arguments(problem: Problem, op: str, runs: int) -> list[str]:
    """The program's arguments for one of the problem's native ops."""
    if isinstance(problem, Bias):
        batch, *spatial, channels = problem.dy_shape
        axes = [(size, 1, size, *_WHOLE_AXIS[3:]) for size in spatial]
        numbers = [batch, channels, channels, channels]
    else:
        layer = problem.layer
        axes = [
            (a.input, a.taps, a.output, a.stride, a.pad_lo, a.input_dilation, a.filter_dilation)
            for a in layer.geometry.axes
        ]
        numbers = [layer.batch, layer.in_channels, layer.out_channels, layer.groups]
    axes = [_WHOLE_AXIS] * (3 - len(axes)) + axes
    return [op, ISA, str(runs), *(str(number) for number in [*numbers, *(n for axis in axes for n in axis)])]


def multiply_adds(problem: Problem, op: str) -> int:
    """A convolution's products; the taps of a pooling; the elements of a bias gradient."""
    return problem.flops("fprop") // (2 if isinstance(problem, Conv) else 1)


def read_entry(entry: dict) -> tuple[Problem, str]:
    """The problem and the native op in one line of the file."""
    op = entry["op"]
    kind = Bias if op == "bgrad" else Pool if "pool" in op else Conv
    return kind.parse(entry["layer"], entry["layer"]), op


def count(program: Path, counter: Counter, problem: Problem, op: str) -> float:
    """The instructions per multiply-add of one run."""
    one, three = (counter([str(program), *arguments(problem, op, runs)]) for runs in (1, 3))
    return (three - one) / 2 / multiply_adds(problem, op)


def write(entries: list[dict]) -> None:
    """The text of the file, with one line per entry."""
    head = [line for line in COUNTS.read_text().splitlines() if line.startswith("#")]
    lines = [
        "  { "
        + ", ".join(
            f'{key} = "{value}"' if isinstance(value, str) else f"{key} = {value}"
            for key, value in entry.items()
        )
        + " },"
        for entry in entries
    ]
    COUNTS.write_text("\n".join([*head, "", "counts = [", *lines, "]", ""]))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clang", action="store_true", help="count what clang compiled, instead of g++")
    parser.add_argument("--program", type=Path, help="the path of another run_kernel")
    parser.add_argument("--update", action="store_true", help="write the counts instead of comparing them")
    args = parser.parse_args()
    key = f"{ISA}_clang" if args.clang else ISA
    folder = BUILD / ("clang" if args.clang else "dev")
    program = args.program or folder / "cpu_kernels" / "run_kernel"
    if not program.exists():
        sys.exit(
            f"{program} does not exist: `make {'test-clang' if args.clang else 'instructions'}` builds it"
        )
    entries = tomllib.loads(COUNTS.read_text())["counts"]
    try:
        counter = working_counter([str(program), *arguments(*read_entry(entries[0]), 0)])
    except RuntimeError as error:
        sys.exit(f"this machine cannot count instructions: {error}")
    failures = 0
    for entry in entries:
        problem, op = read_entry(entry)
        counted = count(program, counter, problem, op)
        allowed = entry.get(key)
        verdict = "  UNKNOWN" if allowed is None else "" if counted <= allowed * MARGIN else "  MORE"
        print(f"{op:14} {problem.text:50} {counted:8.3f}  ({allowed} {key}){verdict}", flush=True)
        failures += bool(verdict)
        if args.update:
            entry[key] = round(counted, 3)
    if args.update:
        write(entries)
    elif failures:
        sys.exit(
            f"{failures} kernels take more than {MARGIN} times the instructions they took, or have no count "
            "to compare with"
        )


if __name__ == "__main__":
    main()
