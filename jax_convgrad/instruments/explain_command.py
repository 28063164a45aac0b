"""``explain``: which products make one element of a layer's output or gradients, as text and as a picture."""

from __future__ import annotations

import argparse
import json
import math
from typing import Any

from jax_convgrad.instruments import layer_text
from jax_convgrad.instruments.candidates import solution
from jax_convgrad.instruments.elements import AnyLayer, Index, axes_of, letters
from jax_convgrad.instruments.explanation import Explanation, explain
from jax_convgrad.instruments.explanation_text import as_text, formula
from jax_convgrad.instruments.terms import OWN_LETTER, winner

_EXAMPLES = """examples:
  explain "1x5x5x1, 3x3, 1, stride 2"                       the middle of dx
  explain "1x5x5x1, 3x3, 1, stride 2" --dx 0,2,2,0          with indices n,i,i,c
  explain "8x56x56x64, 3x3, 64, pad 1" --dw 0,0,5,7         r,r,c,k
  explain "2x5x5x3, 3x3, 4" --y 0,1,1,2 --values            with numbers, and the kernel's answer
  explain "1x6x6x1, max 3x3, stride 2" --dx 0,2,2,0 --values --plot max.svg
  explain --input 1x5x5x1 --filter 3x3 --channels 1 --stride 2 --db 0

"""

