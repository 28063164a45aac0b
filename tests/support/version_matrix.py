"""The table of what is tested, tests/versions.toml, for the page, the workflows and scripts.

    python tests/support/version_matrix.py --write         # writes the table into docs/versions.md
    python tests/support/version_matrix.py --jobs          # the workflow's jobs, as JSON
    python tests/support/version_matrix.py --jax lowest    # a version of jax

It needs nothing but Python, since `.ci/run` and workflows call it before anything is installed.
"""

from __future__ import annotations

import argparse
import json
import re
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "versions.md"
TABLE = re.compile(r"^\| Python \|.*\n(?:\|.*\n)+", re.MULTILINE)
PLACES = {
    ".ci/run": "[.ci/run](../.ci/run)",
    "workflow": "[workflow](../.github/workflows/tests.yml)",
    "by hand": "by hand",
}

MATRIX = tomllib.loads((ROOT / "tests" / "versions.toml").read_text())


def jax_version(name: str) -> str:
    """The version that "lowest" or "newest" stands for; any other name is a version."""
    return MATRIX["jax"].get(name, name)


def table() -> str:
    """The page's table."""
    lines = ["| Python | jax | platform | what is tested | where |", "|---|---|---|---|---|"]
    for row in MATRIX["tested"]:
        jax = row.get("jax", "")
        named = f"{jax_version(jax)} ({jax})" if jax in MATRIX["jax"] else jax
        where = ", ".join(PLACES[place] for place in row["where"])
        tests = f"{row['tests']}: `make {row['target']}`"
        lines.append(f"| {row.get('python', '')} | {named} | {row['platform']} | {tests} | {where} |")
    return "\n".join(lines) + "\n"


def jobs() -> list[dict[str, Any]]:
    """The workflow's jobs, one for each row with a runner."""
    return [
        {
            "name": f"{row['platform']}, Python {row['python']}, jax {jax_version(row['jax'])}",
            "runner": row["runner"],
            "python": row["python"],
            "jax": jax_version(row["jax"]),
            "target": row["target"],
        }
        for row in MATRIX["tested"]
        if "runner" in row
    ]


def main() -> None:
    """Prints what the options ask for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    asked = parser.add_mutually_exclusive_group(required=True)
    asked.add_argument("--write", action="store_true", help="write the table into docs/versions.md")
    asked.add_argument("--jobs", action="store_true", help="print the workflow's jobs as JSON")
    asked.add_argument("--jax", choices=MATRIX["jax"], help="print this version of jax")
    options = parser.parse_args()
    if options.write:
        PAGE.write_text(TABLE.sub(lambda _: table(), PAGE.read_text()))
    elif options.jobs:
        print(json.dumps(jobs()))
    else:
        print(jax_version(options.jax))


if __name__ == "__main__":
    main()
