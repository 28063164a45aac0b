"""A net's training step in PyTorch, from the parameters of the Flax model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from whole_steps import torch_classifiers, torch_others
from whole_steps.registry import LEARNING_RATE, MOMENTUM, Model, Net

Batch = dict[str, torch.Tensor]


class Shared(NamedTuple):
    """A parameter or a running mean of both libraries.

    Attributes:
      path: in the Flax model's variables, such as "params/conv1/kernel".
      tensor: PyTorch's.
      to_torch, to_flax: exchange the axes' orders.
    """

    path: str
    tensor: torch.Tensor
    to_torch: Callable[[np.ndarray], np.ndarray]
    to_flax: Callable[[np.ndarray], np.ndarray]


def _same(array: np.ndarray) -> np.ndarray:
    return array


def _flipped(array: np.ndarray) -> np.ndarray:
    """A transposed convolution's filter: flax correlates with it, PyTorch convolves."""
    return np.flip(array, tuple(range(2, array.ndim)))


_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NORMS = (nn.BatchNorm2d, nn.BatchNorm3d, nn.LayerNorm)


def shared(model: nn.Module) -> Iterator[Shared]:
    """All that the two models have in common; every parameter is among it."""
    for name, module in model.named_modules():
        path = name.replace(".", "/")
        for parameter, tensor in module.named_parameters(recurse=False):
            if parameter != "weight":
                yield Shared(f"params/{path}/{parameter}", tensor, _same, _same)
            elif isinstance(module, _TRANSPOSED):
                yield Shared(
                    f"params/{path}/kernel",
                    tensor,
                    lambda array: _flipped(np.moveaxis(array, (-2, -1), (0, 1))),
                    lambda array: np.moveaxis(_flipped(array), (0, 1), (-2, -1)),
                )
            elif isinstance(module, _CONVOLUTIONS):
                yield Shared(
                    f"params/{path}/kernel",
                    tensor,
                    lambda array: np.moveaxis(array, (-1, -2), (0, 1)),
                    lambda array: np.moveaxis(array, (0, 1), (-1, -2)),
                )
            elif isinstance(module, nn.Linear):
                yield Shared(f"params/{path}/kernel", tensor, np.transpose, np.transpose)
            else:
                assert isinstance(module, _NORMS)
                yield Shared(f"params/{path}/scale", tensor, _same, _same)
        if isinstance(module, (nn.BatchNorm2d, nn.BatchNorm3d)):
            yield Shared(f"batch_stats/{path}/mean", module.running_mean, _same, _same)


class Training:
    """The models with their optimizers; ``step()`` makes a step and returns the losses."""

    def __init__(
        self, net: Net, start: dict[str, np.ndarray], batch: dict[str, np.ndarray],
        memory: torch.memory_format | None, compiled: bool,
    ):  # fmt: skip
        self.net = net
        self.models = {name: _made(model) for name, model in net.models.items()}
        self._load(start)
        if memory is not None:
            for model in self.models.values():
                model.to(memory_format=memory)
        # One fused kernel for all parameters, the fastest of PyTorch's three.
        self.optimizers = {
            name: torch.optim.SGD(model.parameters(), LEARNING_RATE, MOMENTUM, fused=True)
            for name, model in self.models.items()
        }
        self.batch = {name: _tensor(array, memory) for name, array in batch.items()}
        if compiled:
            for model in self.models.values():
                model.compile()
        self.step = self._adversarial if net.loss == "adversarial" else self._supervised

    def _load(self, start: dict[str, np.ndarray]) -> None:
        left = {path for path in start if not path.endswith("/var")}  # variances start at 1 in both
        with torch.no_grad():
            for name, model in self.models.items():
                for one in shared(model):
                    array = np.array(one.to_torch(start[f"{name}/{one.path}"]), order="C")
                    if one.tensor.shape != array.shape:
                        raise ValueError(f"{one.path}: {one.tensor.shape} in PyTorch, {array.shape} in Flax")
                    one.tensor.copy_(torch.from_numpy(array))
                    left.remove(f"{name}/{one.path}")
        if left:
            raise ValueError(f"PyTorch's model has no {', '.join(sorted(left))}")

    def found(self, losses: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
        """After the first step, as jax_steps.found."""
        result = {name: loss.numpy() for name, loss in losses.items()}
        for name, model in self.models.items():
            state = self.optimizers[name].state
            for one in shared(model):
                tensor = state[one.tensor]["momentum_buffer"] if one.path.startswith("params") else one.tensor
                result[f"{name}/{one.path}"] = one.to_flax(tensor.detach().contiguous().numpy())
        return result

    def _supervised(self) -> dict[str, torch.Tensor]:
        model, optimizer = self.models["model"], self.optimizers["model"]
        optimizer.zero_grad()
        y, target = model(self.batch["x"]), self.batch["target"]
        functional = nn.functional
        loss = (functional.mse_loss if self.net.loss == "regress" else functional.cross_entropy)(y, target)
        loss.backward()
        optimizer.step()
        return {"loss": loss.detach()}

    def _adversarial(self) -> dict[str, torch.Tensor]:
        g, d = self.models["generator"], self.models["discriminator"]
        softplus = nn.functional.softplus
        pictures = g(self.batch["noise"])
        self.optimizers["discriminator"].zero_grad()
        d_loss = softplus(-d(self.batch["x"])).mean() + softplus(d(pictures.detach())).mean()
        d_loss.backward()
        self.optimizers["discriminator"].step()
        self.optimizers["generator"].zero_grad()
        d.requires_grad_(False)  # or the step would compute gradients that nothing reads
        g_loss = softplus(-d(pictures)).mean()
        g_loss.backward()
        d.requires_grad_(True)
        self.optimizers["generator"].step()
        return {"generator_loss": g_loss.detach(), "discriminator_loss": d_loss.detach()}


def formats(net: Net) -> dict[str, torch.memory_format | None]:
    """PyTorch's memory formats for the net's activations."""
    channels_last = {4: torch.channels_last, 5: torch.channels_last_3d}.get(len(net.x))
    return {"contiguous": None, **({"channels_last": channels_last} if channels_last else {})}


def _made(model: Model) -> nn.Module:
    module = torch_classifiers if hasattr(torch_classifiers, model.name) else torch_others
    return getattr(module, model.name)(**model.sizes, **model.torch_sizes)


def _tensor(array: np.ndarray, memory: torch.memory_format | None) -> torch.Tensor:
    tensor = torch.from_numpy(array)
    if not tensor.is_floating_point():
        return tensor.long()
    tensor = tensor.movedim(-1, 1)
    return tensor.contiguous() if memory is None else tensor.contiguous(memory_format=memory)
