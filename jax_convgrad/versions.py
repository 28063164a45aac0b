"""The versions of JAX that the package is for. Imports nothing, for the doctor's sake."""

from __future__ import annotations

import re

LOWEST_JAX = (0, 9, 1)
"""The least jax and jaxlib: the native modules are compiled with its FFI headers (pyproject.toml)."""

NEWEST_TESTED_JAX = (0, 12)


def numbers(version: str) -> tuple[int, ...]:
    """The first three; of release candidates too: the third number of "0.11.0rc1" is 0."""
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


def text(version: tuple[int, ...]) -> str:
    """As it is written: (0, 9, 1) is "0.9.1"."""
    return ".".join(map(str, version))
