"""Measures training steps of whole models with jax.lax, under jax_convgrad.install(), and in PyTorch.

python benchmarks/steps.py                                     # every net, every peer that is installed
python benchmarks/steps.py --only resnet18,unet --peers install,torch
python benchmarks/steps.py --list                              # what there is
python benchmarks/steps.py --out steps.json
python benchmarks/steps.py --show steps.json   # the tables of that run

The models are written out in Flax and in PyTorch. Each library starts from the same parameters and makes the
same step; losses and gradients of the first one have to agree with jax.lax's. Exits 1 where they do not, or
where a peer fails.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from harness import machine
from harness.devices.cpu import available_processors, limit_processors
from run import positive, some_of
from whole_steps import table
from whole_steps.registry import NETS, Net
from whole_steps.running import PEERS, measure

_OTHERS = tuple(peer for peer in PEERS if peer != "lax")
_PACKAGES = ("jax_convgrad", "jax", "jaxlib", "flax", "optax", "torch", "numpy")


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    option = parser.add_argument
    shown = [name for name, net in NETS.items() if not net.hidden]
    option("--only", type=some_of(tuple(NETS)), default=shown, help=f"of {','.join(shown)}")
    option(
        "--peers",
        type=some_of(_OTHERS),
        default=[peer for peer in _OTHERS if find_spec("torch") or peer in ("install", "own")],
        help=f"besides lax, of {','.join(_OTHERS)} (default: all that are installed)",
    )
    option("--seconds", type=float, default=1, help="of steps for each way (default: %(default)s)")
    option("--list", action="store_true", help="show the nets and measure nothing")
    option("--show", type=Path, metavar="FILE", help="show the tables of a run and measure nothing")
    option("--out", type=Path, metavar="FILE", help="write the results there; those of other nets stay")
    option(
        "--keep-memory",
        action="store_true",
        help="glibc keeps freed memory, as in run.py (default: its own settings, as users have them)",
    )
    option(
        "--threads",
        type=positive,
        default=min(2, available_processors()),
        help="processors for every library (default: %(default)s)",
    )
    return parser.parse_args(argv)


def run(net: Net, args: argparse.Namespace) -> dict[str, Any]:
    """A net's entry, with the day and what other programs took meanwhile."""
    others = machine.Others()
    entry = measure(net, args.peers, args.seconds, args.threads, args.keep_memory)
    return {**entry, "date": datetime.date.today().isoformat(), "others": others.share()}


def results_of(args: argparse.Namespace, entries: list[dict[str, Any]]) -> dict[str, Any]:
    """What the JSON file holds."""
    return {
        "command": ["python", "benchmarks/steps.py", *sys.argv[1:]],
        "machine": machine.describe(gpu=False),
        "versions": machine.versions(_PACKAGES),
        "settings": {"threads": args.threads, "seconds": args.seconds, "keep_memory": args.keep_memory},
        "nets": entries,
    }


def _beside_others(entries: list[dict[str, Any]], file: Path) -> list[dict[str, Any]]:
    """These entries, and those that a file already has of other nets, in the order of the list."""
    before = json.loads(file.read_text())["nets"] if file.exists() else []
    by_name = {entry["name"]: entry for entry in [*before, *entries]}
    return [by_name[name] for name in NETS if name in by_name]


def main() -> None:
    args = parse_arguments()
    if args.show:
        print(table.markdown(json.loads(args.show.read_text())))
        return
    if args.list:
        for name in args.only:
            print(f"{name:16} {NETS[name].what}")
        return
    limit_processors(args.threads)
    entries: list[dict[str, Any]] = []
    for name in args.only:
        entries.append(run(NETS[name], args))
        print(table.line(entries[-1]), file=sys.stderr, flush=True)
        if args.out:  # at once, so that a run that is ended early leaves what it has
            args.out.parent.mkdir(parents=True, exist_ok=True)
            results = results_of(args, _beside_others(entries, args.out))
            args.out.write_text(json.dumps(results, indent=1) + "\n")
    shown = json.loads(args.out.read_text()) if args.out and entries else results_of(args, entries)
    print(table.markdown(shown))
    if any(table.troubles(entry) for entry in entries):
        sys.exit("a peer failed, or its first step does not agree with lax's")


if __name__ == "__main__":
    main()
