"""The example's network and Adam step in PyTorch, in both memory formats."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional

from harness.timing import measure
from harness.torch_programs import faster


def run(file: str, libraries: list[str], budget: float) -> dict[str, dict]:
    """Times and losses of the faster memory format, starting from the arrays that jax_training.py wrote."""
    arrays = dict(np.load(file))
    formats = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
    with torch.enable_grad():
        steps = {name: _make_step(arrays, memory) for name, memory in formats.items()}
        losses = {name: [float(step()) for _ in range(int(arrays["steps"]))] for name, step in steps.items()}
        seconds = faster(measure(steps, budget))
    return {"torch": {"seconds": seconds, "losses": losses[seconds["layout"]]}}


def _make_step(arrays: dict[str, np.ndarray], memory: torch.memory_format):
    images = torch.from_numpy(arrays["images"]).movedim(-1, 1).contiguous(memory_format=memory)
    labels = torch.from_numpy(arrays["labels"])

    def parameter(array: np.ndarray) -> torch.nn.Parameter:
        tensor = torch.from_numpy(array.copy())
        if tensor.ndim == 4:
            tensor = tensor.movedim((-1, -2), (0, 1)).contiguous(memory_format=memory)
        return torch.nn.Parameter(tensor)

    w1, b1, w2, b2, w3, b3 = (parameter(arrays[name]) for name in ("w1", "b1", "w2", "b2", "w3", "b3"))
    # One fused kernel for all parameters, the fastest of PyTorch's three.
    optimizer = torch.optim.Adam([w1, b1, w2, b2, w3, b3], lr=float(arrays["learning_rate"]), fused=True)

    def step() -> torch.Tensor:
        optimizer.zero_grad()
        x = functional.max_pool2d(functional.relu(functional.conv2d(images, w1, b1, padding=1)), 2)
        x = functional.max_pool2d(functional.relu(functional.conv2d(x, w2, b2, padding=1)), 2)
        # The linear layer's rows are in the order height, width, channel: no copy of channels-last memory.
        logits = x.permute(0, 2, 3, 1).flatten(1) @ w3 + b3
        loss = functional.cross_entropy(logits, labels)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step
