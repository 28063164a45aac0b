"""The benchmark on a device: ours against jax.lax, jax.lax in its deterministic mode, and PyTorch.

python benchmarks/run.py --platform cuda --seconds 240 --out results

Each peer has a process of its own and a share of the time; what it does not reach is listed. results.json is
written anew after each measurement, so a run that is cut short leaves what it had.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import device_machine
import device_plan
import device_summary
import layers
from device_plan import Task
from options import positive, some_of
from problems import Conv

HERE = Path(__file__).parent
OPS = ("fprop", "dgrad", "wgrad", "bgrad", "fprop+dgrad")
# peer: its program, the libraries that it measures, XLA's flags, and its share of the time
PEERS = {
    "lax": ("device_jax.py", ["ours", "lax"], "", 0.5),
    "deterministic": ("device_jax.py", ["ours", "lax"], "--xla_gpu_deterministic_ops=true", 0.25),
    "torch": ("device_torch.py", ["torch"], "", 0.25),
}
BUDGET, QUICK_BUDGET = 0.1, 0.03  # seconds a function
_GRACE = 30.0  # seconds that a process may overrun, in which it compiles
_MOST_RESTARTS = 3


def parse_arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    option = parser.add_argument
    option("--platform", choices=("cuda", "cpu"), default="cuda", help="cpu: a trial of this program")
    option("--peers", type=some_of(tuple(PEERS)), default=list(PEERS), help=f"of {','.join(PEERS)} (all)")
    option("--shapes", help="names or patterns of layers, as resnet50.*,audio.1d (default: all)")
    option("--file", type=Path, help="layers from a TOML file, instead of benchmarks/shapes.toml")
    option("--layer", action="append", default=[], help="a layer as text, instead of a file's")
    option("--ops", type=some_of(OPS), default=list(OPS), help=f"of {','.join(OPS)} (default: all)")
    arithmetics = tuple(device_plan.ARITHMETICS)
    option("--arithmetics", type=some_of(arithmetics), default=list(arithmetics), help="default: all")
    option("--batch", type=positive, help="the largest batch (default: as in the file)")
    option("--seconds", type=float, default=240, help="for everything (default: %(default)s)")
    option("--quick", action="store_true", help="fewer repeats: a third of the time, wider spread")
    option("--out", type=Path, metavar="DIR", default=Path("results"), help="default: %(default)s")
    args = parser.parse_args(argv)
    if args.file and args.layer:
        parser.error("--file and --layer exclude each other")
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
    copies = 16 if args.platform == "cuda" else 2
    args.tasks = device_plan.plan(problems, args.ops, args.arithmetics, copies)
    return args


class Results:
    """The run so far, on disk after every change."""

    def __init__(self, args: argparse.Namespace):
        self._path = args.out / "results.json"
        self.data: dict = {
            "date": datetime.date.today().isoformat(),
            "command": ["python", "benchmarks/run.py", *sys.argv[1:]],
            "state": "running",
            "machine": device_machine.describe(args.platform),
            "versions": device_machine.versions(),
            "settings": {
                "platform": args.platform,
                "peers": args.peers,
                "seconds": args.seconds,
                "budget": QUICK_BUDGET if args.quick else BUDGET,
            },
            "peaks": {},
            "entries": [],
            "left_out": {},
        }
        self._entries: dict[str, dict] = {}
        self.save()

    def save(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        written = self._path.with_suffix(".tmp")
        written.write_text(json.dumps(self.data, indent=1) + "\n")
        written.replace(self._path)

    def add(self, peer: str, found: dict) -> None:
        """What a peer's process said of one task."""
        task = Task.from_json(found.pop("task"))
        entry = self._entries.get(task.key)
        if entry is None:
            entry = self._entries[task.key] = entry_of(task)
            self.data["entries"].append(entry)
        seconds = found["seconds"]
        if peer == "deterministic":
            entry["deterministic"] = seconds
        else:
            entry["seconds"] |= seconds
        for library, reason in found.get("unsupported", {}).items():
            name = f"{library}, deterministic" if peer == "deterministic" else library
            entry["unsupported"][name] = reason
        if "xla" in found:
            entry["xla"] |= found["xla"] if peer == "lax" else {f"{peer} lax": found["xla"].get("lax", {})}
        for problem in ("wrong", "failed"):
            if problem in found:
                entry["problems"].append(f"{peer}: {problem}: {found[problem]}")
        if found.get("kernel"):
            entry["kernel"] = found["kernel"]
        if "compile_seconds" in found:
            entry.setdefault("compile_seconds", {})[peer] = found["compile_seconds"]
        self.save()


