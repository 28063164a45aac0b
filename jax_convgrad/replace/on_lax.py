"""What is left to ``jax.lax``, with the reason: said where the decision is made, read by the report."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class OnLax:
    """An operation of ``jax.lax`` that stays there, and why: a few words that follow "on jax.lax:"."""

    why: str
