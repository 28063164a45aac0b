"""The commands of the package: python -m jax_convgrad COMMAND."""

from __future__ import annotations

import argparse
import importlib
import os
import re
import sys

from jax_convgrad import __version__
from jax_convgrad.source_folder import installed_elsewhere, is_source_folder

# Maps each command to its module and its line of help. Only the module of the requested command is imported,
# because most need JAX, and the doctor has to run without it.
_COMMANDS = {
    "plan": (
        "jax_convgrad.instruments.plan_command",
        "which kernel computes each op of a layer, on a CPU or with CUDA, and why",
    ),
    "explain": (
        "jax_convgrad.instruments.explain_command",
        "which products make one element of a gradient, and why no others do",
    ),
    "doctor": (
        "jax_convgrad.instruments.doctor_command",
        "whether this machine is set up, and how to fix it if not",
    ),
}


def main(arguments: list[str] | None = None) -> int:
    """Runs the command and returns the exit code."""
    words = _with_negative_values(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(prog="python -m jax_convgrad", description=__doc__)
    parser.add_argument("--version", action="version", version=f"jax_convgrad {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (module, summary) in _COMMANDS.items():
        if words[:1] != [name]:
            commands.add_parser(name, help=summary)
            continue
        try:
            importlib.import_module(module).add_command(commands)
        except ImportError as error:
            parser.exit(1, f"{name}: {error}\n`python -m jax_convgrad doctor` reports how to fix it.\n")
    parsed = parser.parse_args(words)
    try:
        code = parsed.run(parsed)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, for instance head, has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return code


def _with_negative_values(words: list[str]) -> list[str]:
    """``--dx -1,2,2,0`` as ``--dx=-1,2,2,0``: argparse treats words with a minus, except -1, as options."""
    joined: list[str] = []
    for word in words:
        before = joined[-1] if joined else ""
        if re.match(r"-\d", word) and re.fullmatch(r"--[a-z][a-z-]*", before):
            joined[-1] = f"{before}={word}"
        else:
            joined.append(word)
    return joined


def _run_what_is_installed() -> None:
    """Restarts Python without the clone's sources, which contain no built module, if it has found those."""
    # A Python that is too old for the package, which the doctor reports, has no -P either.
    can = getattr(sys.flags, "safe_path", None) is False
    if can and is_source_folder() and installed_elsewhere():
        os.execv(sys.executable, [sys.executable, "-P", *sys.orig_argv[1:]])


if __name__ == "__main__":
    _run_what_is_installed()
    sys.exit(main())
