"""The nets of lowering_time.py, written once for all libraries; ``Ops`` has the operations that differ."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

import jax_convgrad

_LAYOUT = ("NHWC", "HWIO", "NHWC")
Take = Callable[..., jax.Array]
"""Returns the next parameter, which has the given shape."""


@dataclass(frozen=True)
class Ops:
    """One library's layers: convolution and transposed convolution with bias, pooling with a window of 2."""

    conv: Callable[..., jax.Array]
    conv_transpose: Callable[..., jax.Array]
    max_pool: Callable[..., jax.Array]
    avg_pool: Callable[..., jax.Array]


def _lax_conv(x: jax.Array, w: jax.Array, b: jax.Array, stride: int) -> jax.Array:
    return lax.conv_general_dilated(x, w, (stride, stride), "SAME", dimension_numbers=_LAYOUT) + b


def _lax_transpose(x: jax.Array, w: jax.Array, b: jax.Array) -> jax.Array:
    return lax.conv_transpose(x, w, (2, 2), "SAME", dimension_numbers=_LAYOUT) + b


def _lax_max_pool(x: jax.Array, window: int) -> jax.Array:
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, window, window, 1), (1, 2, 2, 1), "SAME")


def _lax_avg_pool(x: jax.Array, window: int) -> jax.Array:
    total = lax.reduce_window(x, 0.0, lax.add, (1, window, window, 1), (1, 2, 2, 1), "SAME")
    return total / (window * window)


LAX = Ops(_lax_conv, _lax_transpose, _lax_max_pool, _lax_avg_pool)
OWN = Ops(
    lambda x, w, b, stride: jax_convgrad.conv(x, w, b, stride=stride, padding="SAME"),
    lambda x, w, b: jax_convgrad.conv_transpose(x, w, (2, 2), "SAME") + b,
    lambda x, window: jax_convgrad.max_pool(x, (window, window), (2, 2), "SAME"),
    lambda x, window: jax_convgrad.avg_pool(x, (window, window), (2, 2), "SAME"),
)


@dataclass(frozen=True)
class Net:
    """A net: ``apply(ops, take, x)`` is its loss, and it has ``convolutions`` convolutions."""

    apply: Callable[[Ops, Take, jax.Array], jax.Array]
    input: tuple[int, ...]
    convolutions: int


