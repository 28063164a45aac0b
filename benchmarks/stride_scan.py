"""Draws layers with large strides, dilations, taps and padding, and times them against jax.lax.

python benchmarks/stride_scan.py --problems 1000 --seed 1

If a plan's cost grows with a stride or a dilation instead of the number of products, a call takes many times
as long as lax's. Each problem is the forward pass or one gradient of one layer. The scan times ours first.
If ours is below the floor, as most are, lax is not timed, since compiling its program would take most of the
time. Otherwise ours and lax take turns, and the ratio is that of their least times. A ratio above the bound
is measured again with more turns, and the least ratio counts. The status is 1 if one is still above the
bound.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

import jax_convgrad

_OPS = ("fprop", "dgrad", "wgrad")
_SPECS = {1: ("NHC", "HIO", "NHC"), 2: ("NHWC", "HWIO", "NHWC"), 3: ("NDHWC", "DHWIO", "NDHWC")}
_MOST_NUMBERS = 1 << 21  # elements of each array
_MOST_PRODUCTS = 1 << 25  # products that a result needs, without zeros
_MOST_DENSE = 1 << 30  # products with the zeros that lax may multiply
_MOST_STRIDE, _MOST_DILATION, _MOST_TAPS = 16000, 4096, 16000


@dataclass(frozen=True)
class Layer:
    """One draw: a convolution's sizes and steps, and the op to time."""

    op: str
    dtype: str
    batch: int
    in_channels: int
    out_channels: int
    groups: int
    input: tuple[int, ...]
    taps: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    input_dilation: tuple[int, ...]
    filter_dilation: tuple[int, ...]

    def output(self) -> tuple[int, ...]:
        return tuple(
            map(
                _output,
                self.input,
                self.taps,
                self.stride,
                self.padding,
                self.input_dilation,
                self.filter_dilation,
            )
        )

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {
            "x": (self.batch, *self.input, self.in_channels),
            "w": (*self.taps, self.in_channels // self.groups, self.out_channels),
            "dy": (self.batch, *self.output(), self.out_channels),
        }


def _output(size: int, taps: int, stride: int, padding: tuple[int, int], dilation: int, spread: int) -> int:
    return ((size - 1) * dilation + 1 + sum(padding) - ((taps - 1) * spread + 1)) // stride + 1


def _log_uniform(random: np.random.Generator, most: float) -> int:
    return round(math.exp(random.uniform(0, math.log(max(most, 1)))))


def _axis(random: np.random.Generator, axes: int) -> tuple[int, int, int, tuple[int, int], int, int] | None:
    """Input, taps, stride, padding and the two dilations; None if the draw has no output."""
    largest = {1: 1 << 19, 2: 2000, 3: 150}[axes]
    taps = _log_uniform(random, min(_MOST_TAPS, largest)) if random.random() < 0.8 else 1
    stride = _log_uniform(random, _MOST_STRIDE) if random.random() < 0.5 else 1
    spread = _log_uniform(random, _MOST_DILATION) if random.random() < 0.25 else 1
    dilation = _log_uniform(random, _MOST_STRIDE) if random.random() < 0.3 else 1
    if random.random() < 0.3:  # patches, or a transposed layer's kernel: a small multiple of the step
        taps = min(max(stride, dilation) * int(random.integers(1, 4)), _MOST_TAPS)
    window = (taps - 1) * spread + 1
    size = _log_uniform(random, largest)
    kind = random.random()
    if kind < 0.4:
        padding = (0, 0)
    elif kind < 0.7:
        padding = ((window - 1) // 2, window // 2)
    else:
        padding = tuple(int(random.integers(-3, 2 * window)) for _ in range(2))
    if random.random() < 0.5:  # outputs first
        outputs = _log_uniform(random, largest)
        size = ((outputs - 1) * stride + window - sum(padding) - 1) // dilation + 1
    if size < 1 or _output(size, taps, stride, padding, dilation, spread) < 1:
        return None
    return size, taps, stride, padding, dilation, spread


def _tied(size: int, taps: int, stride: int, padding: tuple[int, int], dilation: int, spread: int) -> float:
    """About how many (output, tap) pairs meet an input: at most one for each pair of an input and a tap."""
    output = _output(size, taps, stride, padding, dilation, spread)
    step = math.gcd(stride, dilation)
    return min(output * taps / (dilation / math.gcd(dilation, math.gcd(step, spread))), size * taps)


def draw(random: np.random.Generator) -> Layer:
    """A layer within the bounds on numbers and products."""
    while True:
        axes = int(random.choice([1, 2, 3], p=[0.6, 0.25, 0.15]))
        drawn = [_axis(random, axes) for _ in range(axes)]
        if any(axis is None for axis in drawn):
            continue
        in_channels, out_channels = (int(random.choice([1, 2, 3, 4, 8, 16, 32, 64, 128])) for _ in range(2))
        groups = 1
        if random.random() < 0.15:
            groups = in_channels
            out_channels = in_channels * int(random.choice([1, 1, 2]))
        size, taps, stride, padding, dilation, spread = zip(*drawn, strict=True)
        layer = Layer(
            str(random.choice(_OPS)),
            str(random.choice(["float32", "bfloat16"], p=[0.9, 0.1])),
            int(random.choice([1, 1, 2, 4])),
            in_channels, out_channels, groups, size, taps, stride, padding, dilation, spread,
        )  # fmt: skip
        channels = in_channels // groups * out_channels * layer.batch
        dense = channels * math.prod(layer.taps) * max(math.prod(layer.output()), math.prod(layer.input))
        products = channels * math.prod(_tied(*axis) for axis in drawn)
        numbers = max(math.prod(shape) for shape in layer.shapes().values())
        if numbers <= _MOST_NUMBERS and products <= _MOST_PRODUCTS and dense <= _MOST_DENSE:
            return layer


def _function(conv: Callable[..., jax.Array], layer: Layer) -> Callable[..., jax.Array]:
    def forward(x: jax.Array, w: jax.Array) -> jax.Array:
        return conv(
            x, w, layer.stride, layer.padding, layer.input_dilation, layer.filter_dilation,
            _SPECS[len(layer.taps)], feature_group_count=layer.groups,
        )  # fmt: skip

    if layer.op == "fprop":
        return forward
    if layer.op == "dgrad":
        return lambda w, dy: jax.vjp(lambda x: forward(x, w), jnp.zeros(layer.shapes()["x"], dy.dtype))[1](
            dy
        )[0]
    return lambda x, dy: jax.vjp(lambda w: forward(x, w), jnp.zeros(layer.shapes()["w"], x.dtype))[1](dy)[0]


class _Call:
    """A compiled program with its operands, and the least time of a call."""

    def __init__(self, conv: Callable[..., jax.Array], layer: Layer, operands: list[jax.Array]):
        self._compiled = jax.jit(_function(conv, layer)).lower(*operands).compile()
        self._operands = operands
        self.least = math.inf
        self()

    def __call__(self) -> jax.Array:
        return jax.block_until_ready(self._compiled(*self._operands))

    def time(self, calls: int) -> None:
        for _ in range(calls):
            start = time.perf_counter()
            self()
            self.least = min(self.least, time.perf_counter() - start)


_NUMBERS = np.random.default_rng(0).standard_normal(_MOST_NUMBERS, dtype=np.float32)


def _operands(layer: Layer) -> list[jax.Array]:
    names = {"fprop": ("x", "w"), "dgrad": ("w", "dy"), "wgrad": ("x", "dy")}[layer.op]
    shapes = layer.shapes()
    return [jnp.asarray(_NUMBERS[: math.prod(shapes[n])].reshape(shapes[n]), layer.dtype) for n in names]


def ratio(layer: Layer, floor: float, bound: float, most: float = 2.0) -> tuple[float, float, float]:
    """Our least time divided by lax's, and both in seconds; (0, ours, nan) if ours is below the floor.

    Args:
      layer: the layer and op to time.
      floor: seconds below which ours is fast enough in any case.
      bound: a ratio above it is measured again, up to three times.
      most: about how many seconds of turns a measurement takes.
    """
    operands = _operands(layer)
    ours = _Call(jax_convgrad.conv_general_dilated, layer, operands)
    ours.time(2)
    if ours.least > floor:
        ours.time(3)
    if ours.least <= floor:
        return 0.0, ours.least, math.nan
    lax = _Call(jax.lax.conv_general_dilated, layer, operands)
    found = math.inf
    for attempt in range(4):
        ours.least = lax.least = math.inf
        end = time.perf_counter() + most * (attempt + 1) / 8
        while True:
            ours.time(2)
            lax.time(2)
            if time.perf_counter() > end or (attempt == 0 and ours.least < bound * lax.least):
                break
        found = min(found, ours.least / lax.least)
        if found <= bound or ours.least <= floor:
            break
    return (found if ours.least > floor else 0.0), ours.least, lax.least


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--problems", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="the index of the first problem to time")
    parser.add_argument("--bound", type=float, default=1.5, help="the largest allowed ratio, ours / lax")
    parser.add_argument("--floor", type=float, default=2e-4, help="seconds below which a call is fast enough")
    parser.add_argument("--show", type=int, default=10, help="how many of the largest ratios to print")
    args = parser.parse_args()
    worst: list[tuple[float, float, float, int, Layer]] = []
    timed, above, begin = 0, 0, time.perf_counter()
    for index in range(args.first, args.first + args.problems):
        layer = draw(np.random.default_rng([args.seed, index]))
        found, ours, lax = ratio(layer, args.floor, args.bound)
        timed += found > 0
        if found > args.bound:
            above += 1
            print(
                f"#{index}: {found:.2f}  ours {ours * 1e3:.2f} ms, lax {lax * 1e3:.2f} ms  {layer}",
                flush=True,
            )
        worst = sorted([*worst, (found, ours, lax, index, layer)], key=lambda row: -row[0])[: args.show]
        if index % 200 == 199:
            jax.clear_caches()
    print(
        f"{args.problems} problems in {time.perf_counter() - begin:.0f} s, "
        f"{timed} of them above {args.floor * 1e3:g} ms"
    )
    print(f"ours / lax, the {len(worst)} largest:")
    for found, ours, lax, index, layer in worst:
        print(f"{found:6.2f}  ours {ours * 1e3:8.3f} ms  lax {lax * 1e3:8.3f} ms  #{index} {layer}")
    if above:
        sys.exit(f"{above} problems take more than {args.bound} times as long as on lax")


if __name__ == "__main__":
    main()
