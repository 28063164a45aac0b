"""``explain``: the terms of one element of a layer, with numbers drawn or given, and the kernel's answer."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jax_convgrad.geometry import dilated
from jax_convgrad.instruments.explanation import Explanation
from jax_convgrad.instruments.layer_text import Layer, parse_layer_or_pool
from jax_convgrad.instruments.terms import Index, Terms, terms_of
from jax_convgrad.layers.convolution import conv_general_dilated
from jax_convgrad.layers.gradient_functions import conv_bias_grad, conv_filter_grad, conv_input_grad
from jax_convgrad.layers.pooling import avg_pool, max_pool

MOST_NUMBERS = 2**26
"""The most numbers that are drawn for one explanation: 256 MiB of float32."""


def explain(
    layer: Layer | str,
    array: str = "dx",
    index: Sequence[int] | None = None,
    *,
    x: Any = None,
    w: Any = None,
    dy: Any = None,
    seed: int | None = None,
) -> Explanation:
    """Lists the products that make one element of a layer's output or of its gradients.

    ```python
    from jax_convgrad import explain

    print(explain("1x5x5x1, 3x3, 1, stride 2", "dx", (0, 2, 2, 0)))
    ```

    Args:
      layer: a line of text, as ``python -m jax_convgrad explain`` takes it: "1x5x5x1, 3x3, 1, stride 2", or
        for pooling "1x6x6x1, max 3x3, stride 2".
      array: "y", "dx" for ∂E/∂X, "dw" for ∂E/∂W or "db" for ∂E/∂b; pooling has "y" and "dx".
      index: of the element, channels last: (n, o..., k) of y, (n, i..., c) of dx, (r..., c, k) of dw with c
        counted within its group, (k,) of db. None is the one in the middle.
      x: with w and dy the arrays to look into, [N, spatial..., C], [spatial..., C / groups, K] and
        [N, output spatial..., K]; those that the element is made of are enough.
      w: the filter.
      dy: ∂E/∂Y.
      seed: draws the arrays that are not given, of small integers.

    Returns:
      An ``Explanation``. Its formulas are those of docs/derivation.md.

    Raises:
      TypeError: an index that is not integers.
      ValueError: the layer is malformed, there is no such array or element, or an array that is needed is
        missing or has another shape.
    """
    if isinstance(layer, str):
        layer = parse_layer_or_pool(layer)
    terms = terms_of(layer, array, _middle(layer, array) if index is None else index)
    arrays = {name: value for name, value in (("x", x), ("w", w), ("dy", dy)) if value is not None}
    if seed is not None:
        arrays = _drawn(layer, seed) | arrays
    if not arrays:
        return Explanation(terms, {})
    values = terms.values(**arrays)
    return Explanation(terms, arrays, values, terms.total(**arrays), _by_kernels(terms, **arrays))


def _middle(layer: Layer, array: str) -> Index:
    """The middle element along the positions of an array, of the first image and channel."""
    shape = layer.shapes.get(array, ())  # terms_of reports an array that is not there
    spatial = range(len(shape) - 2) if array == "dw" else range(1, len(shape) - 1)
    return tuple(size // 2 if axis in spatial else 0 for axis, size in enumerate(shape))


def _drawn(layer: Layer, seed: int) -> dict[str, np.ndarray]:
    """x, w and dy of integers from -3 to 3 without 0, whose sums are exact in float32; pooling's x 0 to 9."""
    shapes = {name: shape for name, shape in layer.shapes.items() if name in ("x", "w", "dy")}
    count = sum(math.prod(shape) for shape in shapes.values())
    if count > MOST_NUMBERS:
        raise ValueError(
            f"values are drawn for the whole layer, and {count} are too many: take a smaller one"
        )
    random = np.random.default_rng(seed)
    few = np.array([-3, -2, -1, 1, 2, 3])
    # Pooling's x has more values, so that most windows have one maximum, and now and then one has two.
    return {
        name: random.integers(0, 10, shape) if layer.pool and name == "x" else random.choice(few, shape)
        for name, shape in shapes.items()
    }


def _by_kernels(terms: Terms, x: Any = None, w: Any = None, dy: Any = None) -> tuple[str, Any]:
    """The element as the package's own function computes it: the function's name and the number."""
    x, w, dy = (None if a is None else _floating(a) for a in (x, w, dy))
    if terms.layer.pool and x is None:  # an average's gradient does not depend on it
        x = jnp.zeros(terms.layer.x_shape, dy.dtype)
    name, call = _pooling(terms) if terms.layer.pool else _convolution(terms)
    return name, np.asarray(jax.jit(call)(x, w, dy))[terms.index]


def _floating(array: Any) -> jax.Array:
    array = jnp.asarray(array)
    return array if jnp.issubdtype(array.dtype, jnp.inexact) else array.astype(jnp.float32)


def _padding(layer: Layer) -> list[tuple[int, int]]:
    """The pads of each axis that end where the last window does."""
    pads = []
    for axis in layer.geometry.axes:
        reach = (axis.output - 1) * axis.stride + dilated(axis.taps, axis.filter_dilation)
        pads.append((axis.pad_lo, reach - dilated(axis.input, axis.input_dilation) - axis.pad_lo))
    return pads


def _convolution(terms: Terms) -> tuple[str, Callable[..., Any]]:
    """The name of a function of this package, and it as a function of x, w and dy."""
    layer, axes = terms.layer, terms.axes
    settings: dict[str, Any] = {
        "stride": tuple(axis.stride for axis in axes),
        "padding": _padding(layer),
        "input_dilation": tuple(axis.input_dilation for axis in axes),
        "dilation": layer.dilation,
        "groups": layer.groups,
        "precision": "highest",  # the terms as they stand
    }
    spatial = "DHW"[-len(axes) :]
    order = (f"N{spatial}C", f"{spatial}IO", f"N{spatial}C")
    stride, padding, input_dilation, dilation, groups, precision = settings.values()
    return {
        "y": (
            "conv_general_dilated",
            lambda x, w, dy: conv_general_dilated(
                x, w, stride, padding, input_dilation, dilation, order, groups, precision=precision
            ),
        ),
        "dx": ("conv_input_grad", lambda x, w, dy: conv_input_grad(dy, w, layer.x_shape, **settings)),
        "dw": ("conv_filter_grad", lambda x, w, dy: conv_filter_grad(x, dy, layer.w_shape, **settings)),
        "db": ("conv_bias_grad", lambda x, w, dy: conv_bias_grad(dy)),
    }[terms.array]


def _pooling(terms: Terms) -> tuple[str, Callable[..., Any]]:
    layer, pads = terms.layer, _padding(terms.layer)

    def pool(x: jax.Array) -> jax.Array:
        if layer.pool == "max":
            return max_pool(x, layer.taps, layer.stride, pads, layer.dilation)
        return avg_pool(x, layer.taps, layer.stride, pads, layer.count_include_pad, layer.dilation)

    name = f"{layer.pool}_pool"
    if terms.array == "y":
        return name, lambda x, w, dy: pool(x)
    return f"the gradient of {name}", lambda x, w, dy: jax.vjp(pool, x)[1](dy)[0]
