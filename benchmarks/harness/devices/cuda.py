"""A GPU: layers of full size in a limited time, calls that queue, and peaks that XLA reaches."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from harness.devices.device import Device, Functions, Peaks, Process, Spreads
from harness.tasks import ARITHMETICS
from harness.timing import measure

_LONGEST = 1.0  # seconds of samples of a function, even if that gives few samples
_QUEUED = 0.01  # seconds of work that are queued before a wait
_SIDES = {"bf16": 8192, "tf32": 8192, "f32": 8192, "f64": 4096}
_COPY_BYTES = 2**30


class Cuda(Device):
    """The first GPU."""

    name = platform = "cuda"
    processes: ClassVar = {
        "lax": Process("jax", ("ours", "lax"), share=0.5),
        "deterministic": Process("jax", ("ours", "lax"), "--xla_gpu_deterministic_ops=true", 0.25),
        "torch": Process("torch", ("torch",), share=0.25),
    }
    default_peers = tuple(processes)
    arithmetics = ("bf16", "tf32", "f32", "f64")
    seconds = 240.0
    budget = (0.1, 0.03)
    most_copies = 16
    most_products = 2_000_000  # on one host core, while the device waits
    reads_hlo = True
    peak_scale = 1.0
    about = (
        "`lax` is autotuned; `deterministic` is lax under --xla_gpu_deterministic_ops, with ours in the "
        "same process; `torch` has cudnn.benchmark and channels last. A time is that of one call out of "
        "several in one program, each on its own operands. A star marks programs that take less than "
        "100 us, so their time may be mostly the launch."
    )

    def peaks(self, seconds: float, threads: int) -> Peaks:
        """Measures FLOP/s of large matrix products by arithmetic, and bytes/s of a large copy."""
        import jax
        import jax.numpy as jnp

        def reached(function: Callable[..., jax.Array], *operands: jax.Array) -> float:
            run = {"it": lambda: function(*operands)}
            return measure(run, seconds, shortest=seconds / 5, wait=jax.block_until_ready)["it"]["median"]

        flops = {}
        with jax.enable_x64(True):
            for arithmetic, full_side in _SIDES.items():
                dtype, precision = ARITHMETICS[arithmetic]
                side = int(full_side * self.peak_scale)
                keys = jax.random.split(jax.random.key(0))
                # Products of zeros run faster.
                a, b = (jax.random.normal(key, (side, side), dtype) for key in keys)
                multiply = jax.jit(lambda a, b, precision=precision: jnp.matmul(a, b, precision=precision))
                flops[arithmetic] = 2 * side**3 / reached(multiply, a, b)
        x = jax.random.normal(jax.random.key(1), (int(_COPY_BYTES * self.peak_scale) // 4,), jnp.float32)
        # XLA copies with the driver's function, and negates in its own kernel: the faster one counts.
        copies = jax.jit(jnp.copy), jax.jit(jnp.negative)
        return {"flops": flops, "copy": {"device": max(2 * x.nbytes / reached(copy, x) for copy in copies)}}

    def times(self, functions: Functions, budget: float, wait: Callable[[object], object]) -> Spreads:
        """Queues many calls before a wait, so that the wait and Python take a small part of the time."""
        return measure(functions, budget, shortest=min(_QUEUED, budget), most=_LONGEST, wait=wait)


class Trial(Cuda):
    """Measures as on a GPU, but on the CPU and at a small scale, to test the benchmark itself."""

    name, platform = "trial", "cpu"
    most_copies = 2
    peak_scale = 1 / 32
