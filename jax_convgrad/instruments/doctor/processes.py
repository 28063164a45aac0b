"""Looks at what may crash or hang from a process of its own, and says how that ended.

The process tells each step that it begins and ends on a line of its standard output, so that of one that is
killed it is known what it was doing.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from typing import Any

MARK = "@doctor "
"""Begins the lines that are meant for the doctor; libraries print others."""

_PROGRAM = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from jax_convgrad.instruments.doctor import probe; probe.main(sys.argv[2:])"
)


@dataclass
class Failure:
    """Why a step did not finish: an exception, or the end of its process.

    ``raised`` is the exception's type, ``missing`` the module of a ModuleNotFoundError, ``signal`` the name
    of what killed the process, ``said`` the last line that it wrote to standard error.
    """

    message: str
    raised: str = ""
    missing: str = ""
    signal: str = ""
    timed_out: bool = False
    said: str = ""

    def __str__(self) -> str:
        """In a line or two."""
        if self.raised:
            return f"{self.raised}: {self.message}"
        return "\n".join(filter(None, [self.message, self.said]))


@dataclass
class Outcome:
    """What each step of a process told, or why it did not finish; "start" is what comes before the first."""

    steps: dict[str, Any] = field(default_factory=dict)
    failures: dict[str, Failure] = field(default_factory=dict)
    stderr: str = ""

    def as_facts(self) -> dict[str, Any]:
        """For the JSON report."""
        failures = {step: vars(failure) for step, failure in self.failures.items()}
        return {**vars(self), "failures": failures}


def look(*task: str, timeout: float, environment: dict[str, str] | None = None) -> Outcome:
    """Runs one of probe.py's tasks with this interpreter and its ``sys.path``; ``timeout`` in seconds."""
    # Where the interpreter was told to leave site-packages out, so is the other.
    flags = ["-S"] if sys.flags.no_site else []
    command = [sys.executable, *flags, "-X", "faulthandler", "-c", _PROGRAM, json.dumps(sys.path), *task]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout,
            env={**os.environ, **(environment or {})},
        )
        code, out, err = done.returncode, done.stdout, done.stderr
    except subprocess.TimeoutExpired as expired:
        code, out, err = None, expired.stdout or b"", expired.stderr or b""
    outcome, under_way = _read(out.decode(errors="replace"))
    outcome.stderr = err.decode(errors="replace")[-4000:]
    if not under_way and (code == 0 or outcome.failures):
        return outcome
    # Before Python's own account of a crash.
    words = outcome.stderr.split("Fatal Python error")[0].splitlines()
    failure = Failure(
        f"the process ended with exit code {code}",
        said=next((line.strip() for line in reversed(words) if line.strip()), ""),
    )
    if code is None:
        failure.timed_out, failure.message = True, f"no answer within {timeout:.0f} seconds"
    elif code < 0:
        failure.signal = _signal_name(-code)
        failure.message = f"the process was killed by {failure.signal}"
    outcome.failures[under_way or "start"] = failure
    return outcome


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _read(output: str) -> tuple[Outcome, str]:
    """What was told, and the step that had begun last if it did not end."""
    outcome, under_way = Outcome(), ""
    for line in output.splitlines():
        _, mark, text = line.partition(MARK)
        if not mark:
            continue
        try:
            told = json.loads(text)
        except ValueError:  # cut off where the process was killed
            continue
        if "begin" in told:
            under_way = told["begin"]
        elif "done" in told:
            outcome.steps[told["done"]], under_way = told["told"], ""
        else:
            outcome.failures[under_way or "start"], under_way = Failure(**told), ""
    return outcome, under_way
