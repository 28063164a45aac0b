"""Says what is left to do before a tag may be released: python tests/support/release.py v0.1.0.

It needs nothing but Python, since the workflow calls it before anything is installed.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# What the texts say of a package that PyPI does not have.
UNPUBLISHED = re.compile(
    r"(?:not|nowhere) (?:yet )?published|(?:not|nowhere) (?:been )?(?:published|released) yet"
    r"|until (?:it is|they are) published|nothing has been released",
    re.IGNORECASE,
)
# The pages that say how to install the package, and a line that takes it from PyPI, perhaps with an extra.
INSTALLING = ("README.md", "docs/doctor.md")
FROM_PYPI = re.compile(r"""^pip install ["']?jax_convgrad(?:\[(?!cuda)\w+\])?["']?(?:\s|$)""", re.MULTILINE)


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
    for file, sentence in unpublished(root):
        yield f'{file} says "{sentence}", which is false once it is released.'
    for file in INSTALLING:
        if not FROM_PYPI.search((root / file).read_text()):
            yield f'{file} installs from a clone alone: add a line "pip install jax_convgrad".'


def unpublished(root: Path = ROOT) -> Iterator[tuple[str, str]]:
    """The sentences that say that the package is not released, each with its file."""
    for path in [*sorted(root.glob("*.md")), *sorted(root.glob("docs/**/*.md"))]:
        text = " ".join(path.read_text().split())
        for sentence in re.split(r"(?<=[.:;|]) ", text):
            if UNPUBLISHED.search(sentence):
                yield str(path.relative_to(root)), sentence


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tag", help="such as v0.1.0")
    sys.exit("\n".join(faults(parser.parse_args().tag)))