def _group_norm(x: jax.Array, take: Take) -> jax.Array:
    channels = x.shape[-1]
    grouped = jnp.reshape(x, (*x.shape[:-1], 4, channels // 4))
    mean = jnp.mean(grouped, (1, 2, 4), keepdims=True)
    variance = jnp.var(grouped, (1, 2, 4), keepdims=True)
    normal = jnp.reshape((grouped - mean) * lax.rsqrt(variance + 1e-5), x.shape)
    return normal * take(channels) + take(channels)


def _batch_norm(x: jax.Array, take: Take) -> jax.Array:
    mean, variance = jnp.mean(x, (0, 1, 2)), jnp.var(x, (0, 1, 2))
    return (x - mean) * lax.rsqrt(variance + 1e-5) * take(x.shape[-1]) + take(x.shape[-1])


def _conv(ops: Ops, take: Take, x: jax.Array, taps: int, channels: int, stride: int = 1) -> jax.Array:
    return ops.conv(x, take(taps, taps, x.shape[-1], channels), take(channels), stride)


def _residual(ops: Ops, take: Take, x: jax.Array, channels: int) -> jax.Array:
    """Two convolutions, and a third in the skip connection if the number of channels changes."""
    y = _conv(ops, take, jax.nn.silu(_group_norm(x, take)), 3, channels)
    y = _conv(ops, take, jax.nn.silu(_group_norm(y, take)), 3, channels)
    return y + (x if x.shape[-1] == channels else _conv(ops, take, x, 1, channels))


def unet(widths: tuple[int, ...], blocks: int, middle: int, size: int, batch: int) -> Net:
    """A U-Net: residual blocks at each width on the way down and one more on the way up, each with a head.

    It goes down by max and average pooling alternately, and up by transposed convolutions.
    """

    def apply(ops: Ops, take: Take, x: jax.Array) -> jax.Array:
        x = _conv(ops, take, x, 3, widths[0])
        kept = []
        for level, width in enumerate(widths):
            if level:
                x = (ops.max_pool if level % 2 else ops.avg_pool)(x, 2)
            kept.append(x)
            for _ in range(blocks):
                x = _residual(ops, take, x, width)
                kept.append(x)
        for _ in range(middle):
            x = _residual(ops, take, x, widths[-1])
        losses = []
        for level, width in reversed([*enumerate(widths)]):
            for _ in range(blocks + 1):
                x = _residual(ops, take, jnp.concatenate([x, kept.pop()], -1), width)
            losses.append(jnp.mean(jnp.square(_conv(ops, take, jax.nn.silu(_group_norm(x, take)), 1, 2))))
            if level:
                x = ops.conv_transpose(x, take(2, 2, x.shape[-1], widths[level - 1]), take(widths[level - 1]))
        return sum(losses[1:], losses[0])

    levels = len(widths)
    down = levels * blocks * 2 + levels - 1
    up = levels * (blocks + 1) * 3 + levels - 1
    return Net(apply, (batch, size, size, 3), 1 + down + 2 * middle + up + levels)


def resnet(blocks: tuple[int, ...], width: int, size: int, batch: int) -> Net:
    """A ResNet of bottleneck blocks, a number of them at each width, as in ResNet-50."""

    def bottleneck(ops: Ops, take: Take, x: jax.Array, channels: int, stride: int) -> jax.Array:
        y = jax.nn.relu(_batch_norm(_conv(ops, take, x, 1, channels), take))
        y = jax.nn.relu(_batch_norm(_conv(ops, take, y, 3, channels, stride), take))
        y = _batch_norm(_conv(ops, take, y, 1, 4 * channels), take)
        if x.shape != y.shape:
            x = _batch_norm(_conv(ops, take, x, 1, 4 * channels, stride), take)
        return jax.nn.relu(x + y)

    def apply(ops: Ops, take: Take, x: jax.Array) -> jax.Array:
        x = jax.nn.relu(_batch_norm(_conv(ops, take, x, 7, width, 2), take))
        x = ops.max_pool(x, 3)
        for stage, count in enumerate(blocks):
            for block in range(count):
                x = bottleneck(ops, take, x, width << stage, 2 if stage and not block else 1)
        logits = jnp.mean(x, (1, 2)) @ take(x.shape[-1], 10) + take(10)
        return -jnp.mean(jax.nn.log_softmax(logits)[:, 0])

    return Net(apply, (batch, size, size, 3), 1 + 3 * sum(blocks) + len(blocks))


NETS = {
    "unet": unet((32, 64, 128, 256), blocks=5, middle=4, size=64, batch=8),
    "resnet": resnet((3, 4, 6, 3), width=64, size=224, batch=8),
}
TINY = {
    "unet": unet((4, 8), blocks=1, middle=1, size=8, batch=8),
    "resnet": resnet((1, 1), width=4, size=16, batch=8),
}


def parameters(net: Net) -> list[tuple[int, ...]]:
    """The shapes of the net's parameters, in the order in which it takes them."""
    shapes: list[tuple[int, ...]] = []

    def take(*shape: int) -> jax.Array:
        shapes.append(shape)
        return jnp.zeros(shape, jnp.float32)

    jax.eval_shape(lambda x: net.apply(LAX, take, x), jax.ShapeDtypeStruct(net.input, jnp.float32))
    return shapes


def loss(net: Net, ops: Ops) -> Callable[[Any, jax.Array], jax.Array]:
    """The net as a function of its parameters and x, a new one at each call."""

    def of_parameters(params: Any, x: jax.Array) -> jax.Array:
        following = iter(params)
        return net.apply(ops, lambda *_: next(following), x)

    return of_parameters