_POOLING = """
A pooling layer is x's shape and the window, as in "1x6x6x1, max 3x3, stride 2" or "1x6x6x1, avg 3x3",
then any of stride (1 if not given), pad, dilation and, for avg, "exclude pad": padding is then not counted
in the mean.
"""


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds ``explain`` to the commands of ``python -m jax_convgrad``."""
    parser = commands.add_parser(
        "explain",
        help="which products make one element of dX, dW, db or y, and a picture of them",
        description="Which products make one element of dX, dW, db or y of a layer, and why no others do.",
        epilog=f"{_EXAMPLES}{layer_text.__doc__}{_POOLING}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("layer", nargs="?", help='as in "1x5x5x1, 3x3, 1, stride 2"; or by the flags below')
    element = parser.add_argument_group("the element, by its indices; the middle of dx if none is named")
    one = element.add_mutually_exclusive_group()
    one.add_argument("--dx", metavar="n,i..,c", help="of the gradient of the input, dE/dX")
    one.add_argument("--dw", metavar="r..,c,k", help="of the filter's, dE/dW; c counts within its group")
    one.add_argument("--db", metavar="k", help="of the bias's, dE/db")
    one.add_argument("--y", metavar="n,o..,k", help="of the output")
    output = parser.add_argument_group("what to show")
    output.add_argument(
        "--values", action="store_true", help="with random integers as x, w and dy, and the kernel's answer"
    )
    output.add_argument("--seed", type=int, help="of --values, which it implies; 0 if not given")
    output.add_argument("--all", action="store_true", help="every term, however many there are")
    output.add_argument("--plot", metavar="FILE", help="draw the arrays: a .png, .svg, .pdf or .jpg")
    output.add_argument("--json", action="store_true", help="for programs: every term")
    flags = parser.add_argument_group("the layer by flags, whose values are those of the line of text")
    flags.add_argument("--input", metavar="1x5x5x1")
    flags.add_argument("--filter", metavar="3x3")
    flags.add_argument("--channels", metavar="1", help="output channels")
    flags.add_argument("--max-pool", metavar="3x3", help="in place of a filter and channels")
    flags.add_argument("--avg-pool", metavar="3x3", help="likewise")
    for name in _VALUED:
        flags.add_argument(f"--{name}", metavar="N")
    flags.add_argument("--transposed", action="store_true")
    flags.add_argument("--exclude-pad", action="store_true", help="do not count padding in an average")
    parser.set_defaults(run=lambda parsed: _run(parser, parsed))


_VALUED = ("stride", "pad", "dilation", "groups")


def _run(parser: argparse.ArgumentParser, parsed: argparse.Namespace) -> int:
    seed = parsed.seed if parsed.seed is not None else 0 if parsed.values else None
    try:
        if parsed.plot is not None:  # before the explanation, which would else be computed for nothing
            _check_plot(parser, parsed.plot)
        if seed is not None and seed < 0:
            raise ValueError(f"--seed should not be negative, but is {seed}")
        layer = layer_text.parse_layer_or_pool(_layer_text(parsed))
        array, index = _element(parsed, layer)
        explanation = explain(layer, array, index, seed=seed)
    except ValueError as error:
        parser.exit(2, f"explain: {error}\n")  # parser.error would print the usage before it
    if parsed.plot is not None:
        _plot(parser, explanation, parsed.plot)
    if parsed.json:
        print(json.dumps(as_dict(explanation), indent=2))
        return 0
    if index is None:
        which = "--dx and --y" if isinstance(layer, layer_text.Pool) else "--dx, --dw, --db and --y"
        print(f"No element is named; this is the middle of dx. {which} name one.\n")
    print(as_text(explanation, parsed.all))
    if parsed.plot is not None:
        print(f"\nThe picture is {parsed.plot}.")
    return 0


def _layer_text(parsed: argparse.Namespace) -> str:
    """The line that the flags say, so that it is read, and refused, by one parser."""
    pools = [(kind, getattr(parsed, f"{kind}_pool")) for kind in ("max", "avg")]
    given = [(f"--{kind}-pool", window) for kind, window in pools if window is not None]
    flagged = [
        f"--{name.replace('_', '-')}"
        for name in ("input", "filter", "channels", "max_pool", "avg_pool", *_VALUED)
        if getattr(parsed, name) is not None
    ]
    flagged += [f"--{n.replace('_', '-')}" for n in ("transposed", "exclude_pad") if getattr(parsed, n)]
    if parsed.layer is not None:
        if flagged:
            raise ValueError(f"the layer is given as text, so {flagged[0]} should be a part of the text")
        return parsed.layer
    if parsed.input is None:
        raise ValueError('a layer is needed, as in "1x5x5x1, 3x3, 1, stride 2", or --input and --filter')
    if len(given) > 1 or (given and (parsed.filter or parsed.channels)):
        raise ValueError(f"{given[0][0]} takes no filter, channels or other pooling beside it")
    if given:
        parts = [parsed.input, *(f"{kind} {window}" for kind, window in pools if window is not None)]
    elif parsed.filter is None or parsed.channels is None:
        missing = "--filter" if parsed.filter is None else "--channels"
        raise ValueError(f"{missing} is needed beside --input")
    else:
        parts = [parsed.input, parsed.filter, parsed.channels]
    parts += [f"{name} {getattr(parsed, name)}" for name in _VALUED if getattr(parsed, name) is not None]
    parts += ["transposed"] if parsed.transposed else []
    parts += ["exclude pad"] if parsed.exclude_pad else []
    return ", ".join(parts)


def _element(parsed: argparse.Namespace, layer: AnyLayer) -> tuple[str, Index | None]:
    for array in ("dx", "dw", "db", "y"):
        text = getattr(parsed, array)
        if text is None:
            continue
        if isinstance(layer, layer_text.Pool) and array in ("dw", "db"):
            raise ValueError(f"--{array}: pooling has no {'filter' if array == 'dw' else 'bias'}; --dx, --y")
        entries = text.strip().strip("[]").split(",")
        try:
            return array, tuple(int(entry) for entry in entries)
        except ValueError:
            names = ",".join(letters(array, len(axes_of(layer))))
            raise ValueError(
                f"--{array} {text!r} should be indices with commas between them: {names}"
            ) from None
    return "dx", None


def _check_plot(parser: argparse.ArgumentParser, path: str) -> None:
    from jax_convgrad.instruments.terms_plot import check_path

    try:
        check_path(path)
    except (ImportError, OSError) as error:
        parser.exit(1, f"explain: --plot: {error}\n")
    except ValueError as error:
        raise ValueError(f"--plot: {error}") from None


def _plot(parser: argparse.ArgumentParser, explanation: Explanation, path: str) -> None:
    from jax_convgrad.instruments.terms_plot import save

    try:
        save(explanation.plot(), path)
    except OSError as error:
        parser.exit(1, f"explain: --plot: {error}\n")


def as_dict(explanation: Explanation) -> dict[str, Any]:
    """The explanation for programs: every term, and of each axis every candidate with what it gives.

    A term of max pooling has its window's maximum beside it, and the value 0 in dx where that is another.
    """
    terms = explanation.terms
    result: dict[str, Any] = {
        "layer": str(terms.layer),
        "array": terms.array,
        "index": terms.index,
        "formula": formula(terms),
        "axes": [
            [_candidate(axis, terms.array, candidate) for candidate in along]
            for axis, along in zip(terms.axes, terms.candidates, strict=True)
        ],
        "terms": [],
    }
    for number, term in enumerate(terms):
        entry: dict[str, Any] = {"text": terms.text(term), **dict(terms.factors(term))}
        if explanation.values is not None:
            entry["value"] = _json_number(explanation.values[number])
            if isinstance(terms.layer, layer_text.Pool) and terms.layer.kind == "max":
                entry["maximum"] = winner(terms.layer, explanation.arrays["x"], term.y)
        result["terms"].append(entry)
    if explanation.kernel is not None:
        function, answer = explanation.kernel
        result["total"] = _json_number(explanation.total)
        result["kernel"] = {"function": function, "returns": _json_number(answer)}
    return result


def _json_number(value: Any) -> float | int | str:
    """JSON has no word for infinity and NaN, which an empty window gives; they are strings."""
    number = value.item() if hasattr(value, "item") else value
    return number if math.isfinite(number) else str(number)


def _candidate(axis: Any, array: str, candidate: Any) -> dict[str, Any]:
    positions = {name: getattr(candidate, name) for name in "iro" if getattr(candidate, name) >= 0}
    if array == "db":
        return positions
    return positions | {"solution": solution(axis, OWN_LETTER[array], candidate)}
