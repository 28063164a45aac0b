"""The layers that a Flax model takes from here or from flax, as a parameter of every model."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

import jax_convgrad

ACTIVATIONS: dict[str | None, Callable[[jax.Array], jax.Array]] = {
    None: lambda x: x,
    "relu": nn.relu,
    "relu6": nn.relu6,
    "silu": nn.silu,
    "tanh": jnp.tanh,
    "leaky_relu": lambda x: nn.leaky_relu(x, 0.2),
}
MOMENTUM, EPSILON = 0.9, 1e-5  # of the running statistics; PyTorch's momentum is one minus this


@dataclasses.dataclass(frozen=True)
class Layers:
    """The modules and functions by which a model computes.

    ``conv`` gets the activations that ``conv_activations`` names as an argument ``activation``, and
    ``batch_norm`` those of ``norm_activations``; all others are functions of the layer's result.
    """

    conv: Any = nn.Conv
    conv_transpose: Any = nn.ConvTranspose
    batch_norm: Any = nn.BatchNorm
    max_pool: Callable[..., jax.Array] = nn.max_pool
    avg_pool: Callable[..., jax.Array] = nn.avg_pool
    conv_activations: tuple[str, ...] = ()
    norm_activations: tuple[str, ...] = ()

    def convolve(
        self, x: jax.Array, name: str, features: int, taps: int, *, stride: int = 1, dilation: int = 1,
        groups: int = 1, padding: int | None = None, bias: bool = False, activation: str | None = None,
    ) -> jax.Array:  # fmt: skip
        """A convolution with the same padding on both sides, as PyTorch has it; by default the size stays."""
        axes = x.ndim - 2
        pad = dilation * (taps - 1) // 2 if padding is None else padding
        options = dict(
            features=features,
            kernel_size=(taps,) * axes,
            strides=(stride,) * axes,
            padding=((pad, pad),) * axes,
            kernel_dilation=(dilation,) * axes,
            feature_group_count=groups,
            use_bias=bias,
            name=name,
        )
        return _activated(self.conv, options, activation, self.conv_activations)(x)

    def upsample(
        self, x: jax.Array, name: str, features: int, taps: int, *, stride: int = 2, padding: str = "SAME",
        bias: bool = False,
    ) -> jax.Array:  # fmt: skip
        """A transposed convolution."""
        axes = x.ndim - 2
        layer = self.conv_transpose(
            features, (taps,) * axes, (stride,) * axes, padding, use_bias=bias, name=name
        )
        return layer(x)

    def normalize(self, x: jax.Array, name: str, activation: str | None = None) -> jax.Array:
        """Batch norm by the batch's own statistics; the running ones are updated."""
        options = dict(use_running_average=False, momentum=MOMENTUM, epsilon=EPSILON, name=name)
        return _activated(self.batch_norm, options, activation, self.norm_activations)(x)


def _activated(
    layer: Any, options: dict[str, Any], activation: str | None, fused: tuple[str, ...]
) -> Callable[[jax.Array], jax.Array]:
    if activation in fused:
        return layer(**options, activation=activation)
    made = layer(**options)
    return lambda x: ACTIVATIONS[activation](made(x))


class Conv(nn.Module):
    """``flax.linen.Conv`` on ``jax_convgrad.conv``, which takes bias and activation along."""

    features: int
    kernel_size: tuple[int, ...]
    strides: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    kernel_dilation: tuple[int, ...]
    feature_group_count: int
    use_bias: bool
    activation: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (*self.kernel_size, x.shape[-1] // self.feature_group_count, self.features)
        return jax_convgrad.conv(
            x,
            self.param("kernel", nn.initializers.lecun_normal(), shape, jnp.float32),
            self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
            if self.use_bias
            else None,
            stride=self.strides,
            padding=self.padding,
            dilation=self.kernel_dilation,
            groups=self.feature_group_count,
            activation=self.activation,
        )


class ConvTranspose(nn.Module):
    """``flax.linen.ConvTranspose`` on ``jax_convgrad.conv_transpose``."""

    features: int
    kernel_size: tuple[int, ...]
    strides: tuple[int, ...]
    padding: str
    use_bias: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (*self.kernel_size, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape, jnp.float32)
        y = jax_convgrad.conv_transpose(x, kernel, self.strides, self.padding)
        return (
            y + self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
            if self.use_bias
            else y
        )


def own_layers() -> Layers:
    """This package's layers. Batch norm stays flax's in a version without ``jax_convgrad.flax.BatchNorm``."""
    own = Layers(Conv, ConvTranspose, nn.BatchNorm, jax_convgrad.max_pool, jax_convgrad.avg_pool, ("relu",))
    if importlib.util.find_spec("jax_convgrad.flax") is None:
        return own
    batch_norm = importlib.import_module("jax_convgrad.flax").BatchNorm
    return dataclasses.replace(own, batch_norm=batch_norm, norm_activations=("relu",))
