"""``python -m jax_convgrad COMMAND``: what the package can tell by itself."""

from __future__ import annotations

import argparse
import importlib
import os
import re
import sys

from jax_convgrad import __version__
from jax_convgrad.source_folder import installed_elsewhere, is_source_folder

# Name to module and to what the list of commands says. Only the module of the command that is asked for is
# imported, since most need JAX, and the doctor must run without.
_COMMANDS = {
    "plan": ("jax_convgrad.instruments.plan_command", "which CPU kernel serves each op of a layer, and why"),
    "explain": (
        "jax_convgrad.instruments.explain_command",
        "which products make one element of a gradient, and why no others do",
    ),
    "doctor": (
        "jax_convgrad.instruments.doctor_command",
        "whether this machine is set up, and what to do where it is not",
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
            parser.exit(1, f"{name}: {error}\n`python -m jax_convgrad doctor` tells what to do about it.\n")
    parsed = parser.parse_args(words)
    try:
        code = parsed.run(parsed)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever reads, like head, has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return code


def _with_negative_values(words: list[str]) -> list[str]:
    """``--dx -1,2,2,0`` as ``--dx=-1,2,2,0``: argparse takes words with a minus, but for -1, for options."""
    joined: list[str] = []
    for word in words:
        before = joined[-1] if joined else ""
        if re.match(r"-\d", word) and re.fullmatch(r"--[a-z][a-z-]*", before):
            joined[-1] = f"{before}={word}"
        else:
            joined.append(word)
    return joined


def _run_what_is_installed() -> None:
    """In the clone Python has found its sources, in which nothing is built: starts anew without them."""
    # A Python too old for the package, which the doctor tells of, has not got -P either.
    can = getattr(sys.flags, "safe_path", None) is False
    if can and is_source_folder() and installed_elsewhere():
        os.execv(sys.executable, [sys.executable, "-P", *sys.orig_argv[1:]])


if __name__ == "__main__":
    _run_what_is_installed()
    sys.exit(main())
