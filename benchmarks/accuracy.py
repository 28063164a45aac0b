"""Compares the rounding errors of a layer's convolutions with those of jax.lax in float32, on the CPU.

python benchmarks/accuracy.py
python benchmarks/accuracy.py "8x56x56x64, 3x3, 64, pad 1" --kinds normal,relu

The table is the one of docs/winograd.md. Each cell has the root mean square of the errors and the largest
error, both divided by lax's, below precision HIGHEST and at HIGHEST. The exact results are lax's in float64.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence

import jax
import numpy as np

import jax_convgrad as jc
from jax_convgrad.instruments.layer_text import Layer, parse_layer

LAYERS = (
    "2x56x56x64, 3x3, 64, pad 1",
    "2x28x28x128, 3x3, 128, pad 1",
    "2x14x14x256, 3x3, 256, pad 1",
    "8x7x7x512, 3x3, 512, pad 1",
)
KINDS = {
    "normal": "x and dy normally distributed, as w is in all rows but the last",
    "relu": "the negative numbers of x and dy are 0",
    "channels": "each channel of x and dy times a number between 0.001 and 1000",
    "pixels": "each pixel of x and dy times such a number",
    "constant": "x, w and dy are the same number everywhere",
}
RESULTS = ("y", "dx", "dw")
HEAD = ("numbers", "channels", *(f"{of}, {at}" for at in ("default", "HIGHEST") for of in RESULTS))


def operands(layer: Layer, kind: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x, w and dy."""
    random = np.random.default_rng(0)
    x, dy = (_numbers(random, shape, kind) for shape in (layer.x_shape, layer.y_shape))
    return x, _numbers(random, layer.w_shape, kind if kind == "constant" else "normal"), dy


def _numbers(random: np.random.Generator, shape: Sequence[int], kind: str) -> np.ndarray:
    if kind == "constant":
        return np.full(shape, 0.7316, np.float32)
    a = random.standard_normal(shape)
    if kind == "relu":
        a = np.maximum(a, 0)
    elif kind == "channels":
        a *= 10 ** random.uniform(-3, 3, shape[-1:])
    elif kind == "pixels":
        a *= 10 ** random.uniform(-3, 3, (*shape[:-1], 1))
    return a.astype(np.float32)


def results(layer: Layer, conv, arrays, precision: str) -> list[np.ndarray]:
    """y, dx and dw, by ``conv`` and its vjp."""
    spatial = "DHW"[3 - len(layer.taps) :]
    order = f"N{spatial}C", f"{spatial}IO", f"N{spatial}C"

    def run(x, w, dy):
        y, backward = jax.vjp(
            lambda x, w: conv(
                x, w, layer.stride, layer.pad, None, layer.dilation, order, layer.groups, precision=precision
            ),
            x,
            w,
        )
        return y, *backward(dy)

    return [np.asarray(a, np.float64) for a in jax.jit(run)(*arrays)]


def errors(found: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """The root mean square of the errors and the largest error."""
    error = np.abs(found - exact)
    return np.array([np.sqrt((error**2).mean()), error.max()])


def ratios(layer: Layer, kind: str) -> dict[str, list[np.ndarray]]:
    """For each of y, dx and dw the errors divided by lax's, by precision."""
    arrays = operands(layer, kind)
    wide = [a.astype(np.float64) for a in arrays]
    with jax.enable_x64(True):
        exact = results(layer, jax.lax.conv_general_dilated, wide, "highest")
    by_lax = results(layer, jax.lax.conv_general_dilated, arrays, "highest")
    return {
        precision: [
            errors(ours, e) / errors(lax, e)
            for ours, lax, e in zip(
                results(layer, jc.conv_general_dilated, arrays, precision), by_lax, exact, strict=True
            )
        ]
        for precision in ("default", "highest")
    }


def rows(layers: Sequence[Layer], kinds: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """The rows of the table."""
    for kind in kinds:
        for layer in layers:
            cells = (
                f"{rms:.1f} / {largest:.1f}" for at in ratios(layer, kind).values() for rms, largest in at
            )
            yield kind, str(layer.in_channels), *cells


def main(argv: list[str] | None = None) -> None:
    """Prints the table, in Markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("layers", nargs="*", default=LAYERS, help="as in the example")
    parser.add_argument("--kinds", default=",".join(KINDS), help="default: %(default)s")
    args = parser.parse_args(argv)
    kinds = args.kinds.split(",")
    if unknown := set(kinds) - set(KINDS):
        parser.error(f"--kinds: {', '.join(sorted(unknown))} is not one of {', '.join(KINDS)}")
    try:
        layers = [parse_layer(layer) for layer in args.layers]
    except ValueError as error:
        parser.error(str(error))
    print(f"| {' | '.join(HEAD)} |\n|---|{'--:|' * (len(HEAD) - 1)}")
    for row in rows(layers, kinds):
        print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
