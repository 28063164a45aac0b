"""The code blocks, commands, links and headings of a page of documentation, as GitHub reads it."""

import re
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from markdown_it import MarkdownIt

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    str(path.relative_to(ROOT))
    for pattern in ("*.md", "docs/**/*.md", "benchmarks/**/*.md", "packaging/*.md", "tests/**/*.md")
    for path in ROOT.glob(pattern)
)
PAGES.remove("docs/performance/notes.md")  # docs/performance.md contains all of it


class Block(NamedTuple):
    """A code block."""

    language: str  # "" if the block is indented or names no language
    title: str  # of an excerpt, else ""
    line: int  # the first line of the code
    code: str  # with "..." where the page allows a difference


# A comment before a block: patterns, one per line, of text that may differ on another machine.
MAY_DIFFER = re.compile(r"<!-- may differ:\n(.*?)-->\s*", re.DOTALL)


@cache
def _tokens(text):
    return MarkdownIt("commonmark").enable("table").parse(text)


def _inline(text):
    """The pair (line, token) of everything in paragraphs, headings and table cells."""
    line = 0
    for token in _tokens(text):
        line = token.map[0] + 1 if token.map else line
        for child in token.children or ():
            yield line, child


def blocks(text):
    """The code blocks of a page, in order."""
    found, patterns = [], []
    for token in _tokens(text):
        if token.type == "html_block" and (differing := MAY_DIFFER.fullmatch(token.content)):
            patterns = differing[1].split("\n")[:-1]
        elif token.type == "code_block":
            found.append(Block("", "", token.map[0] + 1, token.content))
        elif token.type == "fence":
            language = token.info.split(maxsplit=1)[0] if token.info.strip() else ""
            title = re.search(r'title="([^"]*)"', token.info)
            code = _abridged(token.content, patterns)
            found.append(Block(language, title[1] if title else "", token.map[0] + 2, code))
            patterns = []
    return found


def _abridged(code, patterns):
    for pattern in patterns:
        code, count = re.subn(pattern, "...", code, flags=re.DOTALL | re.MULTILINE)
        if not count:
            raise ValueError(f"nothing in the block may differ as {pattern!r} says:\n{code}")
    return code


def code_spans(text):
    """The pair (line, text) of each code span."""
    return [(line, token.content) for line, token in _inline(text) if token.type == "code_inline"]


def links(text):
    """The pair (line, target) of each link and picture."""
    found = [(line, token.attrs.get("href") or token.attrs.get("src")) for line, token in _inline(text)]
    return [(line, target) for line, target in found if target]


def anchors(text):
    """The anchors that GitHub gives to the headings."""
    found, tokens = set(), _tokens(text)
    for token, inline in pairwise(tokens):
        if token.type == "heading_open":
            words = "".join(child.content for child in inline.children).lower()
            found.add(re.sub(r"[^\w\- ]", "", words).replace(" ", "-"))
    return found
