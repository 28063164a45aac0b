"""Times the tracing and lowering of large nets on these kernels, against jax.lax.

python benchmarks/lowering_time.py --repeats 5

Each net is traced and lowered, but not compiled: forward, and with its gradient; for one device, and for
eight host devices with the batch split. The ways to use the kernels take turns, each time with a new function
and with all caches of JAX and of jax_convgrad empty, as in a new process. The ratio of the least processor
times counts, since other programs disturb it less than the ratio of the clock's times, which is printed too.
The status is 1 if a ratio is above the bound.
"""

from __future__ import annotations

import argparse
import functools
import gc
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_DEVICES = 8
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + f" --xla_force_host_platform_device_count={_DEVICES}"
)

# JAX reads XLA_FLAGS when it is imported.
import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from harness.nets import LAX, NETS, OWN, TINY, Net, loss, parameters  # noqa: E402
from jax.sharding import Mesh, NamedSharding, PartitionSpec  # noqa: E402

import jax_convgrad  # noqa: E402

_WAYS = ("lax", "install", "replace", "own")
_STEPS = ("trace", "lower", "sum")


@contextmanager
def _installed(way: str) -> Iterator[None]:
    if way != "install":
        yield
        return
    jax_convgrad.install()
    try:
        yield
    finally:
        jax_convgrad.uninstall()


def _function(net: Net, way: str, gradient: bool) -> Callable[..., Any]:
    function = loss(net, OWN if way == "own" else LAX)
    if way == "replace":
        function = jax_convgrad.replace_convolutions(function)
    return jax.value_and_grad(function) if gradient else function


def _arguments(net: Net, devices: int) -> tuple[list[Any], Any]:
    split = whole = None
    if devices > 1:
        mesh = Mesh(np.asarray(jax.devices()[:devices]), ("batch",))
        split, whole = NamedSharding(mesh, PartitionSpec("batch")), NamedSharding(mesh, PartitionSpec())

    def struct(shape: tuple[int, ...], sharding: Any) -> Any:
        return jax.ShapeDtypeStruct(shape, jnp.float32, sharding=sharding)

    return [struct(shape, whole) for shape in parameters(net)], struct(net.input, split)


def _forget() -> None:
    """Empties all caches: JAX's and those of this package's modules."""
    jax.clear_caches()
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == "jax_convgrad":
            for value in vars(module).values():
                if isinstance(value, functools._lru_cache_wrapper):
                    value.cache_clear()
    gc.collect()


def _once(function: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[np.ndarray, Any]:
    """The seconds of tracing, of lowering and of both, in processor time and by the clock."""
    times = [(time.process_time(), time.perf_counter())]
    traced = jax.jit(function).trace(*arguments)
    times.append((time.process_time(), time.perf_counter()))
    lowered = traced.lower()
    times.append((time.process_time(), time.perf_counter()))
    trace, lower = np.diff(times, axis=0)
    return np.array([trace, lower, trace + lower]), lowered


def measure(net: Net, gradient: bool, devices: int, ways: tuple[str, ...], repeats: int) -> dict[str, Any]:
    """The least seconds of each way, by step (rows), in processor time and by the clock (columns)."""
    arguments = _arguments(net, devices)
    least = {way: np.full((len(_STEPS), 2), np.inf) for way in ways}
    for turn in range(repeats + 1):
        for way in ways if turn % 2 else ways[::-1]:
            with _installed(way):
                _forget()
                seconds, lowered = _once(_function(net, way, gradient), arguments)
                if turn:  # the first turn also imports modules
                    least[way] = np.minimum(least[way], seconds)
                elif way != "lax" and "jax_convgrad" not in lowered.as_text():
                    sys.exit(f"the net lowered by {way} contains none of these kernels")
    return least


def main() -> None:
    """Measures, prints a table and reports ratios above the bound."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--bound", type=float, default=1.1, help="the largest allowed ratio, ours / lax")
    parser.add_argument("--nets", default=",".join(NETS), help=f"a list of {', '.join(NETS)}")
    parser.add_argument("--ways", default=",".join(_WAYS[1:]), help=f"a list of {', '.join(_WAYS[1:])}")
    parser.add_argument("--devices", default=f"1,{_DEVICES}")
    parser.add_argument("--only", choices=["forward", "gradient"], help="measure only this one")
    parser.add_argument("--tiny", action="store_true", help="small nets, to test the script")
    args = parser.parse_args()
    ways = ("lax", *args.ways.split(","))
    print(f"jax {jax.__version__}, Python {sys.version.split()[0]}; least of {args.repeats}")
    print("| net | devices | | lax, s | way | trace | lower | both | by the clock |")
    print("|---|--:|---|--:|---|--:|--:|--:|--:|")
    above = 0
    for name in args.nets.split(","):
        net = (TINY if args.tiny else NETS)[name]
        for devices in map(int, args.devices.split(",")):
            for what in [args.only] if args.only else ["forward", "gradient"]:
                least = measure(net, what == "gradient", devices, ways, args.repeats)
                for way in ways[1:]:
                    ratios = least[way] / least["lax"]
                    above += ratios[-1, 0] > args.bound
                    begin = f"| {name} ({net.convolutions}) | {devices} | {what} | {least['lax'][-1, 0]:.2f}"
                    columns = " | ".join(f"{ratio:.2f}" for ratio in (*ratios[:, 0], ratios[-1, 1]))
                    print(f"{begin} | {way} | {columns} |", flush=True)
    if above:
        sys.exit(f"{above} ratios are above {args.bound}")


if __name__ == "__main__":
    main()
