"""Measures this package's layers against jax.lax and PyTorch, after it has verified each result.

python benchmarks/run.py                                          # the built-in layers, against jax.lax
python benchmarks/run.py --peers lax,torch --out results          # and PyTorch; a JSON file and pictures
python benchmarks/run.py --layer "8x56x56x64, 3x3, 64, pad 1"     # a layer of your own
python benchmarks/run.py --file my_layers.toml --ops dgrad,wgrad
python benchmarks/run.py --device cuda --seconds 120 --out results

The defaults below depend on the device; python benchmarks/run.py --device cuda --help shows a GPU's.
"""

from __future__ import annotations

import argparse
import math
import sys
from importlib.util import find_spec
from pathlib import Path

import report
from harness import layers, summary
from harness.devices import DEVICES
from harness.devices.cpu import available_processors, limit_processors
from harness.problems import Conv
from harness.runner import measure
from harness.tasks import ARITHMETICS, OPS, most_telling_first, plan


def some_of(known):
    """An argparse type: a list of these words, separated by commas."""

    def parse(text: str) -> list[str]:
        words = [word.strip() for word in text.split(",") if word.strip()]
        for word in words:
            if word not in known:
                raise argparse.ArgumentTypeError(f"{word!r} is not one of {', '.join(known)}")
        return words

    return parse


def positive(text: str) -> int:
    """An argparse type: a positive integer."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not positive")
    return value


def processors(text: str) -> int:
    """An argparse type: a number of processors that this process may use."""
    value, available = positive(text), available_processors()
    if value > available:
        raise argparse.ArgumentTypeError(f"this process may use {available} processors")
    return value


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Reads the options, and adds the device, the tasks and the seconds per function."""
    chosen = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    # JAX and `python -m jax_convgrad plan` call it the platform.
    chosen.add_argument("--device", "--platform", choices=tuple(DEVICES), default="cpu", help="default: cpu")
    device = DEVICES[chosen.parse_known_args(argv)[0].device]

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, parents=[chosen]
    )

    def words(name: str, known, default) -> None:
        text = f"of {','.join(known)} (default: {','.join(default)})"
        parser.add_argument(name, type=some_of(known), default=list(default), help=text)

    option = parser.add_argument
    has_torch = find_spec("torch") is not None
    peers = [peer for peer in device.default_peers if peer != "torch" or has_torch]
    words("--peers", device.processes, peers)
    option("--shapes", help="names or patterns of layers, such as resnet50.*,audio.1d (default: all)")
    option("--file", type=Path, help="a TOML file with layers (default: benchmarks/shapes.toml)")
    option("--layer", action="append", default=[], help="a layer as text, instead of a file; may be repeated")
    words("--ops", OPS, OPS)
    words("--arithmetics", ARITHMETICS, device.arithmetics)
    option("--batch", type=positive, default=device.batch, help="the largest (default: %(default)s)")
    threads = min(2, available_processors())
    option(
        "--threads",
        type=processors,
        default=threads,
        help="processors for every library on a CPU (default: %(default)s)",
    )
    option(
        "--parts",
        type=some_of(device.parts),
        help=f"of {','.join(device.parts)} (default: all, or layers if chosen)",
    )
    option("--seconds", type=float, default=device.seconds, help="for the whole run (default: %(default)s)")
    option("--quick", action="store_true", help="fewer repeats, which take less time and give a wider spread")
    option("--out", type=Path, metavar="DIR", help="the folder for results.json and, on a CPU, the pictures")
    args = parser.parse_args(argv)
    if args.file and args.layer:
        parser.error("--file and --layer cannot be used together")
    if args.parts is None:
        args.parts = ["layers"] if args.shapes or args.file or args.layer else list(device.parts)
    if "torch" in args.peers and not has_torch:
        parser.error("--peers torch needs PyTorch, which is not installed: pip install 'jax_convgrad[peers]'")
    try:
        if args.layer:
            problems = [Conv.parse(text, text) for text in args.layer]
        else:
            problems = layers.read_layers(args.file or layers.BUILT_IN)
        if args.shapes:
            problems = layers.select(problems, args.shapes.split(","))
    except (ValueError, OSError) as error:
        parser.error(str(error))
    if args.batch:
        problems = [problem.with_batch_at_most(args.batch) for problem in problems]
    args.tasks = plan(problems, args.ops, args.arithmetics, device.most_copies)
    if math.isfinite(args.seconds):
        args.tasks = most_telling_first(args.tasks)
    args.device, args.budget = device, device.budget[args.quick]
    return args


def main() -> None:
    run = parse_arguments()
    if run.device.platform == "cpu":
        limit_processors(run.threads)
    results = measure(run)
    print(report.terminal(results))
    if run.out and run.device.pictures:
        import chart
        from harness import plots

        for picture in [*plots.draw(results, run.out), *chart.draw(results, run.out)]:
            print(f"drawn: {picture}", file=sys.stderr)
    if troubles := summary.troubles(results):
        sys.exit("\n".join(troubles))


if __name__ == "__main__":
    main()
