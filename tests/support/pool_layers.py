"""Pooling layers for the tests of values, gradients and positions."""

import numpy as np

# name: inputs, window, strides, padding
CASES = {
    "halves": ((2, 6, 8, 5), (2, 2), (2, 2), "VALID"),
    "overlap": ((2, 7, 8, 3), (3, 3), (2, 2), "VALID"),
    "overlap_same": ((1, 7, 6, 17), (3, 3), (2, 2), "SAME"),
    "strides_none": ((2, 5, 6, 3), (2, 3), None, "VALID"),
    "strides_none_same": ((2, 5, 6, 3), (2, 3), None, "SAME"),
    "gaps": ((2, 8, 9, 3), (2, 1), (3, 2), "VALID"),
    "pairs": ((2, 5, 6, 3), (3, 2), (2, 2), ((1, 2), (0, 1))),
    "1d": ((3, 9, 4), (3,), (2,), "SAME"),
    "3d": ((2, 4, 5, 3, 3), (2, 3, 2), (2, 1, 1), "SAME"),
    "whole": ((2, 4, 3, 33), (4, 3), (1, 1), "VALID"),
    "one": ((1, 3, 4, 67), (1, 1), (1, 1), "VALID"),
    "no_batch": ((5, 6, 3), (2, 2), (2, 1), "SAME"),
    "two_batches": ((2, 3, 5, 6, 3), (2, 2), (1, 2), "SAME"),
    "three_batches_1d": ((2, 1, 3, 7, 2), (3,), (2,), ((1, 1),)),
}


def numbers(shape, dtype, seed):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def canonical(x, window):
    """The array [batch..., spatial..., C] as [N, spatial..., C]."""
    lead = x.ndim - len(window) - 1
    return x.reshape(int(np.prod(x.shape[:lead])), *x.shape[lead:])
