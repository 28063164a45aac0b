"""The versions of JAX that the package supports. The doctor needs this module without JAX."""

from __future__ import annotations

import re

LOWEST_JAX = (0, 9, 1)
"""The lowest jax and jaxlib: the native modules are compiled with their FFI headers (pyproject.toml)."""

NEWEST_TESTED_JAX = (0, 12)


def numbers(version: str) -> tuple[int, ...]:
    """The first three numbers of a version, also of a release candidate: "0.11.0rc1" is (0, 11, 0)."""
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


def text(version: tuple[int, ...]) -> str:
    """A version as text: (0, 9, 1) is "0.9.1"."""
    return ".".join(map(str, version))
