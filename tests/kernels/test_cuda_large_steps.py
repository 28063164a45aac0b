"""Launches of the CUDA kernels with large steps have no blocks for results that are tied to nothing.

tests/cuda_emulator/costs/ counts the total cost of calls and compares numbers, as does test_large_steps.py.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from backends import cuda_backend
from emulated_counters import counting
from emulated_launches import conv_launches
from reference import Axis

import jax_convgrad as jc

pytestmark = pytest.mark.emulator

KERNELS = ("tiled", "gemm")
SMALL, LARGE = 16, 16000


def one_tap(step):
    """An axis with one tap and the same number of results for each step."""
    return (LARGE, 1, LARGE // step, step, 0, 1, 1)


def transposed(step):
    """An axis with four taps and inputs that are a step apart."""
    return (32, 4, 31 * step + 4, 1, 3, step, 1)


def past_both_ends(step):
    """An axis whose filter is longer than the padded input."""
    return (8, step, 8, 1, step // 2, 1, 1)


def multiplying(op, kernel, axis, groups=1):
    """The number of blocks in launches that multiply; the others only store."""
    launches = conv_launches(
        op,
        kernel,
        dtype="bfloat16",
        batch=1,
        in_channels=16 * groups,
        out_channels=16 * groups,
        groups=groups,
        axes=[axis],
    )
    stored = ("clear_kernel", "empty_sums_kernel", "add_parts_kernel")
    return sum(launch.blocks for launch in launches if not any(name in launch.kernel for name in stored))


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(
    "op, axis",
    [("dgrad", one_tap), ("fprop", transposed), ("wgrad", transposed), ("fprop", past_both_ends)],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_blocks_do_not_grow_with_a_step(op, axis, kernel, groups):
    assert multiplying(op, kernel, axis(LARGE), groups) <= multiplying(op, kernel, axis(SMALL), groups)


def test_no_more_phases_than_taps_or_positions():
    """Steps without a common divisor, each of which alone would give thousands of phases."""
    axis = (8, 3, 5, 9973, 17, 16000, 4093)
    for op, most in (("fprop", 3), ("dgrad", 3), ("wgrad", 3)):
        assert multiplying(op, "gemm", axis) <= most, op


@pytest.mark.parametrize("backend", [cuda_backend("gemm")], indirect=True)
@pytest.mark.parametrize("op", ["y", "dx", "dw"])
def test_multiply_adds_do_not_grow_with_a_step(backend, op):
    """The counts of mma.sync, including zeros and padding, do not grow, and the numbers are right."""
    counts = {}
    for step in (4, 256):
        axes = [Axis(8, 4, 1, 3, 0, step, 1)]
        random = np.random.default_rng(step)
        x = random.integers(-2, 3, (2, 8, 16)).astype(np.float64)
        w = random.integers(-2, 3, (4, 16, 16)).astype(np.float64)
        dy = random.integers(-2, 3, (2, axes[0].output, 16)).astype(np.float64)
        exact = {
            "y": reference.fprop(x, w, axes, 1),
            "dx": reference.dgrad(dy, w, axes, 1),
            "dw": reference.wgrad(x, dy, axes, 1),
        }[op]

        def layer(x, w, step=step):
            return jc.conv_general_dilated(x, w, (1,), ((3, 0),), (step,), (1,), ("NWC", "WIO", "NWC"))

        run = {
            "y": lambda x, w, dy: layer(x, w),
            "dx": lambda x, w, dy: jax.vjp(lambda x: layer(x, w), x)[1](dy)[0],
            "dw": lambda x, w, dy: jax.vjp(lambda w: layer(x, w), w)[1](dy)[0],
        }[op]
        arrays = [jnp.asarray(array, jnp.bfloat16) for array in (x, w, dy)]
        run = jax.jit(run)
        with counting() as counters:
            found = run(*arrays).block_until_ready()
        counts[step] = counters["mma_bf16"]
        rounded = np.asarray(jnp.asarray(exact, jnp.bfloat16), np.float64)
        np.testing.assert_array_equal(np.asarray(found, np.float64), rounded)
    assert 0 < counts[256] <= counts[4]
