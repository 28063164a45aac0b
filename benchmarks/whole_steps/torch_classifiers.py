"""The image classifiers of flax_classifiers.py in PyTorch, with the same names of modules and parameters."""

from __future__ import annotations

import torch
from torch import nn

EPSILON, MOMENTUM = 1e-5, 0.1


def convolution(
    inputs: int, features: int, taps: int, stride: int = 1, groups: int = 1, bias: bool = False
) -> nn.Conv2d:
    """A convolution whose padding keeps the size."""
    return nn.Conv2d(inputs, features, taps, stride, (taps - 1) // 2, groups=groups, bias=bias)


class Activated(nn.BatchNorm2d):
    """Batch norm and an activation after it."""

    def __init__(self, features: int, activation: nn.Module | None = None):
        super().__init__(features, EPSILON, MOMENTUM)
        self.activation = activation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = super().forward(x)
        return x if self.activation is None else self.activation(x)


def relu() -> nn.Module:
    return nn.ReLU(inplace=True)


class BasicBlock(nn.Module):
    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int):
        super().__init__()
        self.conv1, self.bn1 = convolution(inputs, width, 3, stride), Activated(width, relu())
        self.conv2, self.bn2 = convolution(width, width, 3), Activated(width)
        self.shortcut = inputs != width or stride > 1
        if self.shortcut:
            self.conv0, self.bn0 = convolution(inputs, width, 1, stride), Activated(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv2(self.bn1(self.conv1(x))))
        return torch.relu_(y + (self.bn0(self.conv0(x)) if self.shortcut else x))


class Bottleneck(nn.Module):
    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int):
        super().__init__()
        self.conv1, self.bn1 = convolution(inputs, width, 1), Activated(width, relu())
        self.conv2, self.bn2 = convolution(width, width, 3, stride), Activated(width, relu())
        self.conv3, self.bn3 = convolution(width, 4 * width, 1), Activated(4 * width)
        self.shortcut = inputs != 4 * width or stride > 1
        if self.shortcut:
            self.conv0, self.bn0 = convolution(inputs, 4 * width, 1, stride), Activated(4 * width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn3(self.conv3(self.bn2(self.conv2(self.bn1(self.conv1(x))))))
        return torch.relu_(y + (self.bn0(self.conv0(x)) if self.shortcut else x))


class ResNet(nn.Module):
    def __init__(self, blocks: tuple[int, ...], width: int, classes: int, bottlenecks: bool):
        super().__init__()
        self.conv = convolution(3, width, 7, 2) if bottlenecks else convolution(3, width, 3)
        self.bn = Activated(width, relu())
        self.pool = nn.MaxPool2d(3, 2, 1) if bottlenecks else nn.Identity()
        self.names, inputs = [], width
        block = Bottleneck if bottlenecks else BasicBlock
        for stage, count in enumerate(blocks):
            for number in range(count):
                stride = 2 if stage and not number else 1
                self.names.append(f"block{stage}_{number}")
                self.add_module(self.names[-1], block(inputs, width << stage, stride))
                inputs = block.expansion * (width << stage)
        self.head = nn.Linear(inputs, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool(self.bn(self.conv(x)))
        for name in self.names:
            x = getattr(self, name)(x)
        return self.head(x.mean((2, 3)))


_ACTIVATIONS = {"relu6": nn.ReLU6, "silu": nn.SiLU}


class InvertedResidual(nn.Module):
    def __init__(
        self,
        inputs: int,
        features: int,
        expansion: int,
        taps: int,
        stride: int,
        activation: str,
        squeeze: int,
    ):
        super().__init__()
        wide = inputs * expansion

        def activated() -> nn.Module:
            return Activated(wide, _ACTIVATIONS[activation](inplace=True))

        self.expands, self.squeezes = expansion > 1, squeeze > 0
        self.residual = inputs == features and stride == 1
        if self.expands:
            self.expand, self.bn1 = convolution(inputs, wide, 1), activated()
        self.depthwise, self.bn2 = convolution(wide, wide, taps, stride, wide), activated()
        if self.squeezes:
            self.squeeze = convolution(wide, squeeze, 1, bias=True)
            self.excite = convolution(squeeze, wide, 1, bias=True)
        self.project, self.bn3 = convolution(wide, features, 1), Activated(features)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn1(self.expand(x)) if self.expands else x
        y = self.bn2(self.depthwise(y))
        if self.squeezes:
            gate = nn.functional.silu(self.squeeze(y.mean((2, 3), keepdim=True)))
            y = y * torch.sigmoid(self.excite(gate))
        y = self.bn3(self.project(y))
        return x + y if self.residual else y


class MobileNet(nn.Module):
    def __init__(
        self, stem: int, stages: tuple[tuple[int, int, int, int, int], ...], last: int, classes: int,
        activation: str, squeezes: bool = False,
    ):  # fmt: skip
        super().__init__()
        made = _ACTIVATIONS[activation]
        self.stem, self.bn0 = convolution(3, stem, 3, 2), Activated(stem, made(inplace=True))
        self.names, inputs = [], stem
        for stage, (expansion, features, count, stride, taps) in enumerate(stages):
            for number in range(count):
                squeeze = max(1, inputs // 4) if squeezes else 0
                self.names.append(f"block{stage}_{number}")
                self.add_module(
                    self.names[-1],
                    InvertedResidual(
                        inputs, features, expansion, taps, 1 if number else stride, activation, squeeze
                    ),
                )
                inputs = features
        self.last, self.bn = convolution(inputs, last, 1), Activated(last, made(inplace=True))
        self.head = nn.Linear(last, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.bn0(self.stem(x))
        for name in self.names:
            x = getattr(self, name)(x)
        return self.head(self.bn(self.last(x)).mean((2, 3)))


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of [N, channels, height, width]."""

    def __init__(self, channels: int):
        super().__init__(channels, eps=1e-6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvNeXtBlock(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.depthwise = convolution(channels, channels, 7, groups=channels, bias=True)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.expand, self.project = nn.Linear(channels, 4 * channels), nn.Linear(4 * channels, channels)
        self.gamma = nn.Parameter(torch.empty(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.project(nn.functional.gelu(self.expand(y)))
        return x + (self.gamma * y).permute(0, 3, 1, 2)


class ConvNeXt(nn.Module):
    def __init__(self, depths: tuple[int, ...], widths: tuple[int, ...], classes: int):
        super().__init__()
        self.names, inputs = [], 3
        for stage, (depth, width) in enumerate(zip(depths, widths, strict=True)):
            taps = 2 if stage else 4
            down, norm = nn.Conv2d(inputs, width, taps, taps), ChannelNorm(inputs if stage else width)
            for name, module in ((f"norm{stage}", norm), (f"down{stage}", down))[:: 1 if stage else -1]:
                self.names.append(name)
                self.add_module(name, module)
            for number in range(depth):
                self.names.append(f"block{stage}_{number}")
                self.add_module(self.names[-1], ConvNeXtBlock(width))
            inputs = width
        self.norm = nn.LayerNorm(inputs, eps=1e-6)
        self.head = nn.Linear(inputs, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for name in self.names:
            x = getattr(self, name)(x)
        return self.head(self.norm(x.mean((2, 3))))
