"""Windows, numbers and calls for the tests that compare one pooling kernel with another."""

import jax
import numpy as np
import reference
from backends import PLATFORM

from jax_convgrad.primitives import targets

DTYPES = ["float32", "float64", "bfloat16", "float16"]


def axes_of(*columns):
    """The reference's axes, from columns (input, taps, stride, pad_lo, pad_hi, filter_dilation)."""
    return [reference.Axis(i, r, s, lo, hi, 1, d) for i, r, s, lo, hi, d in columns]


WINDOWS = {
    "2x2s2": axes_of((6, 2, 2, 0, 0, 1), (41, 2, 2, 0, 0, 1)),
    "3x3s1 padded": axes_of((5, 3, 1, 1, 1, 1), (39, 3, 1, 1, 1, 1)),
    "3x3s2 padded": axes_of((7, 3, 2, 0, 1, 1), (40, 3, 2, 1, 2, 1)),
    "gaps": axes_of((7, 2, 3, 1, 0, 1), (40, 2, 5, 2, 0, 1)),
    "3x2s3 cropped": axes_of((9, 3, 3, -1, 0, 1), (44, 2, 3, -2, -3, 1)),
    "dilated": axes_of((6, 2, 1, 1, 1, 3), (38, 3, 2, 2, 3, 2)),
    "empty windows": axes_of((4, 2, 2, 5, 4, 1), (23, 3, 1, 5, 4, 1)),
    "one wide": axes_of((1, 1, 1, 0, 0, 1), (60, 37, 1, 18, 18, 1)),
    "long sums": axes_of((14, 13, 1, 0, 0, 1), (26, 12, 2, 1, 2, 1)),
    "3d": axes_of((3, 2, 1, 0, 1, 1), (4, 3, 2, 1, 1, 1), (19, 2, 2, 1, 0, 1)),
}


def call(*arguments, **attributes):
    """The results of one call of a kernel, whose arguments are those of ``traced``."""
    return [np.asarray(result) for result in traced(*arguments, **attributes)]


def traced(target, kernel, operands, results, axes, include=True, **attributes):
    """A call as part of a program: compiling one program for many calls takes a tenth of one for each."""
    backend = targets.backends[PLATFORM]
    int64 = {
        "window": [a.taps for a in axes],
        "stride": [a.stride for a in axes],
        "pad_lo": [a.pad_lo for a in axes],
        "filter_dilation": [a.filter_dilation for a in axes],
    }
    return jax.ffi.ffi_call(backend.prefix + target, [jax.ShapeDtypeStruct(*r) for r in results])(
        *operands,
        **{name: np.array(values, np.int64) for name, values in int64.items()},
        spec=np.array([0, len(axes) + 1, *range(1, len(axes) + 1)], np.int64),
        count_include_pad=include,
        kernel=kernel,
        **{"sum": False, "position_rule": "first_maximum"} | attributes,
    )


def shapes(axes, channels, images=2):
    return (images, *(a.input for a in axes), channels), (images, *(a.output for a in axes), channels)


def numbers(shape, dtype, seed):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def bits(array):
    return array.view(f"u{array.dtype.itemsize}")


def with_rarities(x):
    """The array with ties, both zeros, infinities and NaN in the second of its two images."""
    x[1] = np.round(x[1] * 2)
    rare = x[1].reshape(-1)
    rare[::7] = -np.inf
    rare[3::29] = np.inf
    rare[5::11] = np.where(rare[5::11] < 0, -0.0, 0.0)
    rare[2::13] = np.nan
    return x
