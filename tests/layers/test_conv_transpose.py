"""conv_transpose has the values and gradients of lax.conv_transpose."""

from functools import cache, partial

import jax
import numpy as np
import pytest
from jax import lax

import jax_convgrad as jc

# name: x, w, other arguments; w's last two sizes are exchanged if transpose_kernel is true.
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


PADDINGS = [
    "SAME",
    "VALID",
    "same_lower",
    "valid",
    ((0, 0),),
    ((2, 1),),
    ((-1, 3),),
    [[1, 0]],
    np.array([[0, 2]]),
]


@pytest.mark.parametrize("stride", [1, 2, 3, 4])
@pytest.mark.parametrize("taps", [1, 2, 3, 4, 5])
def test_every_kernel_stride_and_padding(taps, stride):
    """The same shapes, numbers and errors as lax, even odd ones; every form of padding in both meanings."""
    random = np.random.default_rng(12)
    x, w = random.standard_normal((1, 3, 1)), random.standard_normal((taps, 1, 1))
    ways = [
        {"padding": padding, "rhs_dilation": (dilation,), "use_consistent_padding": consistent}
        for padding in PADDINGS
        for dilation in (1, 2)
        for consistent in (False, True)
    ]

    def results(conv_transpose):
        made = {}
        for n, way in enumerate(ways):
            for flipped in (False, True):
                try:
                    y = conv_transpose(x, w, (stride,), transpose_kernel=flipped, **way)
                except Exception as error:
                    if conv_transpose is jc.conv_transpose:
                        assert isinstance(error, ValueError) and "padding" in str(error), (way, error)
                else:
                    made[n, flipped] = y
        return made

    # One program for all, because compiling takes most of the time.
    ours, theirs = (jax.jit(lambda f=f: results(f))() for f in (jc.conv_transpose, lax.conv_transpose))
    assert len(ours) >= 40
    for key in ours.keys() | theirs.keys():
        way = ways[key[0]]
        if way["use_consistent_padding"] and not isinstance(way["padding"], str | tuple):
            assert key in ours and key not in theirs  # lax accepts no other sequence there
            continue
        assert key in ours and key in theirs, (way, key in ours, key in theirs)
        assert ours[key].shape == theirs[key].shape, ways[key[0]]
        np.testing.assert_allclose(ours[key], theirs[key], rtol=0, atol=1e-13, err_msg=str(ways[key[0]]))


def value_and_gradients(conv_transpose, x_shape, w_shape, arguments):
    """y, dx and dw of random arrays, in one program."""
    random = np.random.default_rng(11)
    x, w = random.standard_normal(x_shape), random.standard_normal(w_shape)
    f = partial(conv_transpose, **arguments)
    dy = random.standard_normal(jax.eval_shape(f, x, w).shape)

    def run(x, w, dy):
        y, vjp = jax.vjp(f, x, w)
        return y, *vjp(dy)

    return [np.asarray(a) for a in jax.jit(run)(x, w, dy)]


@cache
def lax_answers(x_shape, w_shape, arguments):
    """lax's, once for all backends."""
    return value_and_gradients(lax.conv_transpose, x_shape, w_shape, dict(arguments))


def check(x_shape, w_shape, arguments):
    theirs = lax_answers(x_shape, w_shape, tuple(arguments.items()))
    ours = value_and_gradients(jc.conv_transpose, x_shape, w_shape, arguments)
    for what, expected, actual in zip(("y", "dx", "dw"), theirs, ours, strict=True):
        assert actual.shape == expected.shape, what
        scale = np.abs(expected).max()
        assert scale > 0
        np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-13 * scale, err_msg=what)
