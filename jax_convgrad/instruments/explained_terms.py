"""What ``explain`` finds out, which text and picture show."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from jax_convgrad.instruments.terms import Terms


@dataclass(frozen=True)
class ExplainedTerms:
    """The terms of one element and, where there are arrays, their numbers: see ``Explanation``."""

    terms: Terms
    arrays: dict[str, Any]
    values: np.ndarray | None = None
    total: Any = None
    kernel: tuple[str, Any] | None = None
