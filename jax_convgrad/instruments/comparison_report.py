"""The findings of ``compare_with_lax``, and their tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from jax_convgrad.instruments.convolutions_found import Found, Times
from jax_convgrad.instruments.verdict import Report
from jax_convgrad.table import Table


@dataclass(frozen=True)
class ParameterRow:
    """One parameter's gradient both ways.

    Attributes:
      name: the place in params' tree, as in ``params['w']``.
      shape: the shape of the parameter.
      dtype: the dtype of the parameter.
      largest: max |lax|, the gradient's largest entry.
      difference: max |ours − lax|, in ulps of that entry.
      our_error: max |ours − float64|, in the same; None where there is no gradient in float64.
      lax_error: max |lax − float64|.
      verdict: "ok", "WRONG", "not finite" or "not finite on lax".
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    largest: float
    difference: float
    our_error: float | None
    lax_error: float | None
    verdict: str


@dataclass(frozen=True)
class LaxComparison(Report):
    """Loss, gradients and times on our kernels and on ``lax``.

    Attributes:
      loss: ours and lax's.
      loss_roundings: their difference, in ulps of the larger.
      loss_verdict: "ok", "WRONG" or "not finite".
      parameters: one row for each.
      convolutions: each kind of convolution in the model, how often a forward pass runs it, and its times by
        "forward", "dX" and "dW"; no times with ``repeats=0``.
      step: times of loss and gradients together, or None.
      notes: remarks, in sentences.
    """

    loss: tuple[float, float]
    loss_roundings: float
    loss_verdict: str
    parameters: tuple[ParameterRow, ...]
    convolutions: tuple[tuple[Found, int, Mapping[str, Times]], ...]
    step: Times | None
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Reports whether the loss and every parameter's gradient are as right as lax's."""
        return self.loss_verdict == "ok" and all(row.verdict == "ok" for row in self.parameters)

    @property
    def _parameters(self) -> Table:
        with_exact = any(row.our_error is not None for row in self.parameters)
        numbers = ("largest", "ours - lax", *(("ours - f64", "lax - f64") if with_exact else ()))
        rows = [
            (
                row.name,
                f"{row.dtype}[{','.join(map(str, row.shape))}]",
                f"{row.largest:.2g}",
                _ulps(row.difference),
                *((_ulps(row.our_error), _ulps(row.lax_error)) if with_exact else ()),
                row.verdict,
            )
            for row in self.parameters
        ]
        return Table(("parameter", "array", *numbers, "verdict"), rows, frozenset(numbers))

    @property
    def _convolutions(self) -> Table:
        ops = ("forward", "dX", "dW") if any(times for *_, times in self.convolutions) else ()
        numbers = ("runs", *(name for op in ops for name in (op, f"{op} on lax", "lax/ours")))
        rows = []
        for found, count, times in self.convolutions:
            extra = [word for word, there in (("bias", found.bias), ("relu", found.relu)) if there]
            cells = [
                cell
                for op in ops
                for cell in (_seconds(times[op].ours), _seconds(times[op].lax), f"{times[op].ratio:.2f}")
            ]
            rows.append((found.text, str(found.dtype), " ".join(extra), str(count), *cells))
        return Table(("convolution", "dtype", "with", *numbers), rows, frozenset(numbers))

    def _head(self) -> list[str]:
        ours, by_lax = self.loss
        wrong = sum(row.verdict != "ok" for row in self.parameters)
        faults = [f"{wrong} of {len(self.parameters)} gradients not ok"] if wrong else []
        faults += [f"loss {self.loss_verdict}"] if self.loss_verdict != "ok" else []
        verdict = "; ".join(faults) or "the kernels agree with lax"
        lines = [f"{verdict}; loss {ours:.8g}, on lax {by_lax:.8g}: {_ulps(self.loss_roundings)} ulps"]
        if self.step is not None:
            lines.append(
                f"loss and gradients take {_seconds(self.step.ours)}, on lax {_seconds(self.step.lax)}: "
                f"lax/ours {self.step.ratio:.2f}"
            )
        return lines

    def _blocks(self) -> Iterator[str | Table]:
        yield "\n".join(self._head())
        yield "Gradients, errors in ulps:"
        yield self._parameters
        if self.convolutions:
            yield "Convolutions:"
            yield self._convolutions
        if self.notes:
            yield "\n".join(self.notes)


def _ulps(number: float | None) -> str:
    if number is None:
        return ""
    return f"{number:.1f}" if number < 1000 else f"{number:.1e}"


def _seconds(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e6:.3g} us"
