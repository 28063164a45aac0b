"""The numbers of ``gradient_flow``, for the gradient of a parameter or of all parameters of a layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Flow:
    """The gradient g of one parameter or one layer, and the weights w that it belongs to.

    If g has a NaN or an infinity, its norm, mean and largest magnitude are NaN or infinite too.
    """

    name: str
    """The keys that lead to it in ``params``, as in "blocks/3/conv"."""
    size: int
    """The number of elements."""
    gradient_norm: float
    """‖g‖, the root of the sum of squares."""
    gradient_mean: float
    """The mean of |g|."""
    gradient_max: float
    """The largest |g|."""
    zeros: int
    """The number of elements of g that are zero."""
    nonfinite: int
    """The number of elements that are NaN or infinite."""
    weight_norm: float
    """‖w‖."""
    update_norm: float
    """‖Δw‖, the norm of the step that the optimizer makes of g."""

    @property
    def zero_share(self) -> float:
        """The share of zeros in g, 0 to 1."""
        return self.zeros / self.size if self.size else 0.0

    @property
    def update_ratio(self) -> float:
        """‖Δw‖ / ‖w‖; infinite if all weights are zero, NaN if the update is zero as well."""
        if self.weight_norm == 0:
            return math.nan if self.update_norm == 0 else self.update_norm * math.inf
        return self.update_norm / self.weight_norm


@dataclass(frozen=True)
class ParameterFlow(Flow):
    """One array of ``params``."""

    layer: str
    """The layer that it is in."""
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class LayerFlow(Flow):
    """One layer: its parameters' numbers taken together."""

    verdict: str = ""
    """One of "not finite", "dead", "vanishing", "exploding" and "": see ``FlowReport``."""

    @classmethod
    def of(cls, name: str, parts: Sequence[Flow]) -> LayerFlow:
        """The numbers of all parts as of one long array."""
        size = sum(part.size for part in parts)
        return cls(
            name=name,
            size=size,
            gradient_norm=_norm([part.gradient_norm for part in parts]),
            gradient_mean=sum(part.gradient_mean * (part.size / size) for part in parts if part.size),
            gradient_max=_largest([part.gradient_max for part in parts]),
            zeros=sum(part.zeros for part in parts),
            nonfinite=sum(part.nonfinite for part in parts),
            weight_norm=_norm([part.weight_norm for part in parts]),
            update_norm=_norm([part.update_norm for part in parts]),
        )


def _norm(parts: Sequence[float]) -> float:
    # hypot says that infinity and NaN together are infinite. To the kernels, and here, they are NaN.
    return math.nan if any(map(math.isnan, parts)) else math.hypot(*parts)


def _largest(parts: Sequence[float]) -> float:
    return math.nan if any(map(math.isnan, parts)) else max(parts)
