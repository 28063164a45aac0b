"""Runs the steps of ``probe.py`` in a process of their own, so that a crash or a hang is a finding."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

MARK = "@doctor "  # begins the lines for the doctor; libraries may print others


@dataclass
class Result:
    """The value of a step, or why it has none; ``details`` is the traceback or what the process printed."""

    value: Any = None
    failure: str = ""
    details: str = ""


def look(steps: Sequence[str], timeout: float, **environment: str) -> dict[str, Result]:
    """Runs the steps with this interpreter and its ``sys.path``.

    Where a step kills the process, or takes it past ``timeout`` seconds, another process goes on after it.
    """
    command = [sys.executable, "-P", "-X", "faulthandler", "-m", "jax_convgrad.instruments.doctor.probe"]
    environment = {**os.environ, **environment, "PYTHONPATH": os.pathsep.join(sys.path)}
    results: dict[str, Result] = {}
    while remaining := [step for step in steps if step not in results]:
        try:
            done = subprocess.run(
                [*command, *remaining], capture_output=True, timeout=timeout, env=environment
            )
            code, out, err = done.returncode, done.stdout, done.stderr
            end = f"exit code {code}" if code >= 0 else f"signal {-code} ({signal.strsignal(-code)})"
        except subprocess.TimeoutExpired as error:
            end, out, err = f"no answer in {timeout:g} seconds", error.stdout or b"", error.stderr or b""
        for line in out.decode(errors="replace").splitlines():
            with contextlib.suppress(ValueError):  # cut off where the process was killed
                if line.startswith(MARK):
                    step, result = json.loads(line.removeprefix(MARK))
                    results[step] = Result(**result)
        for step in [step for step in remaining if step not in results][:1]:
            details = err.decode(errors="replace")[-4000:]
            # The last line before Python's own account of a crash often says why.
            said = details.partition("Fatal Python error")[0].strip().splitlines()[-1:]
            results[step] = Result(failure="\n".join([f"the process ended: {end}", *said]), details=details)
    return results
