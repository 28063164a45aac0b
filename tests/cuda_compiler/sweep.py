"""Lists the kernels' launches over problems of all sizes, so that every instance is among them."""

import itertools
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

from emulated_launches import Launch, conv_launches, kernels, pool_launches

DTYPES = ("float32", "float64", "bfloat16", "float16")
# Input and output channels of a group.
GROUPS = (
    (1, 1),
    (1, 16),
    (2, 2),
    (3, 5),
    (3, 64),
    (4, 32),
    (4, 4),
    (8, 8),
    (12, 12),
    (16, 16),
    (64, 64),
    (128, 128),
    (256, 256),
)
POOL_OPS = (
    "max_pool",
    "max_pool_argmax",
    "max_pool_argmax, select_and_scatter",
    "max_pool_grad",
    "max_pool_select",
    "avg_pool",
    "avg_pool_grad",
)


def _axis(size: int, taps: int, stride: int = 1, pad: int = 0) -> tuple[int, ...]:
    return (size, taps, (size + 2 * pad - taps) // stride + 1, stride, pad, 1, 1)


def _calls() -> Iterator[list[Launch]]:
    ways = list(itertools.product(DTYPES, (True, False)))
    for (group_in, group_out), groups, taps, stride in itertools.product(
        GROUPS, (1, 2, 8, 16), (1, 3, 5, 7), (1, 2)
    ):
        problem = {
            "batch": 8,
            "in_channels": group_in * groups,
            "out_channels": group_out * groups,
            "groups": groups,
            "axes": [_axis(28, taps, stride, taps // 2)] * 2,
        }
        for op, kernel, tf32 in itertools.product(
            ("fprop", "dgrad", "wgrad"), ("auto", *kernels()), (False, True)
        ):
            for dtype, aligned in ways:
                try:
                    yield conv_launches(op, kernel, tf32=tf32, aligned=aligned, dtype=dtype, **problem)
                except ValueError:
                    if kernel == "auto":  # other kernels may not support the problem
                        raise
    # Inputs so far apart that most results between them meet no input.
    for (group_in, group_out), groups in itertools.product(GROUPS, (1, 8)):
        problem = {
            "batch": 8,
            "in_channels": group_in * groups,
            "out_channels": group_out * groups,
            "groups": groups,
            "axes": [(7, 2, 28, 1, 1, 4, 1)] * 2,
        }
        for op, kernel, tf32 in itertools.product(
            ("fprop", "fprop, bias", "wgrad"), ("tiled", "gemm", "grouped"), (False, True)
        ):
            for dtype, aligned in ways:
                try:
                    yield conv_launches(op, kernel, tf32=tf32, aligned=aligned, dtype=dtype, **problem)
                except ValueError:
                    pass
    for channels, taps, stride, size in itertools.product(
        (1, 2, 3, 4, 6, 8, 16, 64), (2, 3, 5, 13), (1, 2, 3), (28, 112)
    ):
        axes = [_axis(size, taps, stride, taps // 2)] * 2
        for op, kernel, (dtype, aligned) in itertools.product(POOL_OPS, ("vector", "reference"), ways):
            yield pool_launches(
                op, kernel, aligned=aligned, dtype=dtype, batch=8, channels=channels, axes=axes
            )
    for rows, channels in itertools.product((20, 300, 100_000), (1, 2, 3, 4, 8, 64, 1000)):
        for kernel, (dtype, aligned) in itertools.product(("vector", "reference"), ways):
            axes = [_axis(rows, 1)]
            yield pool_launches(
                "bgrad", kernel, aligned=aligned, dtype=dtype, batch=1, channels=channels, axes=axes
            )


def configurations() -> dict[str, set[tuple[int, int]]]:
    """The threads and dynamic shared bytes of each kernel's launches, by its mangled name."""
    found = defaultdict(set)
    for launches in _calls():
        for launch in launches:
            found[launch.kernel].add((launch.threads, launch.shared_bytes))
    return found
