"""Checks a result: recomputes sampled elements, corners included, in float64 from the defining relation.

An input position i, a tap r and an output position o of an axis belong together if

    o * stride + r * filter_dilation - pad_lo  ==  i * input_dilation

This module uses no code of the measured libraries. With operands of small integers every sum is exact in
float32 in any order, so rounding cannot hide a missing or an extra product. Normally distributed operands
show errors larger than those of a sum in the result's precision.
"""

from __future__ import annotations

from itertools import product

import numpy as np

from harness.problems import Bias, Conv, Pool, Problem

_SAMPLES = 200
_MOST_PRODUCTS = 20_000_000  # over all samples, so that a check takes about a second

Operands = dict[str, np.ndarray]


class VerificationError(Exception):
    """A library's result is wrong."""


def verify(
    problem: Problem,
    op: str,
    operands: Operands,
    result: object,
    exact: bool,
    what: str,
    *,
    operands_eps: float = 0.0,
    most_products: int = _MOST_PRODUCTS,
) -> None:
    """Checks sampled elements of the result of an op.

    Args:
      problem: the layer.
      op: one of its ops.
      operands: x, w and dy.
      result: one array, or (y, dx) for "fprop+dgrad"; any library's, on any device.
      exact: whether the operands are small integers, so that sums of products must be exact.
      what: the name of the library that computed the result, for the message.
      operands_eps: the relative error of a product whose factors were rounded first.
      most_products: the most products over all samples; a few elements are checked even if it is exceeded.

    Raises:
      VerificationError: an element's error is larger than rounding explains, or the shape is wrong.
    """
    parts = zip(op.split("+"), result, strict=True) if "+" in op else [(op, result)]
    for part, array in parts:
        shape = result_shape(problem, part)
        name = f"{what}, {part} of {problem.name} ({problem.text})"
        if tuple(array.shape) != shape:
            raise VerificationError(f"{name}: the shape is {tuple(array.shape)}, but should be {shape}")
        at = sample(shape, _samples_of(problem, part, most_products))
        sums, sums_of_abs, length = reference(problem, part, operands, at)
        got = elements(array, at)
        if exact and not (isinstance(problem, Pool) and problem.reduction == "avg"):
            bound = np.zeros(len(at))
            sums = sums.astype(got.dtype)  # integers past 2^8 or 2^11 are rounded once to a 16-bit type
        else:
            bound = rounding_bound(got.dtype, sums, sums_of_abs, length) + operands_eps * sums_of_abs
        error = np.abs(got.astype(np.float64) - sums.astype(np.float64))
        if not (error <= bound).all():  # NaN is not
            worst = int(np.argmax(np.where(np.isnan(error), np.inf, error - bound)))
            raise VerificationError(
                f"{name}: {np.sum(~(error <= bound))} of {len(at)} sampled elements are wrong; at "
                f"{tuple(map(int, at[worst]))} {got[worst]} should be {sums[worst]} within {bound[worst]:.2g}"
            )


def same_losses(one: list[float], other: list[float], who: str) -> None:
    """Raises VerificationError if the losses of two training runs differ.

    The first losses agree up to float32's rounding, later ones less: Adam divides by the gradient's size.
    """
    if not np.allclose(one, other, rtol=1e-4, atol=0):
        raise VerificationError(f"the training steps of {who} have different losses: {one} and {other}")


def elements(array, at: np.ndarray) -> np.ndarray:
    """The elements, [samples], of an array of NumPy, JAX or PyTorch, which may stay on its device."""
    picked = array[tuple(at.T)]
    if not hasattr(picked, "detach"):
        return np.asarray(picked)
    import ml_dtypes  # noqa: F401 (by which NumPy knows PyTorch's bfloat16)

    return picked.double().cpu().numpy().astype(str(picked.dtype).removeprefix("torch."))


def result_shape(problem: Problem, op: str) -> tuple[int, ...]:
    """The shape of y, dx, dw or db."""
    if op == "bgrad":
        return (problem.shapes()["dy"][-1],)
    return problem.shapes()[{"fprop": "dy", "dgrad": "x", "wgrad": "w"}[op]]


