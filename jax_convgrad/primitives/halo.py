"""The rows that each device needs if an axis is split into parts, in plain integers.

XLA splits an axis of ``size`` rows into as many parts as there are devices, of ceil(size / parts) rows each:
the last parts are smaller, or empty. Where input and output positions are tied by

    o * stride + r * filter_dilation - pad_lo  =  i * input_dilation          (the relation)

and device j computes its part of the outputs, the inputs that those are tied to are one window of rows. The
windows of all devices are of one length, and so is the relation within them, because every device runs the
same program; only where they begin differs. A window begins in a device's own part of the inputs or in
another's, and whatever of it lies in other parts is its halo.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from jax_convgrad.geometry import Axis


def part_size(size: int, parts: int) -> int:
    """The number of rows of each part, except that the last ones may have fewer."""
    return -(-size // parts)


@dataclass(frozen=True)
class Piece:
    """Rows that come from the part ``distance`` after a device's own: ``begin`` to ``end`` of that part."""

    distance: int
    begin: int
    end: int
    pairs: tuple[tuple[int, int], ...]
    """(source, target) of every transfer; a device that is not a target has no use for the rows."""


@dataclass(frozen=True)
class Window:
    """``length`` rows from row ``starts[j]`` for device j, out of ``size`` rows in ``len(starts)`` parts.

    A window may begin before the first row and end after the last one. ``used`` says for each device
    whether it has a result at all.
    """

    size: int
    length: int
    starts: tuple[int, ...]
    used: tuple[bool, ...]

    @property
    def parts(self) -> int:
        """The number of parts that the rows are split into."""
        return len(self.starts)

    @property
    def part(self) -> int:
        """The number of rows of a part."""
        return part_size(self.size, self.parts)

    @property
    def valid(self) -> tuple[tuple[int, int], ...]:
        """For each device the rows of its window that exist: from the first number to before the second."""
        return tuple(
            (min(max(-start, 0), self.length), min(max(self.size - start, 0), self.length))
            if used
            else (0, 0)
            for start, used in zip(self.starts, self.used, strict=True)
        )

    @property
    def span(self) -> tuple[int, int]:
        """The rows that are put together, counted from the first of a device's own part.

        They hold the window of every device that needs a row. A device that needs no row takes any.
        """
        relative = [
            start - j * self.part
            for j, (start, (begin, end)) in enumerate(zip(self.starts, self.valid, strict=True))
            if begin < end
        ]
        if not relative:
            return 0, self.length
        return min(relative), max(relative) + self.length

    @property
    def offsets(self) -> tuple[int, ...]:
        """The place within ``span`` at which each device's window begins."""
        low, high = self.span
        last = high - low - self.length
        return tuple(min(max(start - j * self.part - low, 0), last) for j, start in enumerate(self.starts))

    @property
    def has_idle(self) -> bool:
        """Says whether a device with results needs no row at all, so that no row that it takes counts."""
        return any(used and begin >= end for used, (begin, end) in zip(self.used, self.valid, strict=True))

    def pieces(self) -> Iterator[Piece]:
        """The pieces of ``span``, in the order of the rows."""
        low, high = self.span
        part = self.part
        for distance in range(low // part, -(-high // part)):
            begin, end = max(low - distance * part, 0), min(high - distance * part, part)
            targets = [j for j in range(self.parts) if distance and self._needs(j, j + distance)]
            yield Piece(distance, begin, end, tuple((j + distance, j) for j in targets))

    def _needs(self, device: int, source: int) -> bool:
        first, last = (self.starts[device] + end for end in self.valid[device])
        return max(first, source * self.part) < min(last, (source + 1) * self.part)


@dataclass(frozen=True)
class Split:
    """An axis split into parts, as the device that computes a part of the outputs sees it.

    The first outputs of the parts may be in different phases of the input dilation. Then each device begins
    some outputs earlier: ``shifts[j]`` of ``local``'s outputs come before device j's own.
    """

    axis: Axis
    local: Axis
    window: Window
    shifts: tuple[int, ...]

    @property
    def part(self) -> int:
        """The number of outputs of a part."""
        return part_size(self.axis.output, len(self.shifts))

    @property
    def counts(self) -> tuple[int, ...]:
        """The number of outputs of each device's part, without what fills up a smaller one."""
        return tuple(
            min(max(self.axis.output - j * self.part, 0), self.part) for j in range(len(self.shifts))
        )


def split(axis: Axis, parts: int) -> Split:
    """The axis with inputs and outputs in ``parts`` parts each; the axis has at least one of either."""
    part = part_size(axis.output, parts)
    # Outputs whose relation has the same phase are this far apart.
    period = axis.input_dilation // math.gcd(axis.stride, axis.input_dilation)
    used = tuple(j * part < axis.output for j in range(parts))
    shifts = tuple(j * part % period if used[j] else 0 for j in range(parts))
    outputs = part + max(shifts)
    # The first input that an output 0 can be tied to, and the last that the part's last one can be.
    first = -(axis.pad_lo // axis.input_dilation)
    reach = (outputs - 1) * axis.stride + (axis.taps - 1) * axis.filter_dilation - axis.pad_lo
    length = max(reach // axis.input_dilation - first + 1, 1)
    starts = tuple(
        (j * part - shifts[j]) * axis.stride // axis.input_dilation + first if used[j] else 0
        for j in range(parts)
    )
    local = Axis(
        input=length,
        taps=axis.taps,
        output=outputs,
        stride=axis.stride,
        pad_lo=axis.pad_lo + first * axis.input_dilation,
        input_dilation=axis.input_dilation,
        filter_dilation=axis.filter_dilation,
    )
    return Split(axis, local, Window(axis.input, length, starts, used), shifts)
