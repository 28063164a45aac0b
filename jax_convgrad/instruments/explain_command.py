"""``explain``: which products make one element of a layer's output or gradients, as text and as a picture."""

from __future__ import annotations

import argparse
import json

from jax_convgrad.instruments import layer_text
from jax_convgrad.instruments.explain import explain
from jax_convgrad.instruments.layer_text import Layer, parse_layer_or_pool
from jax_convgrad.instruments.terms import Index, letters
from jax_convgrad.instruments.winograd_text import as_text

_EXAMPLES = """examples:
  explain "1x5x5x1, 3x3, 1, stride 2"                       the middle of dx
  explain "1x5x5x1, 3x3, 1, stride 2" --dx 0,2,2,0          with indices n,i,i,c
  explain "8x56x56x64, 3x3, 64, pad 1" --dw 0,0,5,7         r,r,c,k
  explain "2x5x5x3, 3x3, 4" --y 0,1,1,2 --values            with numbers, and the kernel's answer
  explain "1x6x6x1, 3x3, 1, pad 1" --y 0,1,2,0 --winograd --values   in a tile of the CPU's kernel
  explain "1x6x6x1, max 3x3, stride 2" --dx 0,2,2,0 --values --plot max.svg

"""


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds ``explain`` to the commands of ``python -m jax_convgrad``."""
    parser = commands.add_parser(
        "explain",
        help="which products make one element of dX, dW, db or y, and a picture of them",
        description="Which products make one element of dX, dW, db or y of a layer, and why no others do.",
        epilog=f"{_EXAMPLES}{layer_text.__doc__}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("layer", help='as in "1x5x5x1, 3x3, 1, stride 2"')
    element = parser.add_argument_group("the element, by its indices; the middle of dx if none is named")
    one = element.add_mutually_exclusive_group()
    one.add_argument("--dx", metavar="n,i..,c", help="an element of the input's gradient, dE/dX")
    one.add_argument(
        "--dw",
        metavar="r..,c,k",
        help="an element of the filter's gradient, dE/dW; c counts within its group",
    )
    one.add_argument("--db", metavar="k", help="an element of the bias's gradient, dE/db")
    one.add_argument("--y", metavar="n,o..,k", help="an element of the output")
    output = parser.add_argument_group("what to show")
    output.add_argument(
        "--values", action="store_true", help="with random integers as x, w and dy, and the kernel's answer"
    )
    output.add_argument("--seed", type=int, help="the seed of --values, which it implies; 0 if not given")
    output.add_argument(
        "--winograd",
        action="store_true",
        help='also the tile in which the CPU\'s kernel "winograd" computes it',
    )
    output.add_argument("--all", action="store_true", help="every term, however many there are")
    output.add_argument(
        "--plot",
        metavar="FILE",
        help="draw the arrays, or with --winograd the tile: a .png, .svg, .pdf or .jpg",
    )
    output.add_argument("--json", action="store_true", help="for programs: every term")
    parser.set_defaults(run=lambda parsed: _run(parser, parsed))


def _run(parser: argparse.ArgumentParser, parsed: argparse.Namespace) -> int:
    seed = parsed.seed if parsed.seed is not None else 0 if parsed.values else None
    try:
        if parsed.plot is not None:  # before the explanation, which would otherwise be computed for nothing
            from jax_convgrad.instruments.explain_plot import fault_of, save
            from jax_convgrad.instruments.winograd_plot import plot_tile

            if fault := fault_of(parsed.plot):
                raise ValueError(f"--plot: {fault}")
        if seed is not None and seed < 0:
            raise ValueError(f"--seed should not be negative, but is {seed}")
        layer = parse_layer_or_pool(parsed.layer)
        array, index = _element(parsed, layer)
        explanation = explain(layer, array, index, seed=seed)
        tile = explanation.winograd() if parsed.winograd else None
        if parsed.plot is not None:
            save(explanation.plot() if tile is None else plot_tile(tile), parsed.plot)
    except ValueError as error:
        parser.exit(2, f"explain: {error}\n")  # parser.error would print the usage before it
    except (ImportError, OSError) as error:
        parser.exit(1, f"explain: --plot: {error}\n")
    if parsed.json:
        told = explanation.as_dict()
        print(json.dumps(told if tile is None else told | {"winograd": tile.as_dict()}, indent=2))
        return 0
    if index is None:
        which = "--dx and --y" if layer.pool else "--dx, --dw, --db and --y"
        print(f"No element is named; this is the middle of dx. {which} name one.\n")
    print(explanation.text(parsed.all))
    if tile is not None:
        print(f"\n{as_text(tile)}")
    if parsed.plot is not None:
        print(f"\nThe picture is {parsed.plot}.")
    return 0


def _element(parsed: argparse.Namespace, layer: Layer) -> tuple[str, Index | None]:
    for array in ("dx", "dw", "db", "y"):
        text = getattr(parsed, array)
        if text is None:
            continue
        if layer.pool and array in ("dw", "db"):
            raise ValueError(f"--{array}: pooling has no {'filter' if array == 'dw' else 'bias'}; --dx, --y")
        entries = text.strip().strip("[]").split(",")
        try:
            return array, tuple(int(entry) for entry in entries)
        except ValueError:
            names = ",".join(letters(array, len(layer.shapes[array])))
            raise ValueError(
                f"--{array} {text!r} should be indices with commas between them: {names}"
            ) from None
    return "dx", None
