"""The nets: which models, of which sizes, on which batch, with which loss."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Model:
    """A class of flax_*.py and torch_*.py by name.

    Attributes:
      name: the class, the same in both.
      sizes: arguments of both.
      torch_sizes: what PyTorch's class has to know besides, since its layers do not read it off their input.
    """

    name: str
    sizes: dict[str, Any]
    torch_sizes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Net:
    """A training step.

    Attributes:
      name: as ``--only`` takes it.
      what: for the table.
      models: by the part that they play; all steps but ``adversarial`` have one, called "model".
      x: the input's shape, channels last.
      loss: "classify" (cross-entropy of a whole input), "segment" (of each pixel), "regress" (mean square),
        or "adversarial" (generator and discriminator in turn).
      hidden: only for tests; ``--only`` takes it, but it is not in a run of all nets.
    """

    name: str
    what: str
    models: dict[str, Model]
    x: tuple[int, ...]
    loss: str
    hidden: bool = False


LEARNING_RATE, MOMENTUM = 1e-3, 0.9
NOISE = 100  # channels of a generator's input

_MOBILENET_V2 = (
    (1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 32, 3, 2, 3), (6, 64, 4, 2, 3), (6, 96, 3, 1, 3),
    (6, 160, 3, 2, 3), (6, 320, 1, 1, 3),
)  # fmt: skip
_EFFICIENTNET_B0 = (
    (1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3), (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5), (6, 320, 1, 1, 3),
)  # fmt: skip


def _one(name: str, what: str, model: Model, x: tuple[int, ...], loss: str, hidden: bool = False) -> Net:
    return Net(name, what, {"model": model}, x, loss, hidden)


def _resnet(blocks: tuple[int, ...], width: int, classes: int, bottlenecks: bool) -> Model:
    return Model("ResNet", {"blocks": blocks, "width": width, "classes": classes, "bottlenecks": bottlenecks})


def _mobilenet(
    stem: int, stages: tuple[tuple[int, ...], ...], last: int, classes: int, activation: str, squeezes: bool
) -> Model:
    sizes = {"stem": stem, "stages": stages, "last": last, "classes": classes}
    return Model("MobileNet", {**sizes, "activation": activation, "squeezes": squeezes})


def _gan(name: str, what: str, widths: tuple[int, ...], batch: int, hidden: bool = False) -> Net:
    models = {
        "generator": Model("Generator", {"widths": widths[::-1]}, {"noise": NOISE}),
        "discriminator": Model("Discriminator", {"widths": widths}),
    }
    side = 4 << len(widths)
    return Net(name, what, models, (batch, side, side, 3), "adversarial", hidden)


_ALL = (
    _one(
        "resnet18", "ResNet-18, 16 images of 32x32",
        _resnet((2, 2, 2, 2), 64, 10, False), (16, 32, 32, 3), "classify",
    ),
    _one(
        "resnet50", "ResNet-50, 4 images of 96x96",
        _resnet((3, 4, 6, 3), 64, 1000, True), (4, 96, 96, 3), "classify",
    ),
    _one(
        "mobilenetv2", "MobileNetV2, 8 images of 96x96",
        _mobilenet(32, _MOBILENET_V2, 1280, 1000, "relu6", False), (8, 96, 96, 3), "classify",
    ),
    _one(
        "convnext", "ConvNeXt-femto, 4 images of 128x128",
        Model("ConvNeXt", {"depths": (2, 2, 6, 2), "widths": (48, 96, 192, 384), "classes": 1000}),
        (4, 128, 128, 3), "classify",
    ),
    _one(
        "efficientnet", "EfficientNet-B0, 4 images of 128x128",
        _mobilenet(32, _EFFICIENTNET_B0, 1280, 1000, "silu", True), (4, 128, 128, 3), "classify",
    ),
    _one(
        "unet", "U-Net, 2 images of 128x128",
        Model("UNet", {"widths": (32, 64, 128, 256, 512), "classes": 4}), (2, 128, 128, 3), "segment",
    ),
    _gan("dcgan", "DCGAN, 16 images of 64x64", (64, 128, 256, 512), 16),
    _one(
        "dilated", "dilated 1-D net, 8 signals of 4096",
        Model("DilatedNet", {"width": 64, "depth": 8}), (8, 4096, 1), "regress",
    ),
    _one(
        "volumes", "3-D net, 2 videos of 16x64x64",
        Model("VolumeNet", {"widths": (16, 32, 64, 128), "classes": 10}), (2, 16, 64, 64, 3), "classify",
    ),
    _one(
        "example", "the example's CNN, 64 images of 28x28",
        Model("ExampleNet", {"widths": (16, 32), "classes": 10}, {"side": 28, "inputs": 1}),
        (64, 28, 28, 1), "classify",
    ),
    # Small ones of the same models, for tests.
    _one("tiny.resnet", "", _resnet((1, 1), 4, 3, True), (2, 16, 16, 3), "classify", True),
    _one(
        "tiny.efficientnet", "",
        _mobilenet(4, ((1, 4, 1, 1, 3), (2, 8, 2, 2, 5)), 8, 3, "silu", True),
        (2, 16, 16, 3), "classify", True,
    ),
    _one(
        "tiny.convnext", "",
        Model("ConvNeXt", {"depths": (1, 1), "widths": (4, 8), "classes": 3}),
        (2, 16, 16, 3), "classify", True,
    ),
    _one("tiny.unet", "", Model("UNet", {"widths": (4, 8), "classes": 2}), (2, 8, 8, 3), "segment", True),
    _gan("tiny.dcgan", "", (4, 8), 2, True),
    _one("tiny.dilated", "", Model("DilatedNet", {"width": 4, "depth": 2}), (2, 32, 1), "regress", True),
    _one(
        "tiny.volumes", "", Model("VolumeNet", {"widths": (4, 8), "classes": 3}),
        (2, 4, 8, 8, 3), "classify", True,
    ),
)  # fmt: skip
NETS = {net.name: net for net in _ALL}


def batch_of(net: Net) -> dict[str, np.ndarray]:
    """The arrays of a step: random numbers, of which a net can learn nothing, but the work is the same."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal(net.x, dtype=np.float32)
    if net.loss == "adversarial":
        return {"x": np.tanh(x), "noise": rng.standard_normal((net.x[0], 1, 1, NOISE), dtype=np.float32)}
    if net.loss == "regress":
        return {"x": x, "target": rng.standard_normal(net.x, dtype=np.float32)}
    (model,) = net.models.values()
    shape = net.x[:-1] if net.loss == "segment" else net.x[:1]
    return {"x": x, "target": rng.integers(0, model.sizes["classes"], shape, dtype=np.int32)}
