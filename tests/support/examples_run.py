"""Runs the examples' command lines as a user would: each script copied alone into an empty folder."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"


def run_example(name, *arguments, **environment):
    """The finished process of `python NAME.py ARGUMENTS`, where nothing else of the examples is at hand."""
    with tempfile.TemporaryDirectory() as folder:
        script = shutil.copy(EXAMPLES / f"{name}.py", folder)
        return subprocess.run(
            [sys.executable, script, *map(str, arguments)],
            cwd=folder,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=300,
            env={**os.environ, **environment},
        )
