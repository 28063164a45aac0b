"""What the examples' command lines have in common: numbers that are checked, and where a picture goes."""

import argparse
import math
from collections.abc import Callable
from pathlib import Path


def example_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser that prints the description as it is written, with `--seed`."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--seed", type=not_negative, default=0, help="of everything drawn at random (default: %(default)s)"
    )
    return parser


def positive(kind: type[int] | type[float]) -> Callable[[str], int | float]:
    """An argument's type: a number of this kind, greater than zero and finite."""

    def parse(text: str) -> int | float:
        value = _number(kind, text)
        if not 0 < value < math.inf:
            raise argparse.ArgumentTypeError(f"{text} is not greater than zero and finite")
        return value

    return parse


def not_negative(text: str) -> int:
    """An argument's type: a whole number, zero or more."""
    value = _number(int, text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative")
    return value


def _number(kind, text):
    try:
        return kind(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no {'whole ' if kind is int else ''}number") from None


def add_picture_options(parser: argparse.ArgumentParser, what: str) -> None:
    """`--plot` and `--show` for a picture of `what`; `check_picture_options` has to follow."""
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help=f"draw {what} into FILE.png")
    parser.add_argument("--show", action="store_true", help=f"show {what} in a window")


def check_picture_options(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Refuses before the work what would fail after it: a file of unknown kind, a window without a screen."""
    if args.plot:
        from matplotlib.backend_bases import FigureCanvasBase

        if not args.plot.absolute().parent.is_dir():
            parser.error(f"--plot: there is no folder {args.plot.absolute().parent}")
        if args.plot.is_dir():
            parser.error(f"--plot: {args.plot} is a folder, not a file")
        kinds = FigureCanvasBase.get_supported_filetypes()
        if args.plot.suffix.lower().removeprefix(".") not in kinds:
            parser.error(f"--plot: the name {args.plot} should end in .png (or .{', .'.join(sorted(kinds))})")
    if args.show:
        import matplotlib.pyplot as plt

        if plt.get_backend().lower() in ("agg", "cairo", "pdf", "pgf", "ps", "svg", "template"):
            parser.error("--show: no window can be opened here; --plot FILE.png writes the picture to a file")


def new_figure(args: argparse.Namespace, **options):
    """An empty figure. Only one that will be shown is known to pyplot, which may need a display for it."""
    if args.show:
        import matplotlib.pyplot as plt

        return plt.figure(**options)
    from matplotlib.figure import Figure

    return Figure(**options)


def hand_over(figure, args: argparse.Namespace) -> None:
    """Writes and shows the figure, as the picture options say."""
    if args.plot:
        figure.savefig(args.plot, dpi=figure.dpi)
        print(f"picture drawn into {args.plot}")
    if args.show:
        import matplotlib.pyplot as plt

        plt.show()
