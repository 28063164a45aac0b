"""conv_transpose is lax.conv_transpose, value and gradients."""

import jax
import numpy as np
import pytest
from jax import lax

import jax_convgrad as jc

# name: x, w, what follows; w's last two sizes trade places where transpose_kernel is true.
CASES = {
    "2d": ((2, 4, 5, 3), (3, 3, 3, 4), {"strides": (1, 1), "padding": "VALID"}),
    "2d_stride": ((2, 4, 5, 3), (3, 2, 3, 4), {"strides": (2, 3), "padding": "VALID"}),
    "2d_same": ((2, 4, 5, 3), (3, 3, 3, 4), {"strides": (2, 2), "padding": "SAME"}),
    "2d_same_even": ((1, 5, 4, 3), (4, 2, 3, 2), {"strides": (2, 3), "padding": "SAME"}),
    "2d_stride_past_filter": ((1, 4, 3, 2), (2, 2, 2, 5), {"strides": (3, 3), "padding": "SAME"}),
    "2d_pairs": ((2, 4, 5, 3), (3, 3, 3, 4), {"strides": (2, 1), "padding": ((1, 2), (3, 0))}),
    "2d_dilated": (
        (1, 4, 5, 3),
        (3, 2, 3, 4),
        {"strides": (2, 2), "padding": "SAME", "rhs_dilation": (2, 3)},
    ),
    "2d_past_tile": ((2, 5, 7, 17), (1, 1, 17, 67), {"strides": (2, 2), "padding": "SAME"}),
    "1d": (
        (2, 7, 3),
        (4, 3, 5),
        {"strides": (3,), "padding": "SAME", "dimension_numbers": ("NWC", "WIO", "NWC")},
    ),
    "1d_default": ((2, 7, 3), (4, 3, 5), {"strides": (2,), "padding": "VALID"}),
    "3d": ((1, 3, 2, 4, 3), (2, 3, 2, 3, 2), {"strides": (2, 1, 2), "padding": "SAME"}),
}


@pytest.mark.parametrize("transpose_kernel", [False, True], ids=["", "transpose_kernel"])
@pytest.mark.parametrize("name", CASES)
def test_value_and_gradients(backend, name, transpose_kernel):
    x_shape, w_shape, arguments = CASES[name]
    if transpose_kernel:
        w_shape = (*w_shape[:-2], w_shape[-1], w_shape[-2])
    check(x_shape, w_shape, dict(arguments, transpose_kernel=transpose_kernel))


@pytest.mark.parametrize("transpose_kernel", [False, True], ids=["", "transpose_kernel"])
def test_features_first(backend, transpose_kernel):
    w_shape = (3, 4, 3, 2) if transpose_kernel else (4, 3, 3, 2)
    arguments = {"strides": (2, 3), "padding": "SAME", "dimension_numbers": ("NCHW", "OIHW", "NCHW")}
    check((2, 3, 4, 5), w_shape, dict(arguments, transpose_kernel=transpose_kernel))


@pytest.mark.parametrize("padding", ["SAME", ((1, 1), (2, 1))], ids=str)
def test_consistent_padding(backend, padding):
    check((1, 5, 4, 3), (3, 3, 3, 2), {"strides": (2, 3), "padding": padding, "use_consistent_padding": True})


def check(x_shape, w_shape, arguments):
    random = np.random.default_rng(11)
    x, w = random.standard_normal(x_shape), random.standard_normal(w_shape)
    dy = None
    results = []
    for conv_transpose in (lax.conv_transpose, jc.conv_transpose):
        y, vjp = jax.vjp(jax.jit(lambda x, w, f=conv_transpose: f(x, w, **arguments)), x, w)
        dy = random.standard_normal(y.shape) if dy is None else dy
        results.append((y, *vjp(dy)))
    for what, expected, actual in zip(("y", "dx", "dw"), *results, strict=True):
        assert actual.shape == expected.shape, what
        scale = np.abs(expected).max()
        assert scale > 0
        np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-13 * scale, err_msg=what)
