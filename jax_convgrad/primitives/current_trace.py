"""The trace that JAX's operations go to, and how to put another in its place.

Both functions are public since jax 0.10.0. jax 0.9 has them too, in its private module.
"""

from __future__ import annotations

import importlib
from typing import Any

from jax.extend import core

_core: Any = core if hasattr(core, "set_current_trace") else importlib.import_module("jax._src.core")

find_top_trace = _core.find_top_trace
set_current_trace = _core.set_current_trace
