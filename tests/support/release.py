"""Says what is left to do before a tag may be released: python tests/support/release.py v0.1.0.

It needs nothing but Python, since the workflow calls it before anything is installed.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def the_version(root: Path) -> str:
    """The package's version, from the one place that says it."""
    return re.search(r'^__version__ = "(.+)"$', (root / "jax_convgrad" / "__init__.py").read_text(), re.M)[1]


def faults(tag: str, root: Path = ROOT) -> Iterator[str]:
    """What does not agree with the tag, in sentences."""
    version = the_version(root)
    if tag != f"v{version}":
        yield f"The tag is {tag}, and jax_convgrad.__version__ is {version}."
    changes = (root / "CHANGELOG.md").read_text()
    released = re.search(rf"^## \[{re.escape(version)}\] - (\d{{4}}-\d\d-\d\d)$", changes, re.M)
    if not released:
        yield f'CHANGELOG.md has no heading "## [{version}] - DATE": rename "Unreleased", begin a new one.'
    citation = (root / "CITATION.cff").read_text()
    if f"\nversion: {version}\n" not in citation:
        yield f"CITATION.cff is not about {version}."
    if released and f"\ndate-released: {released[1]}\n" not in citation:
        yield f'CITATION.cff has no line "date-released: {released[1]}".'


if __name__ == "__main__":
    sys.exit("\n".join(faults(sys.argv[1])))
