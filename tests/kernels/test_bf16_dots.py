"""bf16 operands on processors with AVX512-BF16: dot products of pairs, summed in f32 and rounded once."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conv_cases import NHWC, ConvCase
from cpu_by_name import CPU, ISAS, spec_of
from lax_answers import exact_conv
from tolerance import assert_within, sum_bound

import jax_convgrad
from jax_convgrad.primitives import ffi

if "avx512_bf16" not in ISAS:
    pytest.skip(f"no AVX512-BF16 on this processor, which has {ISAS}", allow_module_level=True)

CASES = [
    ConvCase("dense", (2, 9, 12, 64), (3, 3, 64, 48), 1, "SAME", order=NHWC),
    ConvCase("stride", (2, 11, 13, 34), (3, 3, 34, 40), 2, "SAME", order=NHWC),
    ConvCase("pointwise", (3, 7, 9, 128), (1, 1, 128, 64), 1, "VALID", order=NHWC),
    ConvCase("three channels", (2, 15, 17, 3), (7, 7, 3, 64), 2, "SAME", order=NHWC),
    ConvCase("odd channels, dilated", (2, 13, 14, 21), (3, 3, 21, 33), 1, "SAME", 1, 2, order=NHWC),
    ConvCase("wide groups", (2, 8, 9, 72), (3, 3, 36, 80), 1, "SAME", groups=2, order=NHWC),
    ConvCase("few channels out", (2, 9, 10, 70), (3, 3, 70, 3), 1, "SAME", order=NHWC),
    ConvCase("depthwise", (2, 9, 12, 40), (3, 3, 1, 40), 1, "SAME", groups=40, order=NHWC),
]


def results(case, kernel, dtype, platforms):
    x, w, dy = case.arrays(dtype)
    # Unrounded, since rounding would hide most differences.
    spec, on = dataclasses.replace(spec_of(case), result_dtype="float32"), platforms(kernel)

    @jax.jit
    def run(x, w, dy):
        return {
            "y": ffi.fprop(on, x, w, spec),
            "dx": ffi.dgrad(on, dy, w, spec),
            "dw": ffi.wgrad(on, x, dy, spec),
        }

    return {what: np.asarray(array) for what, array in run(x, w, dy).items()}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_layer_and_its_gradients(case):
    """The public layer, with the kernels that the plan chooses, is within the bounds of bf16."""
    x, w, dy = (jnp.asarray(array, jnp.bfloat16) for array in case.arrays("bfloat16"))

    @jax.jit
    def run(x, w, dy):
        y, vjp = jax.vjp(
            lambda x, w: jax_convgrad.conv(
                x,
                w,
                stride=case.stride,
                padding=case.padding,
                dilation=case.filter_dilation,
                groups=case.groups,
            ),
            x,
            w,
        )
        return y, *vjp(dy)

    exact, magnitude = exact_conv(case, "bfloat16")
    for what, actual in zip(("y", "dx", "dw"), run(x, w, dy), strict=True):
        assert actual.dtype == jnp.bfloat16
        bound = sum_bound("bfloat16", case.sum_lengths[what], magnitude[what], exact[what])
        assert_within(actual, exact[what], bound, what)


def test_who_uses_them(platforms):
    """Dense bf16 sums run in another order than on AVX-512; other dtypes run the same code."""
    case = CASES[0]
    for dtype in ("float32", "float16", "bfloat16"):
        plain = results(case, "tiled.avx512", dtype, platforms)
        dots = results(case, "tiled.avx512_bf16", dtype, platforms)
        for what in plain:
            same = np.array_equal(plain[what], dots[what])
            assert same == (dtype != "bfloat16"), (what, dtype)


@pytest.mark.parametrize("kernel", ["tiled", "dot"])
def test_subnormal_numbers_are_zero(kernel, platforms):
    """As docs/architecture.md says: the instruction reads them so, whatever the thread's settings are."""
    case, on = CASES[0], platforms(f"{kernel}.avx512_bf16")
    x = np.full(case.x, 0x40, np.uint16).view(jnp.bfloat16)  # 2^-127
    run = jax.jit(lambda x, w: ffi.fprop(on, x, w, spec_of(case)))
    assert not np.asarray(run(x, jnp.full(case.w, 2.0**20, jnp.bfloat16)), np.float32).any()
    x = np.full(case.x, 0x80, np.uint16).view(jnp.bfloat16)  # 2^-126, which is normal
    assert np.asarray(run(x, jnp.full(case.w, 2.0**20, jnp.bfloat16)), np.float32).all()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_workspace_is_that_of_every_instruction_set(case):
    axes = [
        (a.input, a.taps, a.output, a.stride, a.pad_lo, a.input_dilation, a.filter_dilation)
        for a in case.axes
    ]
    sizes = {
        "dtype": "bfloat16",
        "batch": case.x[0],
        "in_channels": case.x[-1],
        "out_channels": case.w[-1],
        "groups": case.groups,
        "axes": axes,
    }
    for op in ("fprop", "dgrad", "wgrad"):
        found = {CPU.module.conv_workspace_bytes(op=op, kernel=f"auto.{isa}", **sizes) for isa in ISAS}
        assert len(found) == 1, op
