"""What ``install()`` puts into programs that ``jax.export`` exports: ``lax``'s own rules, or the kernels."""

from __future__ import annotations

from typing import Any

_with_kernels = False


def set_with_kernels(with_kernels: bool) -> bool:
    """Sets what exported programs are to have; whether that is another thing than before."""
    global _with_kernels
    changed = with_kernels != _with_kernels
    _with_kernels = with_kernels
    return changed


def stays_on_lax(ctx: Any) -> bool:
    """Whether what is lowered in this context is for export, and to run where this package may be missing."""
    lowering = getattr(ctx.module_context, "lowering_parameters", None)
    return not _with_kernels and getattr(lowering, "for_export", False)
