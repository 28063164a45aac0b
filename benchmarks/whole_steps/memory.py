"""What a process keeps in memory, where Linux tells."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from pathlib import Path


def growth(run: Callable[[], object]) -> int | None:
    """By how many bytes resident memory is larger at its peak during ``run`` than before; None if unknown.

    What the allocator keeps of freed memory is given back first, or the peak would hide in it.
    """
    if not sys.platform.startswith("linux"):
        return None
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the peak is what is resident now
    except OSError:
        return None
    before = _status("VmRSS")
    run()
    return _status("VmHWM") - before


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(f"{name}:"))
    return 1024 * int(line.split()[1])
