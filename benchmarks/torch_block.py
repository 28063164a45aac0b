"""Starts PyTorch's process and reads what it measured."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

from problems import Problem
from verification import VerificationError


def installed() -> bool:
    """Whether PyTorch can be measured."""
    return find_spec("torch") is not None


def run(
    problems: Sequence[Problem],
    ops: Sequence[str],
    training: dict | None,
    settings: dict,
    progress: Callable[[dict], None],
) -> list[dict]:
    """What torch_peer.py says: {name, op, seconds by memory format, or unsupported}, and {training}.

    Raises:
      VerificationError: a result of PyTorch's is wrong, so that it solves another problem.
      RuntimeError: its process ended early.
    """
    request = {
        "problems": [
            {"kind": p.kind, "name": p.name, "text": p.text, "ops": [op for op in p.ops if op in ops]}
            for p in problems
        ],
        "training": training,
        **settings,
    }
    command = [sys.executable, str(Path(__file__).parent / "torch_peer.py")]
    entries = []
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        json.dump(request, process.stdin)
        process.stdin.close()
        for line in process.stdout:
            entry = json.loads(line)
            if "wrong" in entry:
                process.kill()
                raise VerificationError(entry["wrong"])
            entries.append(entry)
            progress(entry)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with status {process.returncode}")
    return entries


def faster(seconds: dict[str, dict]) -> dict:
    """The memory format with the smaller median."""
    layout = min(seconds, key=lambda name: seconds[name]["median"])
    return {**seconds[layout], "layout": layout}
