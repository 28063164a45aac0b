"""Each op as one jitted function of JAX arrays, on this package's kernels and on jax.lax."""

from __future__ import annotations

from collections.abc import Callable

import jax
import numpy as np
from jax import lax

import jax_convgrad
from harness.problems import Bias, Conv, Pool, Problem

LIBRARIES = ("ours", "lax")


def jitted(problem: Problem, op: str, library: str) -> Callable[..., object]:
    """The op as a function of all of the problem's operands, by name.

    All operands are arguments, so XLA folds nothing into a constant. XLA removes what the op does not need,
    such as the forward pass under a gradient.
    """
    forward = _forward(problem, library)

    def run(x=None, w=None, dy=None):
        if op == "fprop":
            return forward(x, w)
        if op == "dgrad":
            return jax.vjp(lambda x: forward(x, w), x)[1](dy)[0]
        if op == "wgrad":
            return jax.vjp(lambda w: forward(x, w), w)[1](dy)[0]
        if op == "fprop+dgrad":
            y, backward = jax.vjp(lambda x: forward(x, w), x)
            return y, backward(dy)[0]
        if op == "bgrad" and library == "ours":
            return jax_convgrad.conv_bias_grad(dy)
        if op == "bgrad":
            return dy.sum(tuple(range(dy.ndim - 1)))
        raise ValueError(f"no op is called {op!r}")

    return jax.jit(run)


def _forward(problem: Problem, library: str) -> Callable[..., jax.Array] | None:
    match problem:
        case Conv():
            return _convolution(problem, jax_convgrad if library == "ours" else lax)
        case Pool():
            return _ours_pool(problem) if library == "ours" else _lax_pool(problem)
        case Bias():
            return None


def _convolution(problem: Conv, module):
    axes = problem.geometry.axes
    letters = "DHW"[-len(axes) :]

    def convolution(x, w):
        return module.conv_general_dilated(
            x,
            w,
            [axis.stride for axis in axes],
            problem.layer.padding,
            lhs_dilation=[axis.input_dilation for axis in axes],
            rhs_dilation=[axis.filter_dilation for axis in axes],
            dimension_numbers=(f"N{letters}C", f"{letters}IO", f"N{letters}C"),
            feature_group_count=problem.geometry.groups,
        )

    return convolution


def _ours_pool(problem: Pool):
    axes = problem.geometry.axes
    window, strides = [axis.taps for axis in axes], [axis.stride for axis in axes]
    pool = jax_convgrad.max_pool if problem.reduction == "max" else jax_convgrad.avg_pool
    return lambda x, _: pool(x, window, strides, problem.layer.padding)


def _lax_pool(problem: Pool):
    axes = problem.geometry.axes
    window = (1, *(axis.taps for axis in axes), 1)
    strides = (1, *(axis.stride for axis in axes), 1)
    padding = [(0, 0), *problem.layer.padding, (0, 0)]

    def max_pool(x, _):
        return lax.reduce_window(x, np.array(-np.inf, x.dtype), lax.max, window, strides, padding)

    def avg_pool(x, _):
        total = lax.reduce_window(x, np.array(0, x.dtype), lax.add, window, strides, padding)
        return total / np.prod(window).astype(x.dtype)

    return max_pool if problem.reduction == "max" else avg_pool
