"""``python -m jax_convgrad COMMAND``: what the package can tell by itself."""

from __future__ import annotations

import argparse
import importlib
import os
import sys

# Name to module and to what the list of commands says. Only the module of the command that is asked for is
# imported, since most need JAX, and the doctor must run without.
_COMMANDS = {
    "plan": ("jax_convgrad.plan_command", "which CPU kernel serves each op of a layer, and why"),
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
    words = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(prog="python -m jax_convgrad", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (module, summary) in _COMMANDS.items():
        if words[:1] != [name]:
            commands.add_parser(name, help=summary)
            continue
        try:
            importlib.import_module(module).add_command(commands)
        except ImportError as error:
            parser.exit(1, f"{name}: {error}\n`python -m jax_convgrad doctor` tells what to do about it.\n")
    parsed = parser.parse_args(arguments)
    try:
        code = parsed.run(parsed)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever reads, like head, has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return code


if __name__ == "__main__":
    sys.exit(main())
