"""The reason why an operation stays on ``jax.lax``, which the report prints."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class OnLax:
    """An operation that stays on ``jax.lax``; ``why`` is a few words that follow "on jax.lax:"."""

    why: str
