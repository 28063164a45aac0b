"""The gradient kernels by themselves: ∂E/∂X, ∂E/∂W and ∂E/∂b of a convolution layer.

They are for layers with a backward pass of their own. ``y`` is ``conv(x, w, b, ...)`` of the same arguments,
E any scalar computed from it, and dy = ∂E/∂y. All three may be differentiated again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
from jax.typing import ArrayLike

from jax_convgrad.layers.arguments import arrays
from jax_convgrad.layers.convolution import layer_spec
from jax_convgrad.layers.problem import check_shape, dimensions, shape_argument
from jax_convgrad.primitives import contractions
from jax_convgrad.primitives.axis_types import with_axis_types
from jax_convgrad.primitives.number_types import NUMBERS


def conv_input_grad(
    dy: ArrayLike,
    w: ArrayLike,
    input_shape: Sequence[int],
    *,
    stride: int | Sequence[int] = 1,
    padding: str | int | Sequence[int] | Sequence[tuple[int, int]] = "VALID",
    input_dilation: int | Sequence[int] = 1,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    dimension_numbers: Any = None,
    precision: Any = None,
) -> jax.Array:
    """∂E/∂X:  dx[n,i,c] = Σ_{r,k} dy[n,o,k] · w[r,c,k].

    Args:
      dy: ∂E/∂Y, of y's shape, [N, output spatial..., K] by default; real or complex.
      w: the filter, [spatial..., C / groups, K] by default, of the same dtype.
      input_shape: the whole shape of x.
      stride: the layer's stride; all arguments below are the layer's, too; see ``conv``.
      padding: see ``conv``.
      input_dilation: steps between neighbouring inputs (``lhs_dilation`` of ``conv_general_dilated``).
      dilation: see ``conv``.
      groups: see ``conv``.
      dimension_numbers: see ``conv``.
      precision: see ``conv_general_dilated``.

    Returns:
      dx, of shape ``input_shape`` and dy's dtype.

    Raises:
      TypeError: dtypes that differ or are not supported, or an argument of the wrong kind.
      ValueError: an argument whose length, size or value does not fit, dy's shape among them.
    """
    dy, w = arrays(NUMBERS, dy=dy, w=w)
    x_shape = shape_argument(input_shape, "input_shape")
    spec, _ = layer_spec(
        x_shape,
        w.shape,
        ("input_shape", "w"),
        stride,
        padding,
        input_dilation,
        dilation,
        groups,
        dimension_numbers,
        precision,
    )
    check_shape("dy", dy.shape, spec.y_shape(x_shape, w.shape))
    return with_axis_types(
        lambda dy, w: contractions.dgrad(dy, w, spec), (dy, w), lambda split: spec.x_sharding(*split)
    )


def conv_filter_grad(
    x: ArrayLike,
    dy: ArrayLike,
    filter_shape: Sequence[int],
    *,
    stride: int | Sequence[int] = 1,
    padding: str | int | Sequence[int] | Sequence[tuple[int, int]] = "VALID",
    input_dilation: int | Sequence[int] = 1,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    dimension_numbers: Any = None,
    precision: Any = None,
) -> jax.Array:
    """∂E/∂W:  dw[r,c,k] = Σ_{n,o} x[n,i,c] · dy[n,o,k].

    Args:
      x: the layer's input, [N, spatial..., C] by default; real or complex.
      dy: ∂E/∂Y, of y's shape, [N, output spatial..., K] by default, of the same dtype.
      filter_shape: the whole shape of w.
      stride: the layer's stride; all arguments below are the layer's, too; see ``conv``.
      padding: see ``conv``.
      input_dilation: steps between neighbouring inputs (``lhs_dilation`` of ``conv_general_dilated``).
      dilation: see ``conv``.
      groups: see ``conv``.
      dimension_numbers: see ``conv``.
      precision: see ``conv_general_dilated``.

    Returns:
      dw, of shape ``filter_shape`` and x's dtype.

    Raises:
      TypeError: dtypes that differ or are not supported, or an argument of the wrong kind.
      ValueError: an argument whose length, size or value does not fit, dy's shape among them.
    """
    x, dy = arrays(NUMBERS, x=x, dy=dy)
    w_shape = shape_argument(filter_shape, "filter_shape")
    spec, _ = layer_spec(
        x.shape,
        w_shape,
        ("x", "filter_shape"),
        stride,
        padding,
        input_dilation,
        dilation,
        groups,
        dimension_numbers,
        precision,
    )
    check_shape("dy", dy.shape, spec.y_shape(x.shape, w_shape))
    return with_axis_types(
        lambda x, dy: contractions.wgrad(x, dy, spec), (x, dy), lambda split: spec.w_sharding(*split)
    )


def conv_bias_grad(dy: ArrayLike, *, dimension_numbers: Any = None) -> jax.Array:
    """∂E/∂b:  db[k] = Σ_{n,o} dy[n,o,k].

    Args:
      dy: ∂E/∂Y, [N, output spatial..., K] by default; real or complex.
      dimension_numbers: see ``conv``; the part for y says which dimension holds the channels.

    Returns:
      db, of shape [K] and dy's dtype.

    Raises:
      TypeError: the dtype is not supported, or ``dimension_numbers`` are malformed.
      ValueError: ``dimension_numbers`` are for another rank than dy's, or dy has no channels.
    """
    (dy,) = arrays(NUMBERS, dy=dy)
    dims = dimensions(dy.shape, dy.shape, dimension_numbers, ("dy", "dy"), channels_last=True)
    channel = dims.y[1]
    return with_axis_types(
        lambda dy: contractions.bgrad(dy, channel), (dy,), lambda split: (split[0][channel],)
    )
