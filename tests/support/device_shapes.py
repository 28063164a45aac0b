"""A program without pytest: runs every CUDA kernel by name, on every op, for small shapes and all dtypes.

It is made for compute-sanitizer, under which each launch takes long. So it has only a few shapes, with a tail
in every direction, steps, dilations and groups. It checks each result, so that a run without a report has
certainly computed something.

    JAX_CONVGRAD_TEST_DEVICE=cuda compute-sanitizer --tool racecheck python tests/support/device_shapes.py

Exits with 1 if a result is wrong or a kernel was never called. --seconds bounds the run; the program prints
what it leaves out.
"""

import argparse
import itertools
import sys
import time

import backends
import jax
import numpy as np
import reference
from conv_cases import BY_NAME, NHWC, ConvCase
from jax import lax
from served import serves
from tolerance import assert_within, stored_eps, sum_bound

import jax_convgrad as jc
from jax_convgrad.primitives import targets

# Whole vectors of channels, tails in every direction, steps and both dilations, groups of one and of several
# channels, few channels together with many, one and three axes. A run that ends early has run the first ones.
CASES = (
    ConvCase("2d_vectors", (2, 9, 10, 16), (3, 3, 16, 24), 1, "SAME", order=NHWC),
    ConvCase("2d_depthwise_vectors", (1, 9, 20, 16), (3, 3, 1, 16), 1, "SAME", groups=16, order=NHWC),
    ConvCase("2d_few_channels", (2, 11, 10, 3), (5, 5, 3, 64), 2, "SAME", order=NHWC),
    BY_NAME["2d_past_tile_taps"],
    BY_NAME["2d_groups"],
    ConvCase("2d_vectors_s2", (2, 9, 11, 16), (3, 3, 16, 16), 2, "SAME", order=NHWC),
    ConvCase("2d_1x1_vectors", (2, 9, 9, 72), (1, 1, 72, 136), order=NHWC),
    BY_NAME["2d_both_dilations"],
    BY_NAME["2d_depthwise_stride"],
    BY_NAME["1d_causal_dilated"],
    BY_NAME["3d_all"],
    BY_NAME["2d_stride2_same"],
)
# dtype, precision, and the error of a product whose factors are rounded first.
ARITHMETICS = {
    "bfloat16": ("bfloat16", lax.Precision.DEFAULT, 0.0),
    "tf32": ("float32", lax.Precision.DEFAULT, 2.0**-10),
    "float32": ("float32", lax.Precision.HIGHEST, 0.0),
    "float16": ("float16", lax.Precision.DEFAULT, 0.0),
    "float64": ("float64", lax.Precision.HIGHEST, 0.0),
}
OPS = {"fprop": "y", "dgrad": "dx", "wgrad": "dw"}
LAYER = "fprop with bias and relu"
POOL_AXES = [reference.Axis(9, 3, 2, 1, 1), reference.Axis(10, 2, 2, 0, 0)]


def has_layer(case):
    """Whether jc.conv supports the case: a layer has no input dilation."""
    return all(axis.input_dilation == 1 for axis in case.axes)


def run_conv(kernel, case, arithmetic):
    """Checks each op that the kernel supports against the float64 sums, and returns how many there are.

    fprop also runs in another call with the epilogue, the bias and relu of a layer.
    """
    dtype, precision, factors_eps = ARITHMETICS[arithmetic]
    module = targets.backends[backends.PLATFORM].module
    ops = [op for op in OPS if serves(module, kernel, op, case, dtype, tf32=factors_eps > 0)]
    if not ops:
        return 0
    x, w, dy = case.arrays(dtype)
    rest = dict(case.grad_arguments, precision=precision)
    calls = {
        "fprop": lambda x, w, dy: jc.conv_general_dilated(x, w, **case.lax_arguments, precision=precision),
        "dgrad": lambda x, w, dy: jc.conv_input_grad(dy, w, x.shape, **rest),
        "wgrad": lambda x, w, dy: jc.conv_filter_grad(x, dy, w.shape, **rest),
    }
    exact, magnitude = case.reference(x, w, dy), case.reference(x, w, dy, reduce_abs=True)
    sums = {op: (exact[OPS[op]], magnitude[OPS[op]], case.sum_lengths[OPS[op]]) for op in ops}
    # The error from rounding the factors: relu does not increase a difference, and the bias is not a factor.
    factors = {op: factors_eps * magnitude[OPS[op]] for op in ops}
    if "fprop" in ops and has_layer(case):
        channel = case.to_canonical[2][-1]
        b = np.random.default_rng(1).standard_normal(case.y[channel]).astype(dtype)
        layer = dict(rest, activation="relu")
        del layer["input_dilation"]
        calls[LAYER] = lambda x, w, dy: jc.conv(x, w, b, **layer)
        wide = b.astype(np.float64).reshape([-1 if d == channel else 1 for d in range(case.rank + 2)])
        sums[LAYER] = (
            np.maximum(exact["y"] + wide, 0), magnitude["y"] + np.abs(wide), case.sum_lengths["y"] + 1
        )  # fmt: skip
        factors[LAYER] = factors["fprop"]
    results = jax.jit(lambda *arrays: {op: calls[op](*arrays) for op in sums})(x, w, dy)
    for op, result in results.items():
        right, size, length = sums[op]
        what = f"{op} of {case.name} in {arithmetic} by {kernel}"
        assert_within(result, right, sum_bound(dtype, length, size, right) + factors[op], what)
    return len(results)


