"""Each op as a PyTorch call without arguments, in both memory formats: channels first and channels last.

PyTorch's arrays are logically channels first. A transposed layer's filter is [in, out, taps] there and its
taps run the other way; ``result`` converts a call's result to this benchmark's order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from harness.problems import Bias, Conv, Pool, Problem

aten = torch.ops.aten


class UnsupportedError(Exception):
    """PyTorch has no such layer."""


@dataclass(frozen=True)
class Call:
    """One op in one memory format, and the conversion of its result to the benchmark's order."""

    run: Callable[[], object]
    result: Callable[[object], object]


def calls(
    problem: Problem,
    op: str,
    operands: dict[str, np.ndarray | torch.Tensor],
    dtype: torch.dtype | None = None,
    device: str = "cpu",
) -> dict[str, Call]:
    """The op by memory format; one-dimensional layers have only "contiguous".

    Args:
      problem: the layer.
      op: one of its ops.
      operands: x, w and dy in the benchmark's order, as NumPy's or PyTorch's arrays.
      dtype: the dtype to convert them to; None keeps theirs.
      device: where to put them.

    Raises:
      UnsupportedError: uneven padding.
    """
    tensors = {name: torch.as_tensor(array).to(device, dtype) for name, array in operands.items()}
    if isinstance(problem, Bias):
        # The sum over the rows of a channels-last array.
        rows = tensors["dy"].reshape(-1, problem.dy_shape[-1])
        return {"channels_last": Call(lambda: rows.sum(0), lambda db: db)}
    axes = len(problem.layer.taps)
    if any(low != high for low, high in problem.layer.pad):
        raise UnsupportedError("PyTorch pads evenly")
    formats = {"contiguous": torch.contiguous_format}
    if axes > 1:
        formats["channels_last"] = torch.channels_last if axes == 2 else torch.channels_last_3d
    make = _conv_call if isinstance(problem, Conv) else _pool_call
    return {name: make(problem, op, tensors, memory) for name, memory in formats.items()}


def _channels_first(tensor: torch.Tensor, memory: torch.memory_format) -> torch.Tensor:
    return tensor.movedim(-1, 1).contiguous(memory_format=memory)


def _channels_last_array(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.movedim(1, -1)


def _conv_call(problem: Conv, op: str, tensors: dict[str, torch.Tensor], memory) -> Call:
    layer = problem.layer
    axes = len(layer.taps)
    spatial = list(range(2, 2 + axes))
    x, dy = (_channels_first(tensors[name], memory) for name in ("x", "dy"))
    # [taps, in, out] -> [out, in, taps], or [in, out, taps] and flipped.
    if layer.transposed:
        if layer.groups != 1:
            raise UnsupportedError("groups of a transposed layer are in another order in PyTorch")
        w = tensors["w"].movedim((-2, -1), (0, 1)).flip(spatial)
    else:
        w = tensors["w"].movedim((-1, -2), (0, 1))
    w = w.contiguous(memory_format=memory)
    pad = [low for low, _ in layer.pad]
    steps = (list(layer.stride), pad, list(layer.dilation), layer.transposed, [0] * axes, layer.groups)

    def w_array(dw: torch.Tensor) -> torch.Tensor:
        if layer.transposed:
            return dw.flip(spatial).movedim((0, 1), (-2, -1))
        return dw.movedim((0, 1), (-1, -2))

    if op == "fprop":
        if layer.transposed:
            function = getattr(functional, f"conv_transpose{axes}d")
            return Call(
                lambda: function(x, w, None, layer.stride, pad, 0, layer.groups, layer.dilation),
                _channels_last_array,
            )
        function = getattr(functional, f"conv{axes}d")
        return Call(
            lambda: function(x, w, None, layer.stride, pad, layer.dilation, layer.groups),
            _channels_last_array,
        )
    if op == "dgrad":
        return Call(
            lambda: aten.convolution_backward(dy, x, w, None, *steps, [True, False, False])[0],
            _channels_last_array,
        )
    return Call(lambda: aten.convolution_backward(dy, x, w, None, *steps, [False, True, False])[1], w_array)


def _pool_call(problem: Pool, op: str, tensors: dict[str, torch.Tensor], memory) -> Call:
    layer = problem.layer
    if len(layer.taps) != 2:
        raise UnsupportedError("only pooling over 2 dimensions is compared")
    x, dy = (_channels_first(tensors[name], memory) for name in ("x", "dy"))
    window, stride, pad = list(layer.taps), list(layer.stride), [low for low, _ in layer.pad]
    if problem.reduction == "avg":
        if op == "fprop":
            return Call(lambda: functional.avg_pool2d(x, window, stride, pad), _channels_last_array)
        # ceil_mode, count_include_pad, divisor_override
        rest = (window, stride, pad, False, True, None)
        return Call(lambda: aten.avg_pool2d_backward(dy, x, *rest), _channels_last_array)
    rest = (window, stride, pad, [1, 1], False)
    if op == "fprop":
        return Call(lambda: functional.max_pool2d(x, window, stride, pad), _channels_last_array)

    def forward_and_backward():
        y, position = aten.max_pool2d_with_indices(x, *rest)
        return y, aten.max_pool2d_with_indices_backward(dy, x, *rest, position)

    return Call(forward_and_backward, lambda both: tuple(map(_channels_last_array, both)))
