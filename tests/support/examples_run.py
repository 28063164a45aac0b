"""Helpers for the tests of the examples: they import the modules and run the command lines as a user does."""

import os
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"
sys.path.insert(0, str(EXAMPLES))


def run_example(name, *arguments, **environment):
    """The finished process of `python examples/NAME.py ARGUMENTS`."""
    return subprocess.run(
        [sys.executable, str(EXAMPLES / f"{name}.py"), *map(str, arguments)],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=300,
        env={**os.environ, **environment},
    )