def run_rest(kernel, arithmetic):
    """Checks pooling and the bias gradient, whose kernels the kernel's name also selects."""
    dtype = ARITHMETICS[arithmetic][0]
    random = np.random.default_rng(0)
    count = 0
    for channels in (5, 16):
        x = random.standard_normal((2, 9, 10, channels)).astype(dtype)
        dy = random.standard_normal((2, 5, 5, channels)).astype(dtype)
        pad = ((1, 1), (0, 0))

        @jax.jit
        def run(x, dy, pad=pad):
            y, max_vjp = jax.vjp(lambda x: jc.max_pool(x, (3, 2), (2, 2), pad), x)
            mean, avg_vjp = jax.vjp(lambda x: jc.avg_pool(x, (3, 2), (2, 2), pad), x)
            return y, max_vjp(dy)[0], mean, avg_vjp(dy)[0], jc.conv_bias_grad(dy)

        wide_x, wide_dy = x.astype(np.float64), dy.astype(np.float64)
        y, position = reference.max_pool(wide_x, POOL_AXES)
        exact = {
            "max_pool": y,
            "max_pool_grad": reference.max_pool_grad(wide_dy, position, POOL_AXES),
            "avg_pool": reference.avg_pool(wide_x, POOL_AXES),
            "avg_pool_grad": reference.avg_pool_grad(wide_dy, POOL_AXES),
            "bgrad": reference.bgrad(wide_dy),
        }
        for (op, right), result in zip(exact.items(), run(x, dy), strict=True):
            bound = sum_bound(dtype, 50, np.abs(right) + np.abs(wide_dy).max(), right)
            assert_within(result, right, bound + stored_eps(dtype), f"{op} in {arithmetic} by {kernel}")
            count += 1
    return count


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition(".")[0])
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin nothing after so many")
    parser.add_argument("--cases", type=int, default=len(CASES), help="the first so many shapes alone")
    parser.add_argument("--arithmetics", default=",".join(ARITHMETICS), help="default: %(default)s")
    args = parser.parse_args()
    arithmetics = args.arithmetics.split(",")
    start, wrong, silent, left_out = time.monotonic(), [], [], 0
    backends.install(backends.cuda_backend("reference"))
    kernels = targets.backends[backends.PLATFORM].module.kernels()
    for number, kernel in enumerate(kernels, 1):
        backends.install(backends.cuda_backend(kernel))
        calls = 0
        last_start = start + args.seconds * number / len(kernels)  # each kernel has an equal share
        convolutions = 0
        tasks = [
            (run_conv, (kernel, case, arithmetic))
            for case, arithmetic in itertools.product(CASES[: args.cases], arithmetics)
        ]
        if kernel in ("reference", kernels[-1]):  # in pooling, all other names select the same kernel
            tasks[1:1] = [(run_rest, (kernel, arithmetic)) for arithmetic in arithmetics]
        for run, arguments in tasks:
            if time.monotonic() > last_start:
                left_out += 1
                continue
            try:
                done = run(*arguments)
            except AssertionError as error:
                wrong.append(str(error))
                continue
            calls += done
            convolutions += done if run is run_conv else 0
        print(f"{kernel}: {calls} calls, {convolutions} of them convolutions", flush=True)
        if not convolutions:
            silent.append(kernel)
    if left_out:
        print(f"left out, as {args.seconds:g} seconds are over: {left_out} of the programs")
    for message in wrong:
        print(f"WRONG: {message}")
    if silent:
        print(f"never called on a convolution: {', '.join(silent)}")
    print(f"{len(kernels)} kernels, {len(wrong)} wrong results, {time.monotonic() - start:.0f} s")
    sys.exit(1 if wrong or silent else 0)


if __name__ == "__main__":
    main()
