"""The problems to measure: the built-in set, a user's file, a choice by patterns of names, growing layers."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path

from harness.problems import KINDS, Conv, Problem

BUILT_IN = Path(__file__).parents[1] / "shapes.toml"


def read_layers(path: Path) -> list[Problem]:
    """The problems of a TOML file: lists ``conv``, ``pool``, ``bias`` of tables {name, layer, source}.

    Raises:
      ValueError: an entry has another form; the message names file and entry.
    """
    try:
        tables = tomllib.loads(path.read_text())
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path}: {error}") from None
    problems: list[Problem] = []
    for kind, entries in tables.items():
        if kind not in KINDS or not isinstance(entries, list):
            raise ValueError(f"{path}: {kind!r} should be a list called conv, pool or bias")
        for number, entry in enumerate(entries, 1):
            where = f"{path}: entry {number} of {kind}"
            if not isinstance(entry, dict) or not {"name", "layer"} <= set(entry) <= {
                "name",
                "layer",
                "source",
            }:
                raise ValueError(f"{where} should have name, layer and perhaps source")
            if not all(isinstance(value, str) for value in entry.values()):
                raise ValueError(f"{where} should have text for each value")
            try:
                problems.append(KINDS[kind].parse(entry["name"], entry["layer"], entry.get("source", "")))
            except ValueError as error:
                raise ValueError(f"{where} ({entry['name']}): {error}") from None
    names = [problem.name for problem in problems]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{path}: the name {name!r} is given twice")
    return problems


def select(problems: Iterable[Problem], patterns: Iterable[str]) -> list[Problem]:
    """The problems whose names match one of the patterns, as file names match in a shell.

    Raises:
      ValueError: a pattern matches nothing.
    """
    problems = list(problems)
    chosen: set[str] = set()
    for pattern in patterns:
        matching = {problem.name for problem in problems if fnmatchcase(problem.name, pattern)}
        if not matching:
            known = ", ".join(problem.name for problem in problems)
            raise ValueError(f"no layer is called {pattern!r}; there are: {known}")
        chosen |= matching
    return [problem for problem in problems if problem.name in chosen]


def scaling_series() -> dict[str, list[Problem]]:
    """A 3x3 layer that grows in one number at a time; its time per FLOP should not change."""
    return {
        "batch": [
            Conv.parse(f"3x3.64.n{n}", f"{n}x28x28x64, 3x3, 64, pad 1") for n in (1, 2, 4, 8, 16, 32, 64)
        ],
        "channels": [
            Conv.parse(f"3x3.c{c}", f"8x14x14x{c}, 3x3, {c}, pad 1") for c in (32, 64, 128, 256, 512)
        ],
    }