def entry_of(task: Task) -> dict:
    """A task's place in the results, before anything is measured."""
    return {
        **task.to_json(),
        "classes": device_plan.classes(task.problem),
        "flops": task.problem.flops(task.op),
        "bytes": task.bytes,
        "copies": task.copies,
        "seconds": {},
        "unsupported": {},
        "problems": [],
        "xla": {},
    }


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def run_peer(results: Results, peer: str, args: argparse.Namespace, seconds: float) -> None:
    """One peer's process, begun anew behind what it died of."""
    tasks, peaks_wanted = list(args.tasks), not results.data["peaks"] and peer != "torch"
    end = time.monotonic() + seconds
    for _ in range(1 + _MOST_RESTARTS):
        reached: list[str] = []
        state: dict = {"begun": [], "finished": False}

        def read(line: dict, reached=reached, state=state) -> None:
            if "peaks" in line:
                results.data["peaks"] = line["peaks"]
                results.save()
            state["finished"] = state["finished"] or "finished" in line
            state["begun"] = line.get("begun", state["begun"])
            if "task" in line:
                key = Task.from_json(line["task"]).key
                say_entry(peer, key, line)
                results.add(peer, line)
                reached.append(key)
                state["begun"] = []

        request = {
            "platform": args.platform,
            "libraries": PEERS[peer][1],
            "tasks": [task.to_json() for task in tasks],
            "seconds": end - time.monotonic(),
            "budget": results.data["settings"]["budget"],
            "peaks": peaks_wanted and not results.data["peaks"],
            "peak_scale": 1.0 if args.platform == "cuda" else 1 / 32,
        }
        status = run_process(peer, request, read)
        died_of = state["begun"]
        if state["finished"] or not (died_of or reached) or time.monotonic() > end:
            tasks = [task for task in tasks if task.key not in reached]
            break
        for task in tasks:
            if task.key in died_of:  # one op, or those that were being compiled
                message = f"the process ended with status {status}"
                results.add(peer, {"task": task.to_json(), "seconds": {}, "failed": message})
        tasks = [task for task in tasks if task.key not in {*reached, *died_of}]
    if not state["finished"] and status:
        results.data.setdefault("failures", []).append(f"{peer}: its process ended with status {status}")
    results.data["left_out"][peer] = [task.key for task in tasks]
    results.save()


def run_process(peer: str, request: dict, read: Callable[[dict], None]) -> int:
    """Starts a peer's program, passes on each of its lines, and stops it long after its time."""
    program, _, flags, _ = PEERS[peer]
    environment = {**os.environ, "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()}
    if request["platform"] != "cuda":
        environment["JAX_PLATFORMS"] = request["platform"]
    command = [sys.executable, str(HERE / program)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        stop = threading.Timer(max(request["seconds"], 0) + _GRACE, process.kill)
        stop.start()
        try:
            with contextlib.suppress(BrokenPipeError):
                json.dump(request, process.stdin)
                process.stdin.close()
            for line in process.stdout:
                if line.startswith("{"):
                    read(json.loads(line))
        finally:
            stop.cancel()
    return process.returncode


def say_entry(peer: str, key: str, line: dict) -> None:
    times = ", ".join(f"{who} {spread['median'] * 1e6:.4g}" for who, spread in line["seconds"].items())
    reasons = [*line.get("unsupported", {}).values(), line.get("wrong"), line.get("failed")]
    say(f"{peer:13} {key:36} {times + ' us' if times else ''} {'; '.join(filter(None, reasons))}"[:200])


def main(argv: list[str]) -> None:
    import device_report

    args = parse_arguments(argv)
    results = Results(args)
    end = time.monotonic() + args.seconds
    shares = {peer: PEERS[peer][3] for peer in args.peers}
    for peer in args.peers:
        left = sum(
            share for name, share in shares.items() if args.peers.index(name) >= args.peers.index(peer)
        )
        run_peer(results, peer, args, (end - time.monotonic()) * shares[peer] / left)
        (args.out / "report.md").write_text(device_report.page(results.data))
    results.data["state"] = "complete"
    results.save()
    (args.out / "report.md").write_text(device_report.page(results.data))
    print(device_report.terminal(results.data))
    troubles = device_summary.troubles(results.data)
    if troubles:
        sys.exit("\n".join(troubles))


if __name__ == "__main__":
    main(sys.argv[1:])
