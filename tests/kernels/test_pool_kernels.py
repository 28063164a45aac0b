"""The vector kernels of pooling and bgrad on every instruction set, compared with the reference kernels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from pool_cases import DTYPES, WINDOWS, bits, call, numbers, shapes, traced, with_rarities
from tolerance import assert_within, sum_bound

from jax_convgrad.geometry import Axis
from jax_convgrad.primitives import targets

KERNELS = [
    f"auto.{isa}"
    for isa in targets.backends["cpu"].module.instruction_sets()
    if isa != "avx512_bf16"  # runs the code for avx512
]

# Channels below, at and above a vector's lanes, with one or several pixels per vector; rows that are long
# enough for a few vectors and a rest.
CHANNELS = {
    "float32": [1, 3, 7, 16, 17, 272],
    "float64": [1, 72],
    "bfloat16": [2, 31],
    "float16": [8, 33],
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("window", WINDOWS)
def test_max_pool_is_reference(window, dtype):
    """The bits are those of the reference kernel, which other tests compare with the NumPy reference."""
    axes = WINDOWS[window]

    def run(x, dy):
        results = [(dy.shape, dy.dtype), (dy.shape, np.int32)]
        _, position = traced("max_pool_argmax", "reference", [x], results, axes)
        made = {}
        for kernel in ["reference", *KERNELS]:
            y, its_position = traced("max_pool_argmax", kernel, [x], results, axes)
            alone = traced("max_pool", kernel, [x], results[:1], axes)[0]
            dx = traced("max_pool_grad", kernel, [dy, position], [(x.shape, dy.dtype)], axes)[0]
            made[kernel] = {"y": y, "position": its_position, "y alone": alone, "dx": dx}
        return made

    operands = {}
    for channels in CHANNELS[dtype]:
        inputs, outputs = shapes(axes, channels)
        operands[channels] = (
            with_rarities(numbers(inputs, dtype, channels)),
            numbers(outputs, dtype, channels + 1),
        )
    made = jax.jit(lambda operands: {at: run(*pair) for at, pair in operands.items()})(operands)
    for channels, by_kernel in made.items():
        expected = {what: bits(np.asarray(a)) for what, a in by_kernel["reference"].items()}
        np.testing.assert_array_equal(expected["y alone"], expected["y"])
        for kernel in KERNELS:
            for what, ours in by_kernel[kernel].items():
                ours = bits(np.asarray(ours))
                np.testing.assert_array_equal(ours, expected[what], f"{what} {kernel} {channels}")


@pytest.mark.parametrize("channels", [1, 3, 8, 20])
def test_positions_of_other_windows(channels):
    """A position outside the window gets nothing, whatever the buffer contains."""
    for name in ("3x3s2 padded", "gaps", "2x2s2"):
        axes = WINDOWS[name]
        inputs, outputs = shapes(axes, channels)
        dy = numbers(outputs, "float32", 1)
        x, results = numbers(inputs, "float32", 3), [(outputs, np.float32), (outputs, np.int32)]
        position = call("max_pool_argmax", "reference", [x], results, axes)[1]
        position = position + np.random.default_rng(2).integers(-2, 3, outputs, np.int32)
        (dx,) = call("max_pool_grad", "reference", [dy, position], [(inputs, np.float32)], axes)
        assert 0.2 < np.count_nonzero(dx) / dy.size < 0.95
        for kernel in KERNELS:
            ours = call("max_pool_grad", kernel, [dy, position], [(inputs, np.float32)], axes)[0]
            np.testing.assert_array_equal(ours, dx, f"{kernel} {name}")


@pytest.mark.parametrize("images, positions", [(6, 2), (2, 6)])
def test_fewer_images(images, positions):
    axes = WINDOWS["3x3s2 padded"]
    for channels in (3, 16):
        inputs, outputs = shapes(axes, channels, 6)
        x = numbers((positions, *inputs[1:]), "float32", 3)
        results = [((positions, *outputs[1:]), dtype) for dtype in (np.float32, np.int32)]
        position = call("max_pool_argmax", "reference", [x], results, axes)[1]
        dy = numbers((images, *outputs[1:]), "float32", 4)
        whole = [np.tile(a, (6 // len(a), 1, 1, 1)) for a in (dy, position)]
        (dx,) = call("max_pool_grad", "reference", whole, [(inputs, np.float32)], axes)
        for kernel in ["reference", *KERNELS]:
            ours = call("max_pool_grad", kernel, [dy, position], [(inputs, np.float32)], axes)[0]
            np.testing.assert_array_equal(ours, dx, kernel)


@pytest.mark.parametrize("include", [True, False], ids=["include_pad", "exclude_pad"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("window", WINDOWS)
def test_avg_pool(window, dtype, include):
    axes = WINDOWS[window]
    taps = np.prod([a.taps for a in axes])
    kernels = ["reference", *KERNELS]
    operands, results = {}, {}
    for channels in CHANNELS[dtype][::2]:
        inputs, outputs = shapes(axes, channels)
        for target, of, to in (("avg_pool", inputs, outputs), ("avg_pool_grad", outputs, inputs)):
            operands[target, channels] = numbers(of, dtype, 5 + len(operands) % 2)
            results[target, channels] = [(to, operands[target, channels].dtype)]

    @jax.jit
    def run(operands):
        return {
            at: [traced(at[0], kernel, [operand], results[at], axes, include)[0] for kernel in kernels]
            for at, operand in operands.items()
        }

    made = run(operands)
    for (target, channels), operand in operands.items():
        f = getattr(reference, target)
        with np.errstate(invalid="ignore"):
            exact, magnitude = f(operand, axes, include), f(np.abs(operand), axes, include)
        bound = sum_bound(dtype, taps + 1, magnitude, exact)
        for kernel, ours in zip(kernels, made[target, channels], strict=True):
            assert_within(ours, exact, bound, f"{target} {kernel} {channels}")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", [1, 3, 17, 64, 2048])
def test_bgrad(channels, dtype):
    backend = targets.backends["cpu"]
    for rows in (1, 63, 150000 // channels):
        dy = numbers((rows, channels), dtype, rows)
        exact = dy.astype(np.float64).sum(0)
        bound = sum_bound(dtype, rows, np.abs(dy.astype(np.float64)).sum(0), exact)
        size = backend.module.bgrad_workspace_bytes(dtype=dtype, rows=rows, channels=channels)
        results = [jax.ShapeDtypeStruct((channels,), dy.dtype), jax.ShapeDtypeStruct((size,), np.uint8)]
        for kernel in ["reference", *KERNELS]:
            made = jax.ffi.ffi_call(backend.prefix + "bgrad", results)(
                dy, channel_axis=np.int64(1), kernel=kernel
            )
            assert_within(made[0], exact, bound, f"{kernel} {rows}")


@pytest.mark.parametrize("kernel", KERNELS)
def test_long_bias_sum(kernel):
    """Sums of positive numbers, in which every rounding adds up: a single running sum loses three digits."""
    backend = targets.backends["cpu"]
    dy = np.random.default_rng(0).random((300000, 3), np.float32)
    size = backend.module.bgrad_workspace_bytes(dtype="float32", rows=len(dy), channels=3)
    results = [jax.ShapeDtypeStruct((3,), jnp.float32), jax.ShapeDtypeStruct((size,), np.uint8)]
    db = jax.ffi.ffi_call(backend.prefix + "bgrad", results)(dy, channel_axis=np.int64(1), kernel=kernel)[0]
    np.testing.assert_allclose(db, dy.astype(np.float64).sum(0), rtol=4 * np.finfo(np.float32).eps)


def test_an_unknown_kernel_is_refused():
    x = jnp.ones((1, 4, 4, 1), jnp.float32)
    axes = (Axis(4, 2, 2), Axis(4, 2, 2))
    with pytest.raises(jax.errors.JaxRuntimeError, match="INVALID_ARGUMENT"):
        call("max_pool", "fastest", [x], [((1, 2, 2, 1), np.float32)], axes)
