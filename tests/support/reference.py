"""The sums of common_src/problem.h, written out in NumPy float64.

An input position i, a filter tap r and an output position o of one axis are tied where

    o * stride + r * filter_dilation - pad_lo  ==  i * input_dilation          (the relation)

and every function here sums over exactly the tied triples. Activations are [N, spatial..., C], filters
[spatial..., C/groups, K]. This module uses neither the package under test nor jax.
"""

from dataclasses import dataclass
from itertools import product

import numpy as np


@dataclass(frozen=True)
class Axis:
    """One spatial axis: the numbers of positions and taps, and the relation's constants."""

    input: int
    taps: int
    stride: int = 1
    pad_lo: int = 0
    pad_hi: int = 0
    input_dilation: int = 1
    filter_dilation: int = 1

    @property
    def output(self) -> int:
        def span(positions, dilation):
            return (positions - 1) * dilation + 1 if positions else 0

        room = span(self.input, self.input_dilation) + self.pad_lo + self.pad_hi
        return max(0, (room - span(self.taps, self.filter_dilation)) // self.stride + 1)

    def tied_to(self, r: int) -> tuple[np.ndarray, np.ndarray]:
        """The (i, o) pairs tied to tap r; each i and each o occurs once, because r is fixed."""
        i = np.arange(self.input)[:, None]
        o = np.arange(self.output)[None, :]
        return np.nonzero(o * self.stride + r * self.filter_dilation - self.pad_lo == i * self.input_dilation)


def padding_pairs(padding, inputs, taps, strides, filter_dilations) -> list[tuple[int, int]]:
    """The (lo, hi) pairs of a padding string; SAME gives ceil(input / stride) outputs."""
    if not isinstance(padding, str):
        return [(lo, hi) for lo, hi in padding]
    if padding == "VALID":
        return [(0, 0)] * len(inputs)
    pairs = []
    for size, r, stride, dilation in zip(inputs, taps, strides, filter_dilations, strict=True):
        window = (r - 1) * dilation + 1
        total = max(0, (-(-size // stride) - 1) * stride + window - size)
        less, more = total // 2, total - total // 2
        pairs.append((more, less) if padding == "SAME_LOWER" else (less, more))
    return pairs


def tied(axes):
    """Yields every tap r of all axes together, with index grids of the positions i and o tied to it."""
    for r in product(*(range(axis.taps) for axis in axes)):
        pairs = [axis.tied_to(tap) for axis, tap in zip(axes, r, strict=True)]
        yield r, np.ix_(*(i for i, _ in pairs)), np.ix_(*(o for _, o in pairs))


def wide(array):
    """The array in float64, or as it is in longdouble."""
    array = np.asarray(array)
    return array if array.dtype == np.longdouble else array.astype(np.float64)


def _group(array, groups):
    """The array [..., channels] as [..., groups, channels / groups]."""
    array = wide(array)
    return array.reshape(*array.shape[:-1], groups, array.shape[-1] // groups)


def _ungroup(array):
    return array.reshape(*array.shape[:-2], -1)


def fprop(x, w, axes, groups=1):
    """y[n,o,k] = sum over r, c of x[n,i,c] * w[r,c,k]."""
    x, w = _group(x, groups), _group(w, groups)  # [n, i, g, c] and [r, c, g, k]
    y = np.zeros((x.shape[0], *(axis.output for axis in axes), groups, w.shape[-1]), x.dtype)
    for r, i, o in tied(axes):
        y[(slice(None), *o)] += np.einsum("n...gc,cgk->n...gk", x[(slice(None), *i)], w[r])
    return _ungroup(y)


def dgrad(dy, w, axes, groups=1):
    """dx[n,i,c] = sum over r, k of dy[n,o,k] * w[r,c,k]."""
    dy, w = _group(dy, groups), _group(w, groups)
    dx = np.zeros((dy.shape[0], *(axis.input for axis in axes), groups, w.shape[-3]), dy.dtype)
    for r, i, o in tied(axes):
        dx[(slice(None), *i)] += np.einsum("n...gk,cgk->n...gc", dy[(slice(None), *o)], w[r])
    return _ungroup(dx)


def wgrad(x, dy, axes, groups=1):
    """dw[r,c,k] = sum over n, o of x[n,i,c] * dy[n,o,k]."""
    x, dy = _group(x, groups), _group(dy, groups)
    dw = np.zeros((*(axis.taps for axis in axes), x.shape[-1], groups, dy.shape[-1]), x.dtype)
    for r, i, o in tied(axes):
        x_r, dy_r = x[(slice(None), *i)], dy[(slice(None), *o)]
        # p combines n and the tied positions.
        x_r, dy_r = x_r.reshape(-1, *x.shape[-2:]), dy_r.reshape(-1, *dy.shape[-2:])
        dw[r] = np.einsum("pgc,pgk->cgk", x_r, dy_r)
    return _ungroup(dw)


def bgrad(dy):
    """db[k] = sum over n, o of dy[n,o,k]."""
    return np.asarray(dy, np.float64).reshape(-1, dy.shape[-1]).sum(0)


def max_pool(x, axes):
    """y[n,o,c] = max over r of x[n,i,c], and the flat index of its first i, or -1 if all is padding."""
    x = np.asarray(x, np.float64)
    shape = (x.shape[0], *(axis.output for axis in axes), x.shape[-1])
    y, position = np.full(shape, -np.inf), np.full(shape, -1)
    flat = np.arange(np.prod(x.shape[1:-1], dtype=int)).reshape(x.shape[1:-1])
    for _, i, o in tied(axes):  # taps are in row-major order, so a later equal value is not the first
        here, at = x[(slice(None), *i)], (slice(None), *o)
        better = (position[at] < 0) | (here > y[at]) | (np.isnan(here) & ~np.isnan(y[at]))
        y[at] = np.where(better, here, y[at])
        position[at] = np.where(better, flat[i][None, ..., None], position[at])
    return y, position


def max_pool_grad(dy, position, axes):
    """dx[n,i,c] = sum over o of dy[n,o,c] where position[n,o,c] = i."""
    dy = np.asarray(dy, np.float64)
    dx = np.zeros((dy.shape[0], *(axis.input for axis in axes), dy.shape[-1]))
    flat = dx.reshape(dy.shape[0], -1, dy.shape[-1])
    for n, *o, c in np.argwhere(position >= 0):
        flat[n, position[n, *o, c], c] += dy[n, *o, c]
    return dx


def _count(axes, count_include_pad):
    if count_include_pad:
        return np.prod([axis.taps for axis in axes])
    count = np.zeros([axis.output for axis in axes])
    for _, _, o in tied(axes):
        count[o] += 1
    return count[..., None]


def avg_pool(x, axes, count_include_pad=True):
    """y[n,o,c] = (sum over r of x[n,i,c]) / count(o)."""
    x = np.asarray(x, np.float64)
    total = np.zeros((x.shape[0], *(axis.output for axis in axes), x.shape[-1]))
    for _, i, o in tied(axes):
        total[(slice(None), *o)] += x[(slice(None), *i)]
    with np.errstate(invalid="ignore"):  # 0 / 0 if a window contains only padding
        return total / _count(axes, count_include_pad)


def avg_pool_grad(dy, axes, count_include_pad=True):
    """dx[n,i,c] = sum over r of dy[n,o,c] / count(o)."""
    with np.errstate(divide="ignore"):
        share = np.asarray(dy, np.float64) / _count(axes, count_include_pad)
    dx = np.zeros((share.shape[0], *(axis.input for axis in axes), share.shape[-1]))
    for _, i, o in tied(axes):
        dx[(slice(None), *i)] += share[(slice(None), *o)]
    return dx
