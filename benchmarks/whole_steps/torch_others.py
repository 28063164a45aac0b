"""The models of flax_others.py in PyTorch, with the same names of modules and parameters."""

from __future__ import annotations

import torch
from torch import nn

from whole_steps.torch_classifiers import EPSILON, MOMENTUM, Activated, convolution, relu


class UNet(nn.Module):
    def __init__(self, widths: tuple[int, ...], classes: int):
        super().__init__()
        self.levels, inputs = len(widths), 3
        for level, width in enumerate(widths):
            self._add_pair(f"down{level}", inputs, width)
            inputs = width
        for level in range(self.levels - 1):
            width = widths[level]
            self.add_module(f"up{level}", nn.ConvTranspose2d(widths[level + 1], width, 2, 2))
            self._add_pair(f"level{level}", 2 * width, width)
        self.pool, self.head = nn.MaxPool2d(2), nn.Conv2d(widths[0], classes, 1)

    def _add_pair(self, name: str, inputs: int, width: int) -> None:
        for number in (1, 2):
            self.add_module(f"{name}_conv{number}", convolution(inputs, width, 3))
            self.add_module(f"{name}_bn{number}", Activated(width, relu()))
            inputs = width

    def _pair(self, x: torch.Tensor, name: str) -> torch.Tensor:
        for number in (1, 2):
            x = getattr(self, f"{name}_bn{number}")(getattr(self, f"{name}_conv{number}")(x))
        return x

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kept = []
        for level in range(self.levels):
            x = self._pair(self.pool(x) if level else x, f"down{level}")
            kept.append(x)
        for level in reversed(range(self.levels - 1)):
            x = torch.cat([kept[level], getattr(self, f"up{level}")(x)], 1)
            x = self._pair(x, f"level{level}")
        return self.head(x)


class Generator(nn.Module):
    def __init__(self, noise: int, widths: tuple[int, ...]):
        super().__init__()
        self.levels, inputs = len(widths), noise
        for level, width in enumerate(widths):
            stride, padding = (2, 1) if level else (1, 0)
            self.add_module(f"up{level}", nn.ConvTranspose2d(inputs, width, 4, stride, padding, bias=False))
            self.add_module(f"bn{level}", Activated(width, relu()))
            inputs = width
        self.head = nn.ConvTranspose2d(inputs, 3, 4, 2, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for level in range(self.levels):
            x = getattr(self, f"bn{level}")(getattr(self, f"up{level}")(x))
        return torch.tanh(self.head(x))


class Discriminator(nn.Module):
    def __init__(self, widths: tuple[int, ...]):
        super().__init__()
        self.levels, inputs = len(widths), 3
        for level, width in enumerate(widths):
            self.add_module(f"down{level}", nn.Conv2d(inputs, width, 4, 2, 1, bias=False))
            leaky = nn.LeakyReLU(0.2, inplace=True)
            self.add_module(f"bn{level}", Activated(width, leaky) if level else leaky)
            inputs = width
        self.head = nn.Conv2d(inputs, 1, 4, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for level in range(self.levels):
            x = getattr(self, f"bn{level}")(getattr(self, f"down{level}")(x))
        return self.head(x)[:, 0, 0, 0]


class DilatedNet(nn.Module):
    def __init__(self, width: int, depth: int):
        super().__init__()
        self.depth = depth
        self.first = nn.Conv1d(1, width, 3, padding=1)
        for number in range(depth):
            dilation = 2**number
            self.add_module(f"dilated{number}", nn.Conv1d(width, width, 3, 1, dilation, dilation))
            self.add_module(f"mixed{number}", nn.Conv1d(width, width, 1))
        self.head = nn.Conv1d(width, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        for number in range(self.depth):
            y = torch.relu(getattr(self, f"dilated{number}")(x))
            x = x + getattr(self, f"mixed{number}")(y)
        return self.head(torch.relu(x))


class VolumeNet(nn.Module):
    def __init__(self, widths: tuple[int, ...], classes: int):
        super().__init__()
        self.levels, inputs = len(widths), 3
        for level, width in enumerate(widths):
            self.add_module(f"conv{level}", nn.Conv3d(inputs, width, 3, 1, 1, bias=False))
            self.add_module(f"bn{level}", nn.BatchNorm3d(width, EPSILON, MOMENTUM))
            inputs = width
        self.head = nn.Linear(inputs, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for level in range(self.levels):
            x = torch.relu_(getattr(self, f"bn{level}")(getattr(self, f"conv{level}")(x)))
            x = nn.functional.max_pool3d(x, (2, 2, 2) if level else (1, 2, 2))
        return self.head(x.mean((2, 3, 4)))


class ExampleNet(nn.Module):
    def __init__(self, side: int, inputs: int, widths: tuple[int, ...], classes: int):
        super().__init__()
        self.levels = len(widths)
        for level, width in enumerate(widths):
            self.add_module(f"conv{level}", convolution(inputs, width, 3, bias=True))
            inputs = width
        self.head = nn.Linear((side >> self.levels) ** 2 * inputs, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for level in range(self.levels):
            x = nn.functional.max_pool2d(torch.relu_(getattr(self, f"conv{level}")(x)), 2)
        # The linear layer's rows are in the order height, width, channel, as in Flax.
        return self.head(x.permute(0, 2, 3, 1).flatten(1))
