"""Image classifiers in Flax. Modules have the names that torch_classifiers.py gives them in PyTorch."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

from whole_steps.layers import Layers


class BasicBlock(nn.Module):
    layers: Layers
    width: int
    stride: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        of = self.layers
        y = of.convolve(x, "conv1", self.width, 3, stride=self.stride)
        y = of.convolve(of.normalize(y, "bn1", "relu"), "conv2", self.width, 3)
        y = of.normalize(y, "bn2")
        if x.shape != y.shape:
            x = of.normalize(of.convolve(x, "conv0", self.width, 1, stride=self.stride), "bn0")
        return nn.relu(x + y)


class Bottleneck(nn.Module):
    layers: Layers
    width: int
    stride: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        of = self.layers
        y = of.normalize(of.convolve(x, "conv1", self.width, 1), "bn1", "relu")
        y = of.normalize(of.convolve(y, "conv2", self.width, 3, stride=self.stride), "bn2", "relu")
        y = of.normalize(of.convolve(y, "conv3", 4 * self.width, 1), "bn3")
        if x.shape != y.shape:
            x = of.normalize(of.convolve(x, "conv0", 4 * self.width, 1, stride=self.stride), "bn0")
        return nn.relu(x + y)


class ResNet(nn.Module):
    """``bottlenecks`` and a stem for large images (ResNet-50), or neither (ResNet-18 for 32x32)."""

    layers: Layers
    blocks: tuple[int, ...]
    width: int
    classes: int
    bottlenecks: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        of = self.layers
        if self.bottlenecks:
            x = of.normalize(of.convolve(x, "conv", self.width, 7, stride=2), "bn", "relu")
            x = of.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
        else:
            x = of.normalize(of.convolve(x, "conv", self.width, 3), "bn", "relu")
        block = Bottleneck if self.bottlenecks else BasicBlock
        for stage, count in enumerate(self.blocks):
            for number in range(count):
                stride = 2 if stage and not number else 1
                x = block(of, self.width << stage, stride, name=f"block{stage}_{number}")(x)
        return nn.Dense(self.classes, name="head")(jnp.mean(x, (1, 2)))


class InvertedResidual(nn.Module):
    """An expansion, a depthwise convolution, a projection; with ``squeeze`` channels, a gate between them."""

    layers: Layers
    features: int
    expansion: int
    taps: int
    stride: int
    activation: str
    squeeze: int = 0

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        of, y, wide = self.layers, x, x.shape[-1] * self.expansion
        if self.expansion > 1:
            y = of.normalize(of.convolve(y, "expand", wide, 1), "bn1", self.activation)
        y = of.convolve(y, "depthwise", wide, self.taps, stride=self.stride, groups=wide)
        y = of.normalize(y, "bn2", self.activation)
        if self.squeeze:
            gate = jnp.mean(y, (1, 2), keepdims=True)
            gate = nn.silu(of.convolve(gate, "squeeze", self.squeeze, 1, bias=True))
            y = y * nn.sigmoid(of.convolve(gate, "excite", wide, 1, bias=True))
        y = of.normalize(of.convolve(y, "project", self.features, 1), "bn3")
        return x + y if x.shape == y.shape else y


class MobileNet(nn.Module):
    """MobileNetV2 and EfficientNet. ``stages``: expansion, channels, blocks, stride, taps of each.

    EfficientNet's dropout and stochastic depth are left out: their random numbers are not PyTorch's.
    """

    layers: Layers
    stem: int
    stages: tuple[tuple[int, int, int, int, int], ...]
    last: int
    classes: int
    activation: str
    squeezes: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        of = self.layers
        x = of.normalize(of.convolve(x, "stem", self.stem, 3, stride=2), "bn0", self.activation)
        for stage, (expansion, features, count, stride, taps) in enumerate(self.stages):
            for number in range(count):
                squeeze = max(1, x.shape[-1] // 4) if self.squeezes else 0
                x = InvertedResidual(
                    of, features, expansion, taps, 1 if number else stride, self.activation, squeeze,
                    name=f"block{stage}_{number}",
                )(x)  # fmt: skip
        x = of.normalize(of.convolve(x, "last", self.last, 1), "bn", self.activation)
        return nn.Dense(self.classes, name="head")(jnp.mean(x, (1, 2)))


class ConvNeXtBlock(nn.Module):
    layers: Layers

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        channels = x.shape[-1]
        y = self.layers.convolve(x, "depthwise", channels, 7, groups=channels, bias=True)
        y = nn.LayerNorm(epsilon=1e-6, name="norm")(y)
        y = nn.gelu(nn.Dense(4 * channels, name="expand")(y), approximate=False)
        y = nn.Dense(channels, name="project")(y)
        return x + self.param("gamma", nn.initializers.constant(1e-6), (channels,), jnp.float32) * y


class ConvNeXt(nn.Module):
    layers: Layers
    depths: tuple[int, ...]
    widths: tuple[int, ...]
    classes: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        of = self.layers
        for stage, (depth, width) in enumerate(zip(self.depths, self.widths, strict=True)):
            if stage:
                x = nn.LayerNorm(epsilon=1e-6, name=f"norm{stage}")(x)
            taps = 2 if stage else 4
            x = of.convolve(x, f"down{stage}", width, taps, stride=taps, padding=0, bias=True)
            if not stage:
                x = nn.LayerNorm(epsilon=1e-6, name="norm0")(x)
            for number in range(depth):
                x = ConvNeXtBlock(of, name=f"block{stage}_{number}")(x)
        x = nn.LayerNorm(epsilon=1e-6, name="norm")(jnp.mean(x, (1, 2)))
        return nn.Dense(self.classes, name="head")(x)
