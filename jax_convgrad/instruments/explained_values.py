"""Numbers for an explanation: small integers drawn at random, and what the layer's kernels make of them."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jax_convgrad.geometry import dilated
from jax_convgrad.instruments.elements import AnyLayer, axes_of, shapes_of
from jax_convgrad.instruments.layer_text import Pool
from jax_convgrad.instruments.terms import Terms
from jax_convgrad.layers.convolution import conv_general_dilated
from jax_convgrad.layers.gradient_functions import conv_bias_grad, conv_filter_grad, conv_input_grad
from jax_convgrad.layers.pooling import avg_pool, max_pool

MOST_NUMBERS = 2**26
"""Numbers that are drawn for one explanation: 256 MiB of float32."""


def drawn_values(layer: AnyLayer, seed: int) -> dict[str, np.ndarray]:
    """x, w and dy of integers from -3 to 3 without 0, whose sums float32 holds exactly; pooling's x 0 to 9.

    Raises:
      ValueError: the layer is too large to draw.
    """
    shapes = {name: shape for name, shape in shapes_of(layer).items() if name in ("x", "w", "dy")}
    count = sum(math.prod(shape) for shape in shapes.values())
    if count > MOST_NUMBERS:
        raise ValueError(
            f"values are drawn for the whole layer, and {count} are too many: take a smaller one"
        )
    random = np.random.default_rng(seed)
    if isinstance(layer, Pool):  # more values, so that windows have one maximum mostly, and now and then two
        return {"x": random.integers(0, 10, shapes["x"]), "dy": _without_zero(random, shapes["dy"])}
    return {name: _without_zero(random, shape) for name, shape in shapes.items()}


def _without_zero(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return random.choice(np.array([-3, -2, -1, 1, 2, 3]), shape)


def by_kernels(terms: Terms, x: Any = None, w: Any = None, dy: Any = None) -> tuple[str, Any]:
    """The element as the package's own function computes it: the function's name and the number."""
    x, w, dy = (None if a is None else _floating(a) for a in (x, w, dy))
    name, array = _pooled(terms, x, dy) if isinstance(terms.layer, Pool) else _convolved(terms, x, w, dy)
    return name, np.asarray(array)[terms.index]


def _floating(array: Any) -> jax.Array:
    array = jnp.asarray(array)
    return array if jnp.issubdtype(array.dtype, jnp.inexact) else array.astype(jnp.float32)


def _padding(layer: AnyLayer) -> list[tuple[int, int]]:
    """The pads of each axis that end where the last window does."""
    pads = []
    for axis in axes_of(layer):
        reach = (axis.output - 1) * axis.stride + dilated(axis.taps, axis.filter_dilation)
        span = dilated(axis.input, axis.input_dilation)
        pads.append((axis.pad_lo, reach - span - axis.pad_lo))
    return pads


def _convolved(terms: Terms, x: Any, w: Any, dy: Any) -> tuple[str, Any]:
    layer = terms.layer
    assert not isinstance(layer, Pool)
    axes, shapes = layer.geometry.axes, shapes_of(layer)
    stride = tuple(axis.stride for axis in axes)
    input_dilation = tuple(axis.input_dilation for axis in axes)
    dilation = tuple(axis.filter_dilation for axis in axes)
    groups = layer.geometry.groups
    if terms.array == "db":
        return "conv_bias_grad", jax.jit(conv_bias_grad)(dy)
    if terms.array == "y":
        spatial = "DHW"[-len(axes) :]
        order = (f"N{spatial}C", f"{spatial}IO", f"N{spatial}C")
        return "conv_general_dilated", jax.jit(
            lambda x, w: conv_general_dilated(
                x, w, stride, _padding(layer), input_dilation, dilation, order, groups
            )
        )(x, w)
    settings: dict[str, Any] = {
        "stride": stride,
        "padding": _padding(layer),
        "input_dilation": input_dilation,
        "dilation": dilation,
        "groups": groups,
    }
    if terms.array == "dx":
        return "conv_input_grad", jax.jit(lambda dy, w: conv_input_grad(dy, w, shapes["x"], **settings))(
            dy, w
        )
    return "conv_filter_grad", jax.jit(lambda x, dy: conv_filter_grad(x, dy, shapes["w"], **settings))(x, dy)


def _pooled(terms: Terms, x: Any, dy: Any) -> tuple[str, Any]:
    pool = terms.layer
    assert isinstance(pool, Pool)
    pads = _padding(pool)

    def function(x: jax.Array) -> jax.Array:
        if pool.kind == "max":
            return max_pool(x, pool.window, pool.stride, pads, pool.dilation)
        return avg_pool(x, pool.window, pool.stride, pads, pool.count_include_pad, pool.dilation)

    name = f"{pool.kind}_pool"
    if terms.array == "y":
        return name, jax.jit(function)(x)
    if x is None:  # an average's gradient does not depend on it
        x = jnp.zeros(shapes_of(pool)["x"], dy.dtype)
    return f"the gradient of {name}", jax.jit(lambda x, dy: jax.vjp(function, x)[1](dy)[0])(x, dy)
