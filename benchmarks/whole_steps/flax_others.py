"""Models in Flax for pictures, signals and volumes, and the example's; in PyTorch: torch_others.py."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

from whole_steps.layers import Layers


class UNet(nn.Module):
    layers: Layers
    widths: tuple[int, ...]
    classes: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        of = self.layers

        def pair(x: jax.Array, name: str, width: int) -> jax.Array:
            for number in (1, 2):
                x = of.convolve(x, f"{name}_conv{number}", width, 3)
                x = of.normalize(x, f"{name}_bn{number}", "relu")
            return x

        kept = []
        for level, width in enumerate(self.widths):
            if level:
                x = of.max_pool(x, (2, 2), (2, 2))
            x = pair(x, f"down{level}", width)
            kept.append(x)
        for level in reversed(range(len(self.widths) - 1)):
            x = of.upsample(x, f"up{level}", self.widths[level], 2, bias=True)
            x = pair(jnp.concatenate([kept[level], x], -1), f"level{level}", self.widths[level])
        return of.convolve(x, "head", self.classes, 1, bias=True)


class Generator(nn.Module):
    """From [N, 1, 1, noise] to pictures whose side is 4 times 2 to the number of widths."""

    layers: Layers
    widths: tuple[int, ...]

    @nn.compact
    def __call__(self, z: jax.Array) -> jax.Array:
        of = self.layers
        x = nn.relu(of.normalize(of.upsample(z, "up0", self.widths[0], 4, stride=1, padding="VALID"), "bn0"))
        for level, width in enumerate(self.widths[1:], 1):
            x = of.normalize(of.upsample(x, f"up{level}", width, 4), f"bn{level}", "relu")
        return jnp.tanh(of.upsample(x, "head", 3, 4))


class Discriminator(nn.Module):
    layers: Layers
    widths: tuple[int, ...]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        of = self.layers
        for level, width in enumerate(self.widths):
            down = of.convolve(x, f"down{level}", width, 4, stride=2, padding=1)
            x = of.normalize(down, f"bn{level}", "leaky_relu") if level else nn.leaky_relu(down, 0.2)
        return of.convolve(x, "head", 1, 4, padding=0)[:, 0, 0, 0]


class DilatedNet(nn.Module):
    """Residual layers on a signal, each with twice the dilation of the one before."""

    layers: Layers
    width: int
    depth: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        of = self.layers
        x = of.convolve(x, "first", self.width, 3, bias=True)
        for number in range(self.depth):
            y = of.convolve(
                x, f"dilated{number}", self.width, 3, dilation=2**number, bias=True, activation="relu"
            )
            x = x + of.convolve(y, f"mixed{number}", self.width, 1, bias=True)
        return of.convolve(nn.relu(x), "head", 1, 1, bias=True)


class VolumeNet(nn.Module):
    """3x3x3 convolutions of a short video; pools halve the pictures, and from the second one on the time."""

    layers: Layers
    widths: tuple[int, ...]
    classes: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        of = self.layers
        for level, width in enumerate(self.widths):
            x = of.normalize(of.convolve(x, f"conv{level}", width, 3), f"bn{level}", "relu")
            window = (2, 2, 2) if level else (1, 2, 2)
            x = of.max_pool(x, window, window)
        return nn.Dense(self.classes, name="head")(jnp.mean(x, (1, 2, 3)))


class ExampleNet(nn.Module):
    """The network of examples/train_cnn.py."""

    layers: Layers
    widths: tuple[int, ...]
    classes: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        of = self.layers
        for level, width in enumerate(self.widths):
            x = of.convolve(x, f"conv{level}", width, 3, bias=True, activation="relu")
            x = of.max_pool(x, (2, 2), (2, 2))
        return nn.Dense(self.classes, name="head")(jnp.reshape(x, (len(x), -1)))
