"""Checks of a page of documentation before anything on it runs; each returns a problem, or None."""

import re
import tomllib
from pathlib import Path

import page_commands
import run_page
from page_blocks import ROOT, anchors

# Blocks in other languages, and the test that reads them, which has to name the page.
READ_ELSEWHERE = {
    ("docs/derivation.md", "text"): "docs/test_derivation.py",
    ("docs/winograd.md", "text"): "docs/test_winograd_page.py",
}


def text_of(page):
    return (ROOT / page).read_text()


def follows(excerpt, lines, start):
    """The line after which the excerpt occurs, from ``start`` on, with any indentation, else None."""
    first = next((line for line in excerpt if line.strip()), "")
    for at in range(start, len(lines) - len(excerpt) + 1):
        begin = lines[at + excerpt.index(first)].removesuffix(first) if first else ""
        if not begin.strip() and all(
            line == (begin + wanted if wanted.strip() else "")
            for line, wanted in zip(lines[at:], excerpt, strict=False)
        ):
            return at + len(excerpt)
    return None


def wrong_excerpt(block):
    """The error in a block whose lines should be those of a file, or None."""
    if not (ROOT / block.title).is_file():
        return f"there is no file {block.title}"
    lines = [line.rstrip() for line in text_of(block.title).splitlines()]
    pieces = re.split(r"^\s*(?://|#)? ?(?:\.\.\.|…)\n", block.code, flags=re.MULTILINE)
    at = 0
    for piece in (piece.strip("\n").splitlines() for piece in pieces if piece.strip()):
        at = follows(piece, lines, at)
        if at is None:
            return f"{block.title} does not have these lines: {piece[0].strip()} ..."
    return None


def wrong_commands(code):
    """The errors in commands that the tests do not run, or None."""
    commands = page_commands.commands(code)
    return "; ".join(wrong for command in commands for wrong in page_commands.problems(command)) or None


def wrong_block(page, block):
    """The error in a block, which does not need to run, or None."""
    if block.title:
        return wrong_excerpt(block)
    if block.language in run_page.RUNNERS:
        return None
    if block.language == "sh":
        return wrong_commands(block.code)
    if block.language == "toml":
        try:
            tomllib.loads(block.code)
        except tomllib.TOMLDecodeError as error:
            return str(error)
        return None
    reader = READ_ELSEWHERE.get((page, block.language))
    if reader is None:
        return f"no test runs or reads a block {block.language or 'without a language'}"
    return None if Path(page).name in text_of(f"tests/{reader}") else f"{reader} does not read it"


def wrong_link(page, target):
    """The problem of a link to a file or heading of the repository."""
    path, _, anchor = target.partition("#")
    if "://" in target or path.startswith("mailto:"):
        return None
    found = (ROOT / page).parent / path if path else ROOT / page
    if not found.exists():
        return f"{target} is not there"
    if anchor and found.suffix == ".md" and anchor not in anchors(found.read_text()):
        return f"{path or page} has no heading #{anchor}"
    return None