def rounding_bound(dtype: np.dtype, sums: np.ndarray, sums_of_abs: np.ndarray, length: int) -> np.ndarray:
    """A bound on a stored sum's error: four times n roundings of random sign, plus the last rounding.

    16-bit types are summed in float32.
    """
    from ml_dtypes import finfo

    stored = float(finfo(dtype).eps)
    summed = min(stored, float(np.finfo(np.float32).eps))
    return 4 * np.sqrt(length + 1) * summed * sums_of_abs + stored * np.abs(sums)


def sample(shape: tuple[int, ...], count: int, seed: int = 2) -> np.ndarray:
    """Draws indices [count, dimensions]: the corners, then random ones."""
    rng = np.random.default_rng(seed)
    corners = np.array(list(product(*({0, size - 1} for size in shape))), dtype=np.int64)
    random = np.stack([rng.integers(0, size, count) for size in shape], axis=1)
    return np.concatenate([corners[: max(count // 2, 1)], random])[:count]


def reference(
    problem: Problem, op: str, operands: Operands, at: np.ndarray
) -> tuple[np.ndarray, np.ndarray, int]:
    """The exact elements at these indices, the sums of their terms' magnitudes, and their number of terms."""
    match problem, op:
        case Bias(), "bgrad":
            rows = np.stack([operands["dy"][..., k].reshape(-1) for k in at[:, 0]], 1).astype(np.float64)
            return rows.sum(0), np.abs(rows).sum(0), len(rows)
        case Conv(), "wgrad":
            return _wgrad(problem, operands, at)
        case Conv(), _:
            terms = (_fprop_terms if op == "fprop" else _dgrad_terms)(problem, operands, at)
        case Pool(), _:
            terms = (_pool_terms if op == "fprop" else _pool_grad_terms)(problem, operands, at)
    if isinstance(problem, Pool) and problem.reduction == "max" and op == "fprop":
        largest = terms.max(1)
        return largest, np.zeros_like(largest), 1
    return terms.sum(1), np.abs(terms).sum(1), terms.shape[1]


def _samples_of(problem: Problem, op: str, most_products: int) -> int:
    """The number of samples, which depends on the products of one element."""
    shapes = problem.shapes()
    if op == "bgrad":
        terms = int(np.prod(shapes["dy"][:-1]))
    elif op == "wgrad":
        terms = 16 * int(np.prod(shapes["dy"][:-1]))  # each element of a channel reads a cache line
    elif isinstance(problem, Pool):
        terms = int(np.prod(problem.layer.taps)) ** 2
    else:
        channels = shapes["w"][-2] if op == "fprop" else shapes["w"][-1] // problem.geometry.groups
        terms = int(np.prod(problem.layer.taps)) * channels
    fewest = 16 if most_products >= _MOST_PRODUCTS else 4
    return int(np.clip(most_products // terms, fewest, _SAMPLES))


def _taps(axes) -> np.ndarray:
    """All taps, [taps, axes], in row-major order."""
    return np.array(list(product(*(range(axis.taps) for axis in axes))), dtype=np.int64)


def _numbers(axes, name: str) -> np.ndarray:
    return np.array([getattr(axis, name) for axis in axes])


def _inputs_at(axes, o: np.ndarray, r: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The input positions for outputs o and taps r, [..., axes] each, and whether there is one."""
    at = o * _numbers(axes, "stride") + r * _numbers(axes, "filter_dilation") - _numbers(axes, "pad_lo")
    i, rest = np.divmod(at, _numbers(axes, "input_dilation"))
    tied = (rest == 0) & (i >= 0) & (i < _numbers(axes, "input"))
    return np.where(tied, i, 0), tied.all(-1)


def _outputs_at(axes, i: np.ndarray, r: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The output positions for inputs i and taps r, and whether there is one."""
    at = (
        i * _numbers(axes, "input_dilation")
        + _numbers(axes, "pad_lo")
        - r * _numbers(axes, "filter_dilation")
    )
    o, rest = np.divmod(at, _numbers(axes, "stride"))
    tied = (rest == 0) & (o >= 0) & (o < _numbers(axes, "output"))
    return np.where(tied, o, 0), tied.all(-1)


def _gather(array: np.ndarray, n: np.ndarray, positions: np.ndarray, channels: np.ndarray) -> np.ndarray:
    """array[n, positions, channels] in float64: [samples, taps, channels]."""
    spatial = (positions[..., a, None] for a in range(positions.shape[-1]))
    return array[(n[:, None, None], *spatial, channels[:, None, :])].astype(np.float64)


def _fprop_terms(problem: Conv, operands: Operands, at: np.ndarray) -> np.ndarray:
    """Products of y[n,o,k], over taps and input channels."""
    axes, w = problem.geometry.axes, operands["w"]
    r = _taps(axes)
    n, o, k = at[:, 0], at[:, 1:-1], at[:, -1]
    i, tied = _inputs_at(axes, o[:, None], r)
    group = k // (w.shape[-1] // problem.geometry.groups)
    c = np.arange(w.shape[-2])
    x = _gather(operands["x"], n, i, group[:, None] * w.shape[-2] + c)
    factors = w[(*(tap[None, :, None] for tap in r.T), c, k[:, None, None])].astype(np.float64)
    return (np.where(tied[..., None], x, 0) * factors).reshape(len(at), -1)


def _dgrad_terms(problem: Conv, operands: Operands, at: np.ndarray) -> np.ndarray:
    """Products of dx[n,i,c], over taps and output channels."""
    axes, w = problem.geometry.axes, operands["w"]
    r = _taps(axes)
    n, i, (group, c) = at[:, 0], at[:, 1:-1], np.divmod(at[:, -1], w.shape[-2])
    o, tied = _outputs_at(axes, i[:, None], r)
    group_out = w.shape[-1] // problem.geometry.groups
    k = group[:, None] * group_out + np.arange(group_out)
    dy = _gather(operands["dy"], n, o, k)
    factors = w[(*(tap[None, :, None] for tap in r.T), c[:, None, None], k[:, None, :])].astype(np.float64)
    return (np.where(tied[..., None], dy, 0) * factors).reshape(len(at), -1)


def _wgrad(problem: Conv, operands: Operands, at: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Products of dw[r,c,k], over the batch and each axis' positions that belong together."""
    axes, (x, dy, w) = problem.geometry.axes, (operands[name] for name in ("x", "dy", "w"))
    group_out = w.shape[-1] // problem.geometry.groups
    sums, sums_of_abs = np.zeros(len(at)), np.zeros(len(at))
    for number, (*r, c, k) in enumerate(at):
        o_of_axes, i_of_axes = [], []
        for axis, tap in zip(axes, r, strict=True):
            o = np.arange(axis.output)[:, None]
            i, tied = _inputs_at([axis], o, np.array([tap]))
            o_of_axes.append(o[tied, 0])
            i_of_axes.append(i[tied, 0])
        channel = k // group_out * w.shape[-2] + c
        x_tied = x[..., channel][(slice(None), *np.ix_(*i_of_axes))].astype(np.float64)
        terms = x_tied * dy[..., k][(slice(None), *np.ix_(*o_of_axes))]
        sums[number], sums_of_abs[number] = terms.sum(), np.abs(terms).sum()
    return sums, sums_of_abs, int(np.prod(dy.shape[:-1]))


def _pool_terms(problem: Pool, operands: Operands, at: np.ndarray) -> np.ndarray:
    """A window's elements: -inf on padding for the maximum, and divided by the window's size for the mean."""
    axes = problem.geometry.axes
    i, tied = _inputs_at(axes, at[:, None, 1:-1], _taps(axes))
    x = _gather(operands["x"], at[:, 0], i, at[:, -1:])[..., 0]
    if problem.reduction == "max":
        return np.where(tied, x, -np.inf)
    return np.where(tied, x, 0) / tied.shape[1]


def _pool_grad_terms(problem: Pool, operands: Operands, at: np.ndarray) -> np.ndarray:
    """The part of dy that this input gets from each window: a share, or all of it if it is the maximum."""
    axes = problem.geometry.axes
    taps = _taps(axes)
    o, tied = _outputs_at(axes, at[:, None, 1:-1], taps)
    dy = np.where(tied, _gather(operands["dy"], at[:, 0], o, at[:, -1:])[..., 0], 0)
    if problem.reduction == "avg":
        return dy / len(taps)
    windows = np.concatenate([np.repeat(at[:, :1, None], len(taps), 1), o], axis=2)
    windows = np.concatenate([windows, np.repeat(at[:, -1:, None], len(taps), 1)], axis=2)
    elements = _pool_terms(problem, operands, windows.reshape(-1, at.shape[1]))
    first = elements.argmax(1).reshape(len(at), len(taps))  # the first of equal elements, in row-major order
    return np.where(first == np.arange(len(taps)), dy, 0)
