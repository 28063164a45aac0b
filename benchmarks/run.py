"""Measures this package's layers against jax.lax and PyTorch, each result verified first.

python benchmarks/run.py                                          # the built-in layers, against jax.lax
python benchmarks/run.py --peers lax,torch --out results          # and PyTorch; a JSON file and pictures
python benchmarks/run.py --layer "8x56x56x64, 3x3, 64, pad 1"     # a layer of your own
python benchmarks/run.py --file my_layers.toml --ops dgrad,wgrad
python benchmarks/run.py --platform cuda --help                   # on a GPU, with options of its own
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import sys
import tempfile
from pathlib import Path

import layers
import machine
from options import positive, some_of
from problems import Conv

OPS = ("fprop", "dgrad", "wgrad", "bgrad", "fprop+dgrad")
PEERS = ("lax", "torch")
PARTS = ("layers", "training", "scaling")
DTYPES = ("float32", "bfloat16", "float16")
BUDGET, QUICK_BUDGET = 0.6, 0.1  # seconds a function
_READY = "JAX_CONVGRAD_BENCHMARK_READY"


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    option = parser.add_argument
    option("--peers", type=some_of(PEERS), default=["lax"], help="lax,torch (default: lax)")
    option("--shapes", help="names or patterns of layers, as resnet50.*,audio.1d (default: all)")
    option("--file", type=Path, help="layers from a TOML file, instead of benchmarks/shapes.toml")
    option(
        "--layer", action="append", default=[], help="a layer as text, instead of a file's; may be repeated"
    )
    option("--ops", type=some_of(OPS), default=list(OPS), help=f"of {','.join(OPS)} (default: all)")
    option("--dtype", choices=DTYPES, default="float32", help="default: %(default)s")
    option("--batch", type=positive, default=8, help="the largest batch (default: %(default)s)")
    option(
        "--threads",
        type=positive,
        default=min(2, machine.available_processors()),
        help="processors for everyone (default: %(default)s)",
    )
    option(
        "--parts", type=some_of(PARTS), help="of layers,training,scaling (default: all, or layers if chosen)"
    )
    option("--quick", action="store_true", help="fewer repeats: a sixth of the time, wider spread")
    option("--out", type=Path, metavar="DIR", help="write results.json and the pictures there")
    args = parser.parse_args(argv)
    if args.file and args.layer:
        parser.error("--file and --layer exclude each other")
    if args.parts is None:
        own = args.shapes or args.file or args.layer
        args.parts = ["layers"] if own else list(PARTS)
    try:
        if args.layer:
            problems = [Conv.parse(text, text) for text in args.layer]
        else:
            problems = layers.read_layers(args.file or layers.BUILT_IN)
        if args.shapes:
            problems = layers.select(problems, args.shapes.split(","))
        machine.limit_processors(args.threads)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    args.problems = [problem.with_batch_at_most(args.batch) for problem in problems]
    return args


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def say_times(name: str, op: str, seconds: dict[str, dict]) -> None:
    times = ", ".join(f"{who} {spread['median'] * 1e3:.3g}" for who, spread in seconds.items())
    say(f"{name:24} {op:12} {times} ms")


def entry_of(problem, op: str, seconds: dict, dtype: str) -> dict:
    """One line of the results."""
    item_bytes = 4 if dtype == "float32" else 2
    return {
        "name": problem.name,
        "kind": problem.kind,
        "op": op,
        "layer": problem.text,
        "source": problem.source,
        "flops": problem.flops(op),
        "bytes": problem.elements(op) * item_bytes,
        "seconds": seconds,
    }


def measure_jax(problems, args, libraries: list[str], budget: float) -> list[dict]:
    """Entries of all problems and ops."""
    import jax_peers

    entries = []
    for problem, op, seconds in jax_peers.run(problems, args.ops, libraries, args.dtype, budget):
        say_times(problem.name, op, seconds)
        entries.append(entry_of(problem, op, seconds, args.dtype))
    return entries


def measure_scaling(args, budget: float) -> list[dict]:
    """Our times of the growing layers."""
    entries = []
    for series, problems in layers.scaling_series().items():
        for entry in measure_jax(problems, args, ["ours"], budget):
            layer = next(problem.layer for problem in problems if problem.name == entry["name"])
            value = layer.batch if series == "batch" else layer.in_channels
            entries.append({**entry, "series": series, "value": value})
    return entries


def add_torch(results: dict, args, budget: float) -> None:
    """Adds PyTorch's times to the entries, after everything of JAX's has been measured."""
    import numpy as np
    import torch_block

    with tempfile.TemporaryDirectory() as folder:
        training = None
        if results["training"]:
            import training as jax_training

            start = Path(folder) / "start.npz"
            np.savez(start, **jax_training.start())
            training = {
                "start": str(start),
                "steps": jax_training.STEPS_COMPARED,
                "learning_rate": jax_training.LEARNING_RATE,
            }

        def progress(found: dict) -> None:
            if "seconds" in found:
                say_times(found["name"], found["op"], {f"torch {k}": v for k, v in found["seconds"].items()})

        settings = {"threads": args.threads, "dtype": args.dtype, "budget": budget}
        problems = args.problems if "layers" in args.parts else []
        found = torch_block.run(problems, args.ops, training, settings, progress)
    by_key = {(entry["name"], entry["op"]): entry for entry in found if "name" in entry}
    for entry in results["layers"]:
        of_torch = by_key[entry["name"], entry["op"]]
        if "seconds" in of_torch:
            entry["seconds"]["torch"] = torch_block.faster(of_torch["seconds"])
        else:
            entry["unsupported"] = of_torch["unsupported"]
    for entry in found:
        if "training" in entry:
            losses = entry["training"]["losses"], results["training"]["ours"]["losses"]
            jax_training.same_losses(*losses, "torch and ours")
            results["training"]["torch"] = entry["training"]


def measure(args) -> dict:
    """Everything that was asked for, as the JSON file holds it."""
    libraries = ["ours"] + [peer for peer in args.peers if peer == "lax"]
    budget = QUICK_BUDGET if args.quick else BUDGET
    others = machine.Others()
    results = {
        "date": datetime.date.today().isoformat(),
        "command": ["python", "benchmarks/run.py", *sys.argv[1:]],
        "machine": machine.describe(),
        "versions": machine.versions(("jax_convgrad", "jax", "jaxlib", "torch", "numpy", "optax")),
        "settings": {
            "peers": args.peers,
            "threads": args.threads,
            "batch": args.batch,
            "dtype": args.dtype,
            "budget": budget,
            "environment": machine.environment(args.threads),
        },
        "peaks": machine.peaks(args.threads),
        "layers": measure_jax(args.problems, args, libraries, budget) if "layers" in args.parts else [],
        "training": {},
        "scaling": [],
    }
    if "training" in args.parts:
        import training

        results["training"] = training.run(libraries, 2 * budget)
    if "scaling" in args.parts:
        results["scaling"] = measure_scaling(args, budget)
    if "torch" in args.peers:
        add_torch(results, args, budget)
    results["others"] = others.share()
    results["peaks"] = machine.larger(results["peaks"], machine.peaks(args.threads))
    return results


def main() -> None:
    platform = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    platform.add_argument("--platform", choices=("cpu", "cuda"), default="cpu")
    chosen, rest = platform.parse_known_args()
    if chosen.platform == "cuda":
        import device_run

        return device_run.main(rest)
    args = parse_arguments(rest)
    if "torch" in args.peers:
        import torch_block

        if not torch_block.installed():
            sys.exit("--peers torch needs PyTorch, which is not installed: pip install 'jax_convgrad[peers]'")
    if _READY not in os.environ:
        # Thread pools and allocator read these when a process starts.
        environment = {**os.environ, **machine.environment(args.threads), _READY: "1"}
        os.execve(sys.executable, [sys.executable, *sys.argv], environment)
    import report
    from verification import VerificationError

    try:
        results = measure(args)
    except VerificationError as error:
        sys.exit(f"a result is wrong, nothing more is measured\n{error}")
    print(report.terminal(results))
    if args.out:
        import chart
        import plots

        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
        for picture in [*plots.draw(results, args.out), *chart.draw(results, args.out)]:
            say(f"drawn: {picture}")


if __name__ == "__main__":
    main()
