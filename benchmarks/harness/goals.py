"""The goals of the CUDA kernels, as ratios to peers and shares of the peaks, and whether a run meets them."""

from __future__ import annotations

from dataclasses import dataclass

from harness.summary import bound, geometric_mean, key, measured, ratios, share
from harness.tasks import WEAK

_IN_MEMORY = ("depthwise", "pooling", "bias")


@dataclass(frozen=True)
class Goal:
    """A bound on the geometric mean of ratios to a peer, and optionally on the smallest ratio.

    It applies to the ops in one arithmetic and in some classes; None and () mean all.
    """

    name: str
    peer: str
    least_mean: float
    arithmetic: str | None = None
    classes: tuple[str, ...] = ()
    least: float | None = None

    def is_about(self, entry: dict) -> bool:
        """Whether the goal applies to the entry."""
        of_class = not self.classes or bool({*entry["classes"]} & {*self.classes})
        return of_class and self.arithmetic in (None, entry["arithmetic"])


GOALS = (
    Goal("bf16, dense", "lax", 1.0, "bf16", ("dense",), 0.8),
    Goal("f32 DEFAULT (TF32), dense", "lax", 1.0, "tf32", ("dense",)),
    Goal("f32 HIGHEST, dense", "lax", 1.0, "f32", ("dense",)),
    Goal("f64, dense", "lax", 1.0, "f64", ("dense",)),
    Goal("classes where cuDNN is weak", "lax", 3.0, None, WEAK),
    Goal("everything", "deterministic", 1.3),
)


def goals(results: dict) -> list[tuple[Goal, list[float], bool | None]]:
    """Each goal, the ratios that it applies to, and whether it is met; None if nothing was measured."""
    found = []
    for goal in GOALS:
        values = ratios([entry for entry in measured(results) if goal.is_about(entry)], goal.peer)
        met = None
        if values:
            met = geometric_mean(values) >= goal.least_mean and min(values) >= (goal.least or 0.0)
        found.append((goal, values, met))
    return found


def share_goals(results: dict) -> list[tuple[str, list[tuple[str, float]]]]:
    """The ops that should reach 70 % of a peak: the goal's name, and each op with its share."""
    entries = measured(results)
    if not results["peaks"]:
        return []
    dense = [e for e in entries if e["arithmetic"] == "bf16" and "dense" in e["classes"]]
    rows = [
        ("bf16 dense, bound by arithmetic: share of the matrix rate",
         [e for e in dense if bound(e, results)[0] == "arithmetic"]),
        *((f"{name}: share of the copy rate", [e for e in entries if name in e["classes"]])
          for name in _IN_MEMORY),
    ]  # fmt: skip
    return [(name, [(key(e), share(e, results)) for e in chosen]) for name, chosen in rows]
