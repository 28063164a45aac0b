"""The relation of one axis, solved for each value of the letter that runs, or why it has no solution."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from jax_convgrad.geometry import Axis, dilated


@dataclass(frozen=True)
class Candidate:
    """One value of the letter that runs along an axis, and the solution of the relation for it.

    One of ``i``, ``r`` and ``o`` is the element's own, one runs and one is solved for. If the relation has no
    solution, that one is -1 and ``miss`` has the reason.
    """

    i: int
    r: int
    o: int
    miss: str = ""


def along_axis(axis: Axis, letter: str, at: int) -> Iterator[Candidate]:
    """The candidates along an axis whose ``letter`` is ``at``: one a tap, or for a tap one an output."""
    for running in range(axis.output if letter == "r" else axis.taps):
        if letter == "i":
            yield _output(axis, at, running)
        elif letter == "o":
            yield _input(axis, running, at)
        else:
            yield _input(axis, at, running)


def _output(axis: Axis, i: int, r: int) -> Candidate:
    terms = _outputs_sum(axis, i, r)
    reach = i * axis.input_dilation + axis.pad_lo - r * axis.filter_dilation
    o, rest = divmod(reach, axis.stride)
    if rest:
        return Candidate(i, r, -1, f"{_over(terms, axis.stride)} leaves a remainder")
    if 0 <= o < axis.output:
        return Candidate(i, r, o)
    side = "before the first output" if o < 0 else f"past the last output, {axis.output - 1}"
    return Candidate(i, r, -1, f"{_over(terms, axis.stride)} = {o} is {side}")


def _input(axis: Axis, r: int, o: int) -> Candidate:
    terms = _inputs_sum(axis, r, o)
    reach = o * axis.stride + r * axis.filter_dilation - axis.pad_lo
    i, rest = divmod(reach, axis.input_dilation)
    quotient = _over(terms, axis.input_dilation) + ("" if rest else f" = {i}")
    if reach < 0 or reach >= dilated(axis.input, axis.input_dilation):
        side = "before the first input" if reach < 0 else f"behind the last input, {axis.input - 1}"
        return Candidate(-1, r, o, f"{quotient} is on the padding {side}")
    if rest:
        return Candidate(-1, r, o, f"{quotient} leaves a remainder: a zero between inputs {i} and {i + 1}")
    return Candidate(i, r, o)


def solution(axis: Axis, letter: str, candidate: Candidate) -> str:
    """Says how the third position follows, ``o = (2 + 1 - 1)/2 = 1``, or why it does not exist."""
    solved = "o" if letter == "i" else "i"
    if candidate.miss:
        return f"no {'output' if solved == 'o' else 'input'}: {candidate.miss}"
    i, r, o = candidate.i, candidate.r, candidate.o
    if solved == "o":
        terms = _outputs_sum(axis, i, r)
        return f"o = {_over(terms, axis.stride)} = {o}"
    terms = _inputs_sum(axis, r, o)
    return f"i = {_over(terms, axis.input_dilation)} = {i}"


def relation(axis: Axis) -> str:
    """The relation with this axis's numbers, ``o*2 + r - 1 = i``, without steps of 1 and pads of 0."""

    def times(letter: str, step: int) -> str:
        return letter if step == 1 else f"{letter}*{step}"

    left = f"{times('o', axis.stride)} + {times('r', axis.filter_dilation)}{_plus(-axis.pad_lo)}"
    return f"{left} = {times('i', axis.input_dilation)}"


def _outputs_sum(axis: Axis, i: int, r: int) -> str:
    return f"{i * axis.input_dilation}{_plus(axis.pad_lo)} - {r * axis.filter_dilation}"


def _inputs_sum(axis: Axis, r: int, o: int) -> str:
    return f"{o * axis.stride} + {r * axis.filter_dilation}{_plus(-axis.pad_lo)}"


def _plus(pad: int) -> str:
    return "" if pad == 0 else f" {'-' if pad < 0 else '+'} {abs(pad)}"


def _over(terms: str, step: int) -> str:
    return terms if step == 1 else f"({terms})/{step}"
