"""The choice that ``install()`` makes for exported programs: ``lax``'s own rules or the kernels."""

from __future__ import annotations

from typing import Any

_with_kernels = False


def set_with_kernels(with_kernels: bool) -> bool:
    """Sets whether exported programs call the kernels, and returns whether that is a change."""
    global _with_kernels
    changed = with_kernels != _with_kernels
    _with_kernels = with_kernels
    return changed


def stays_on_lax(ctx: Any) -> bool:
    """Reports whether this context lowers for an export that has to run without this package."""
    lowering = getattr(ctx.module_context, "lowering_parameters", None)
    return not _with_kernels and getattr(lowering, "for_export", False)
