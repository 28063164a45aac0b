"""The multistage matrix-product kernels: every tile, access and arithmetic, and their costs on a GPU."""

import functools

import jax
import numpy as np
import pytest
from backends import cuda_backend
from conv_cases import NHWC, NWC
from conv_cases import ConvCase as C
from emulated_counters import counting
from gemm_cases import CASES, DENSE
from lax_answers import exact_conv
from tolerance import assert_within, sum_bound

import jax_convgrad as jc

GEMM = pytest.mark.parametrize("backend", [cuda_backend("gemm")], indirect=True)

BY_NAME = {case.name: case for case in CASES}


@functools.partial(jax.jit, static_argnums=(0, 4))
def gradients(case, x, w, dy, precision):
    def conv(x, w):
        return jc.conv_general_dilated(x, w, **case.lax_arguments, precision=precision)

    y, vjp = jax.vjp(conv, x, w)
    dx, dw = vjp(dy)
    return {"y": y, "dx": dx, "dw": dw}


@GEMM
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "float16"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_sums(backend, case, dtype):
    exact, magnitude = exact_conv(case, dtype)
    for name, actual in gradients(case, *case.arrays(dtype), "highest").items():
        bound = sum_bound(dtype, case.sum_lengths[name], magnitude[name], exact[name])
        assert_within(actual, exact[name], bound, name)


@GEMM
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_tf32(backend, case):
    """Each operand is rounded to 11 bits, to nearest: products have errors of at most 2^-10, and some do."""
    exact, magnitude = exact_conv(case, "float32")
    for name, actual in gradients(case, *case.arrays("float32"), "default").items():
        in_full = sum_bound("float32", case.sum_lengths[name], magnitude[name], exact[name])
        assert_within(actual, exact[name], 2.0**-10 * magnitude[name] + in_full, name)
        assert np.any(np.abs(np.asarray(actual, np.float64) - exact[name]) > in_full), f"{name} is not TF32"


@GEMM
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_same_bits(backend, dtype):
    case = BY_NAME["phases of a stride"]
    first, second = (gradients(case, *case.arrays(dtype), "highest") for _ in range(2))
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])


# ---------------------------------------------------------------------------------------- the cost on a GPU

OPS = {
    "fprop": lambda x, w, dy, **how: jc.conv_general_dilated(x, w, **DENSE.lax_arguments, **how),
    "dgrad": lambda x, w, dy, **how: jc.conv_input_grad(dy, w, x.shape, **DENSE.grad_arguments, **how),
    "wgrad": lambda x, w, dy, **how: jc.conv_filter_grad(x, dy, w.shape, **DENSE.grad_arguments, **how),
}
MATHS = {  # on tensor cores the counter of multiply-adds
    "bfloat16": ("bfloat16", "default", "mma_bf16"),
    "tf32": ("float32", "default", "mma_tf32"),
    "float32": ("float32", "highest", None),
    "float64": ("float64", "default", "mma_f64"),
}


@GEMM
@pytest.mark.emulator
@pytest.mark.parametrize("math", MATHS)
@pytest.mark.parametrize("op", OPS)
def test_cost(backend, op, math):
    """There are no bank conflicts in shared memory, no unused sectors, and little work on tiles' edges."""
    dtype, precision, tensor_cores = MATHS[math]
    x, w, dy = DENSE.arrays(dtype)
    run = jax.jit(functools.partial(OPS[op], precision=precision))
    run(x, w, dy).block_until_ready()
    with counting() as counted:
        run(x, w, dy).block_until_ready()
    assert counted["ldmatrix"]["excess"] == 0
    assert counted["load_shared"]["excess"] == 0
    copies = counted["cp_async_global"]
    assert copies["instructions"] > 0
    assert copies["sectors"] <= 1.15 * copies["bytes"] / 32
    stores = counted["store_global"]
    assert stores["sectors"] * 32 <= 1.15 * stores["bytes"]
    if tensor_cores:
        assert 1 <= counted[tensor_cores] / DENSE.multiply_adds <= 1.15


POINTWISE = pytest.mark.parametrize(
    "backend", [cuda_backend(kernel) for kernel in ("gemm", "tiled", "reference")], indirect=True
)


@POINTWISE
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_pointwise_bits(backend, dtype):
    """A pointwise layer is computed as one long row, and every sum has the same order as over its images."""
    images = C("images", (3, 7, 9, 16), (1, 1, 16, 24), order=NHWC)
    x, w, dy = images.arrays(dtype)
    # With one more column, it is no longer such a layer.
    padded = C("padded", (3, 7, 9, 16), (1, 1, 16, 24), 1, ((0, 0), (0, 1)), order=NHWC)
    y, vjp = jax.vjp(lambda x, w: jc.conv_general_dilated(x, w, **images.lax_arguments), x, w)
    other_y, other_vjp = jax.vjp(lambda x, w: jc.conv_general_dilated(x, w, **padded.lax_arguments), x, w)
    np.testing.assert_array_equal(y, other_y[:, :, :-1])
    other_dy = np.pad(dy, ((0, 0), (0, 0), (0, 1), (0, 0)))
    np.testing.assert_array_equal(vjp(dy)[0], other_vjp(other_dy)[0])
    # The same layer as a row from the start.
    row = C("row", (1, 189, 16), (1, 16, 24), order=NWC)
    as_row = jax.vjp(
        lambda x, w: jc.conv_general_dilated(x, w, **row.lax_arguments), x.reshape(row.x), w.reshape(row.w)
    )
    np.testing.assert_array_equal(as_row[0].reshape(y.shape), y)
    for ours, others in zip(vjp(dy), as_row[1](dy.reshape(row.y)), strict=True):
        np.testing.assert_array_equal(ours, others.reshape(ours.shape))
