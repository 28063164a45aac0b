"""Measures programs of other packages with and without ``jax_convgrad.install()``, each as it stands.

python benchmarks/programs.py                                # every program whose package is installed
python benchmarks/programs.py --packages dm-pix,keras        # of these packages
python benchmarks/programs.py --programs jaxwt.wavedec3 --seconds 10
python benchmarks/programs.py --list                         # what there is, and which packages are installed
python benchmarks/programs.py --out benchmarks/results/programs.json

Each program has a process of its own. Exits 1 where a program fails or its results do not agree.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

from harness import machine
from harness.devices.cpu import available_processors, limit_processors
from run import positive, some_of
from unchanged import table
from unchanged.registry import Program, all_programs

_WORKER = [sys.executable, "-P", "-m", "unchanged.worker"]
_LIMIT = 600  # seconds of one program, most of them for compiling it twice
_FAILED_LINES = 5  # of a failed program's output, to be shown


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    programs = all_programs()
    packages = tuple(dict.fromkeys(program.package for program in programs.values()))
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    option = parser.add_argument
    option("--packages", type=some_of(packages), default=list(packages), help=f"of {','.join(packages)}")
    option("--programs", type=some_of(tuple(programs)), help="names of programs, as --list shows them")
    option("--seconds", type=float, default=5, help="of blocks a program, both ways (default: %(default)s)")
    option("--list", action="store_true", help="show the programs and measure nothing")
    option("--out", type=Path, metavar="FILE", help="write the results there; those of other programs stay")
    option(
        "--threads",
        type=positive,
        default=min(2, available_processors()),
        help="processors for both ways (default: %(default)s)",
    )
    args = parser.parse_args(argv)
    args.chosen = [
        program
        for name, program in programs.items()
        if program.package in args.packages and (args.programs is None or name in args.programs)
    ]
    return args


def installed(package: str) -> bool:
    """Whether a distribution is there; that is not to import it, which may take seconds."""
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True


def measure(program: Program, seconds: float, threads: int) -> dict[str, Any]:
    """An entry of the results: the program, and its numbers or why there are none."""
    entry: dict[str, Any] = {"name": program.name, "package": program.package, "what": program.what}
    if not installed(program.package):
        return {**entry, "error": "not installed"}
    threading = {name: str(threads) for name in ("NPROC", "PJRT_NPROC", "OMP_NUM_THREADS")}
    environment = {**os.environ, **threading, "JAX_PLATFORMS": "cpu", "KERAS_BACKEND": "jax"}
    paths = (Path(__file__).parent, os.environ.get("PYTHONPATH"))
    environment["PYTHONPATH"] = os.pathsep.join(str(path) for path in paths if path)
    others = machine.Others()
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / "found.json"
        command = [*_WORKER, program.name, str(seconds), str(found)]
        try:
            done = subprocess.run(
                command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=_LIMIT
            )
        except subprocess.TimeoutExpired:
            return {**entry, "error": f"not done in {_LIMIT} seconds"}
        if done.returncode:
            sys.stderr.buffer.write(done.stdout)
            lines = done.stdout.decode(errors="replace").strip().splitlines()
            return {**entry, "error": "\n".join(lines[-_FAILED_LINES:]) or f"status {done.returncode}"}
        result = json.loads(found.read_text())
    return {**entry, "date": datetime.date.today().isoformat(), **result, "others": others.share()}


def results_of(args: argparse.Namespace, entries: list[dict[str, Any]]) -> dict[str, Any]:
    """What the JSON file holds."""
    packages = dict.fromkeys(program.package for program in all_programs().values())
    return {
        "command": ["python", "benchmarks/programs.py", *sys.argv[1:]],
        "machine": machine.describe(gpu=False),
        "versions": machine.versions(("jax_convgrad", "jax", "jaxlib", *packages)),
        "settings": {"threads": args.threads, "seconds": args.seconds},
        "programs": entries,
    }


def _beside_others(entries: list[dict[str, Any]], file: Path) -> list[dict[str, Any]]:
    """These entries, and those that a file already has of other programs, in the order of the list."""
    before = json.loads(file.read_text())["programs"] if file.exists() else []
    by_name = {entry["name"]: entry for entry in [*before, *entries]}
    return [by_name[name] for name in all_programs() if name in by_name]


def main() -> None:
    args = parse_arguments()
    if args.list:
        for program in args.chosen:
            print(
                f"{program.name:32} {'' if installed(program.package) else 'not installed: '}{program.what}"
            )
        return
    limit_processors(args.threads)
    entries = []
    for program in args.chosen:
        entries.append(measure(program, args.seconds, args.threads))
        print(table.line(entries[-1]), file=sys.stderr, flush=True)
        if args.out:  # at once, so that a run that is ended early leaves what it has
            args.out.parent.mkdir(parents=True, exist_ok=True)
            results = results_of(args, _beside_others(entries, args.out))
            args.out.write_text(json.dumps(results, indent=1) + "\n")
    shown = json.loads(args.out.read_text()) if args.out and entries else results_of(args, entries)
    print(table.markdown(shown))
    if any(table.is_wrong(entry) for entry in entries):
        sys.exit("a program failed, or its results do not agree")


if __name__ == "__main__":
    main()
