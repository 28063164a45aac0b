"""The rows that each device needs, compared with all the triples that the relation ties."""

import math
import random

import pytest

from jax_convgrad.geometry import Axis
from jax_convgrad.primitives.halo import split


def tied(axis):
    """Every (i, r, o) of the relation."""
    for o in range(axis.output):
        for r in range(axis.taps):
            at = o * axis.stride + r * axis.filter_dilation - axis.pad_lo
            i, rest = divmod(at, axis.input_dilation)
            if not rest and 0 <= i < axis.input:
                yield i, r, o


def rows_of(window, device):
    """The rows that a device gets: at each place of its window a row's number, or None."""
    rows = []
    for piece in window.pieces():
        source = device + piece.distance
        arrives = piece.distance == 0 or (source, device) in piece.pairs
        for row in range(piece.begin, piece.end):
            there = source * window.part + row
            rows.append(there if arrives and 0 <= source < window.parts and there < window.size else None)
    return rows[window.offsets[device] :][: window.length]


def cases():
    generator = random.Random(5)
    while True:
        size, taps, output = (generator.randint(1, n) for n in (40, 12, 40))
        steps = [generator.choice([1, 1, 1, 2, 3, 4, 7]) for _ in range(3)]
        yield Axis(size, taps, output, steps[0], generator.randint(-9, 20), *steps[1:])


CASES = [case for _, case in zip(range(400), cases(), strict=False)] + [
    Axis(64, 3, 64, 1, 1),
    Axis(64, 3, 32, 2, 0),
    Axis(8, 31, 8, 1, 15),
    Axis(5, 2, 9, 1, 0, 4, 1),
    Axis(3, 1, 1, 1, 0),
]


@pytest.mark.parametrize("parts", [2, 3, 4, 8])
def test_a_device_s_relation_ties_the_same_triples(parts):
    for axis in CASES:
        cut = split(axis, parts)
        found = set()
        for device in range(parts):
            rows = rows_of(cut.window, device)
            begin, end = cut.window.valid[device]
            for i, r, o in tied(cut.local):
                own = o - cut.shifts[device]
                if not 0 <= own < cut.counts[device] or not begin <= i < end:
                    continue
                # At a place where the window has a row, the device gets that row of the array.
                assert rows[i] == cut.window.starts[device] + i, (axis, parts, device)
                found.add((rows[i], r, device * cut.part + own))
        assert found == set(tied(axis)), (axis, parts)


@pytest.mark.parametrize("parts", [2, 4, 8])
def test_places_without_a_row_get_none(parts):
    """Such places may be zeros, unless the whole window is empty, which has_idle reports."""
    for axis in CASES:
        window = split(axis, parts).window
        for device, (begin, end) in enumerate(window.valid):
            if window.used[device] and begin < end:
                rows = rows_of(window, device)
                assert len(rows) == window.length
                assert all((rows[j] is None) == (not begin <= j < end) for j in range(window.length)), axis
            elif window.used[device]:
                assert window.has_idle


def test_no_more_is_fetched_than_the_layer_ties():
    same = split(Axis(64, 3, 64, 1, 1), 8).window
    pieces = [(p.distance, p.end - p.begin, len(p.pairs)) for p in same.pieces()]
    assert pieces == [(-1, 1, 7), (0, 8, 0), (1, 1, 7)]
    strided = split(Axis(64, 3, 32, 2, 0), 8).window  # SAME, whose one pad is high
    assert [(p.distance, p.end - p.begin) for p in strided.pieces()] == [(0, 8), (1, 1)]
    patches = split(Axis(64, 4, 16, 4, 0), 8).window
    assert [(p.distance, p.end - p.begin) for p in patches.pieces()] == [(0, 8)]
    long = split(Axis(16, 13, 16, 1, 6), 8).window  # parts of 2 rows, a halo of 6
    assert [(p.distance, p.end - p.begin) for p in long.pieces()] == [(k, 2) for k in range(-3, 4)]


def test_phases_of_the_input_dilation():
    """Parts that begin in different phases compute additional outputs, but no more than necessary."""
    for axis in CASES:
        cut = split(axis, 8)
        period = axis.input_dilation // math.gcd(axis.stride, axis.input_dilation)
        assert cut.local.output <= cut.part + period - 1
        if cut.part % period == 0:
            assert cut.local.output == cut.part
