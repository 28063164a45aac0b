"""``python -m jax_convgrad COMMAND``: what the package can tell by itself."""

from __future__ import annotations

import argparse
import os
import sys

from jax_convgrad import plan_command
from jax_convgrad.instruments import explain_command


def main(arguments: list[str] | None = None) -> int:
    """Runs the command and returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m jax_convgrad", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in (plan_command, explain_command):
        module.add_command(commands)
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
