"""The workspace of calls is at most as large as README.md promises, for random problems."""

import math
import random

import pytest
from emulated_launches import conv_workspace_bytes

from jax_convgrad.primitives import targets

BYTES = {"float32": 4, "float64": 8, "bfloat16": 2, "float16": 2}
CHANNELS = (1, 2, 3, 4, 8, 16, 32, 64, 128)
LARGEST = 2**28  # numbers in x and y


def axis(draw):
    """Input, taps, output, stride, pad_lo and both dilations of a random axis."""
    size, taps = draw.choice((1, 3, 7, 14, 28, 56, 112, 224, 1000)), draw.choice((1, 1, 3, 3, 5, 7))
    # README.md makes an exception for dX of larger strides.
    stride, dilation = draw.choice((1, 1, 1, 2, 2, 3)), draw.choice((1, 1, 1, 2))
    pad = draw.choice((0, (taps - 1) * dilation // 2))
    output = max((size + 2 * pad - (taps - 1) * dilation - 1) // stride + 1, 0)
    return size, taps, output, stride, pad, 1, dilation


def problems(count):
    """Yields arguments of conv_workspace_bytes, how many numbers x and y have, and the number of taps."""
    draw = random.Random(0)
    while count:
        groups, trivial = draw.choice((1, 1, 1, 2, 4, 16, 64)), (1, 1, 1, 1, 0, 1, 1)
        channels_in, channels_out = (groups * draw.choice(CHANNELS) for _ in range(2))
        axes = [trivial, draw.choice((trivial, axis(draw))), axis(draw)]
        batch = draw.choice((1, 2, 8, 32, 128))
        x = batch * channels_in * math.prod(a[0] for a in axes)
        y = batch * channels_out * math.prod(a[2] for a in axes)
        if y and max(x, y) <= LARGEST:
            count -= 1
            yield (
                {
                    "dtype": draw.choice(list(BYTES)),
                    "batch": batch,
                    "in_channels": channels_in,
                    "out_channels": channels_out,
                    "groups": groups,
                    "axes": axes,
                },
                x + y,
                math.prod(a[1] for a in axes),
            )


def allowed(op, problem, activations, taps, *, vector_bytes=0):
    """The filter, with one side in whole vectors of channels, or a twentieth of the activations."""
    item, groups = BYTES[problem["dtype"]], problem["groups"]
    width = max(item, 4)
    lanes = max(vector_bytes // width, 1)
    inner, outer = problem["in_channels"] // groups, problem["out_channels"] // groups
    if op == "dgrad":
        inner, outer = outer, inner
    if op != "wgrad":
        outer = -(-outer // lanes) * lanes
    return max(taps * inner * outer * groups * width, activations * item / 20)


@pytest.mark.parametrize("op", ["fprop", "dgrad", "wgrad"])
def test_on_a_cpu(op):
    module = targets.backends["cpu"].module
    for problem, activations, taps in problems(2000):
        found = module.conv_workspace_bytes(op=op, kernel="auto", below_highest=False, **problem)
        assert found <= allowed(op, problem, activations, taps, vector_bytes=64), problem


@pytest.mark.emulator
@pytest.mark.parametrize("op", ["fprop", "dgrad", "wgrad"])
def test_on_cuda(op):
    for problem, activations, taps in problems(2000):
        found = conv_workspace_bytes(op, "auto", below_highest=True, **problem)
        partial_sums = 2**20 * (32 if problem["dtype"] == "float64" else 16)
        limit = max(allowed(op, problem, activations, taps), partial_sums if op == "wgrad" else 0)
        assert found <= limit, problem
