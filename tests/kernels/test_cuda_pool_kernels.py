"""CUDA's vector kernels of pooling and the bias gradient, compared with the reference kernels or the sums."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from backends import PLATFORM, cuda_backend
from pool_cases import DTYPES, WINDOWS, axes_of, bits, call, numbers, shapes, traced, with_rarities
from tolerance import assert_within, sum_bound

from jax_convgrad.primitives import targets

pytestmark = [
    pytest.mark.parametrize("backend", [cuda_backend("reference")], indirect=True),
    pytest.mark.usefixtures("backend"),
]

# One or several whole vectors of 16 bytes; vectors of 4 bytes if the number is even; otherwise one number.
CHANNELS = {
    "float32": [1, 3, 4, 12],
    "float64": [3, 4],
    "bfloat16": [5, 6, 16],
    "float16": [2, 8, 9],
}
# Windows that have special kernels, with an edge in each possible place, and steps that these kernels and the
# general gradient have to handle.
CUDA_WINDOWS = WINDOWS | {
    "2x2s2 padded": axes_of((7, 2, 2, 1, 0, 1), (8, 2, 2, 1, 1, 1)),
    "2x2s2 cropped": axes_of((9, 2, 2, -1, -2, 1), (12, 2, 2, -3, 0, 1)),
    "2x2s1": axes_of((5, 2, 1, 0, 0, 1), (6, 2, 1, 1, 0, 1)),
    "3x3s2 cropped": axes_of((9, 3, 2, -1, 2, 1), (12, 3, 2, -2, -1, 1)),
    "3x3s1 far padded": axes_of((4, 3, 1, 5, 4, 1), (3, 3, 1, 4, 6, 1)),
    "3x3s3": axes_of((8, 3, 3, 1, 1, 1), (9, 3, 3, 0, 0, 1)),
    "3x3 dilated": axes_of((9, 3, 1, 2, 2, 2), (10, 3, 2, 3, 2, 3)),
    "stride 5 dilation 3": axes_of((1, 1, 1, 0, 0, 1), (50, 6, 5, 7, 4, 3)),
    "stride 4 dilation 6": axes_of((1, 1, 1, 0, 0, 1), (50, 4, 4, 9, 10, 6)),
    "1d": axes_of((29, 3, 2, 1, 1, 1)),
    "3d 2x2x2s2": axes_of((4, 2, 2, 1, 1, 1), (5, 2, 2, 0, 1, 1), (6, 2, 2, 0, 0, 1)),
    "3d 3x3x3s1": axes_of((3, 3, 1, 1, 1, 1), (4, 3, 1, 1, 1, 1), (5, 3, 1, 1, 1, 1)),
    "3d 3x3 in a long sum": axes_of((17, 16, 1, 0, 0, 1), (4, 3, 2, 1, 1, 1), (5, 3, 2, 1, 1, 1)),
    "one window": axes_of((7, 7, 1, 0, 0, 1), (7, 7, 1, 0, 0, 1)),
}


def assert_same_bits(made):
    """made: by the channels, by what it is, the vector kernel's result and the reference one's."""
    for channels, pairs in made.items():
        for what, (ours, expected) in pairs.items():
            np.testing.assert_array_equal(
                bits(np.asarray(ours)), bits(np.asarray(expected)), f"{what} {channels}"
            )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("window", CUDA_WINDOWS)
def test_max_pool_is_reference(window, dtype):
    """The bits are those of the reference kernel, which other tests compare with the NumPy reference."""
    axes = CUDA_WINDOWS[window]

    def run(x, dy):
        results = [(dy.shape, dy.dtype), (dy.shape, np.int32)]
        y, position = traced("max_pool_argmax", "reference", [x], results, axes)
        ours = traced("max_pool_argmax", "vector", [x], results, axes)
        alone = traced("max_pool", "vector", [x], results[:1], axes)[0]
        pairs = {"y": (ours[0], y), "position": (ours[1], position), "y alone": (alone, y)}
        for target, operand, shape in (("max_pool_grad", dy, x.shape), ("max_pool_select", x, dy.shape)):
            pairs[target] = [
                traced(target, kernel, [operand, position], [(shape, dy.dtype)], axes)[0]
                for kernel in ("vector", "reference")
            ]
        return pairs

    operands = {}
    for channels in CHANNELS[dtype]:
        inputs, outputs = shapes(axes, channels)
        x, dy = with_rarities(numbers(inputs, dtype, channels)), numbers(outputs, dtype, channels + 1)
        dy.reshape(-1)[::5], dy.reshape(-1)[3::17] = -0.0, np.nan
        operands[channels] = x, dy
    assert_same_bits(jax.jit(lambda operands: {at: run(*pair) for at, pair in operands.items()})(operands))


@pytest.mark.parametrize("include", [True, False], ids=["include_pad", "exclude_pad"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("window", CUDA_WINDOWS)
def test_avg_pool_is_reference(window, dtype, include):
    """The terms are added in the same order, so the bits are the same."""
    axes = CUDA_WINDOWS[window]

    def run(x, dy):
        return {
            target: [
                traced(target, kernel, [operand], [(shape, operand.dtype)], axes, include)[0]
                for kernel in ("vector", "reference")
            ]
            for target, operand, shape in (("avg_pool", x, dy.shape), ("avg_pool_grad", dy, x.shape))
        }

    operands = {
        channels: [numbers(shape, dtype, 5 + at) for at, shape in enumerate(shapes(axes, channels))]
        for channels in CHANNELS[dtype][1:]
    }
    assert_same_bits(jax.jit(lambda operands: {at: run(*pair) for at, pair in operands.items()})(operands))


@pytest.mark.parametrize("channels", [3, 4])
def test_positions_that_no_window_chose(channels):
    """A position outside the window gets nothing, and a position outside the input reads 0."""
    for name in ("2x2s2", "2x2s2 padded", "3x3s2 padded", "3x3s1 far padded", "gaps"):
        axes = CUDA_WINDOWS[name]
        inputs, outputs = shapes(axes, channels)
        x, dy = numbers(inputs, "float32", 3), numbers(outputs, "float32", 1)
        results = [(outputs, np.float32), (outputs, np.int32)]
        position = call("max_pool_argmax", "reference", [x], results, axes)[1]
        rng = np.random.default_rng(2)
        position = position + rng.integers(-2, 3, outputs, np.int32)
        position.reshape(-1)[::13] = rng.choice([-(2**31), -1, inputs[1] * inputs[2], 2**31 - 1])
        for target, operand, shape in (("max_pool_grad", dy, inputs), ("max_pool_select", x, outputs)):
            expected, ours = (
                call(target, kernel, [operand, position], [(shape, np.float32)], axes)[0]
                for kernel in ("reference", "vector")
            )
            assert np.count_nonzero(expected) > 30
            np.testing.assert_array_equal(ours, expected, f"{target} {name}")


@pytest.mark.parametrize("images, positions", [(6, 2), (2, 6)])
def test_fewer_images(images, positions):
    """An operand with fewer images than the result gives the same as copies of it."""
    for name in ("2x2s2", "3x3s2 padded", "gaps", "3d"):
        axes = CUDA_WINDOWS[name]
        for channels in (3, 4):
            inputs, outputs = shapes(axes, channels, 6)
            position = np.random.default_rng(3).integers(
                0, np.prod(inputs[1:-1]), (positions, *outputs[1:]), np.int32
            )
            for target, source, result in (
                ("max_pool_grad", outputs, inputs),
                ("max_pool_select", inputs, outputs),
            ):
                operand = numbers((images, *source[1:]), "float32", 4)
                whole = [np.concatenate([a] * (6 // len(a))) for a in (operand, position)]
                (expected,) = call(target, "reference", whole, [(result, np.float32)], axes)
                ours = call(target, "vector", [operand, position], [(result, np.float32)], axes)[0]
                np.testing.assert_array_equal(ours, expected, f"{target} {name} {channels}")


def bgrad(dy, kernel):
    backend = targets.backends[PLATFORM]
    rows, channels = dy.shape
    size = backend.module.bgrad_workspace_bytes(dtype=dy.dtype.name, rows=rows, channels=channels)
    results = [jax.ShapeDtypeStruct((channels,), dy.dtype), jax.ShapeDtypeStruct((size,), np.uint8)]
    made = jax.ffi.ffi_call(backend.prefix + "bgrad", results)(dy, channel_axis=np.int64(1), kernel=kernel)
    return np.asarray(made[0])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", [1, 3, 8, 17, 64, 260, 515, 1027])
def test_bgrad(channels, dtype):
    """Lines of one row and of several, tiles that end with the line and behind it, rows that fill no line."""
    for rows in (1, 2, 129, 120000 // channels + 5):
        dy = numbers((rows, channels), dtype, rows)
        exact = dy.astype(np.float64).sum(0)
        bound = sum_bound(dtype, rows, np.abs(dy.astype(np.float64)).sum(0), exact)
        assert_within(bgrad(dy, "vector"), exact, bound, f"{rows} rows")


@pytest.mark.parametrize("shape", [(0, 5), (0, 1), (7, 0)], ids=str)
def test_empty_bgrad(shape):
    np.testing.assert_array_equal(bgrad(np.ones(shape, np.float32), "vector"), np.zeros(shape[1]))


def test_long_bias_sum():
    """Sums of positive numbers, in which every rounding adds up: a single running sum loses three digits."""
    dy = np.random.default_rng(0).random((300000, 3), np.float32)
    exact = dy.astype(np.float64).sum(0)
    np.testing.assert_allclose(bgrad(dy, "vector"), exact, rtol=4 * np.finfo(np.float32).eps)
    assert np.max(np.abs(np.cumsum(dy, 0, np.float32)[-1] / exact - 1)) > 1e-5


def test_every_name_but_reference_means_vector():
    """Sums in two orders have different bits; an unknown name raises an error."""
    dy = numbers((5000, 8), "float32", 0)
    by_name = {name: bits(bgrad(dy, name)) for name in ("auto", "vector", "tiled", "reference")}
    np.testing.assert_array_equal(by_name["auto"], by_name["vector"])
    np.testing.assert_array_equal(by_name["tiled"], by_name["vector"])
    assert (by_name["reference"] != by_name["vector"]).any()
    x = jnp.ones((1, 4, 4, 1), jnp.float32)
    for name in ("fastest", ""):
        with pytest.raises(jax.errors.JaxRuntimeError, match="INVALID_ARGUMENT"):
            call(
                "max_pool",
                name,
                [x],
                [((1, 2, 2, 1), np.float32)],
                axes_of((4, 2, 2, 0, 0, 1), (4, 2, 2, 0, 0, 1)),
            )


MOST = (1 << 30) - 1  # the longest step that a call may have


@pytest.mark.parametrize(
    "column",
    [(3, 4, 1, 3 * MOST, 0, MOST), (6, 2, MOST, 5 * MOST, 2 * MOST, 1), (5, 2, 60000, 59997, 60000, 59999)],
    ids=["padding", "stride", "square of the stride"],
)
def test_what_32_bits_do_not_hold(column):
    """Steps that overflow the vector kernels' integers run on the reference kernels."""
    axes = axes_of(column)
    inputs, outputs = shapes(axes, 4)
    x, dy = numbers(inputs, "float32", 1), numbers(outputs, "float32", 2)
    results = [(outputs, np.float32), (outputs, np.int32)]
    y, position = call("max_pool_argmax", "vector", [x], results, axes)
    exact_y, exact_position = reference.max_pool(x, axes)
    assert (exact_position >= 0).any()
    np.testing.assert_array_equal(y, exact_y)
    np.testing.assert_array_equal(position, exact_position)
    (dx,) = call("max_pool_grad", "vector", [dy, position], [(inputs, np.float32)], axes)
    np.testing.assert_array_equal(dx, reference.max_pool_grad(dy, position, axes))
