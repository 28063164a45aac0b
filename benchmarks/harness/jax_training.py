"""The example's jitted training step on our layers and on jax.lax, from the same parameters and images."""

from __future__ import annotations

import sys
from pathlib import Path

import jax
import numpy as np
import optax

from harness.timing import measure

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
import train_cnn

BATCH, SIDE = 64, 28
LEARNING_RATE = 1e-3
STEPS_COMPARED = 5
_NAMES = {"ours": "handwritten", "lax": "lax"}


def run(file: str, libraries: list[str], budget: float) -> dict[str, dict]:
    """Times of a step and the losses of the first steps, by library.

    Writes parameters, images and labels into ``file``, so the next library starts from the same ones.
    """
    rng = np.random.default_rng(0)
    images = rng.random((BATCH, SIDE, SIDE, 1), dtype=np.float32)
    labels = rng.integers(0, train_cnn.CLASSES, BATCH)
    initial = {
        name: np.asarray(value)
        for name, value in train_cnn.init_params(jax.random.key(0), (SIDE, SIDE, 1)).items()
    }
    np.savez(file, images=images, labels=labels, learning_rate=LEARNING_RATE, steps=STEPS_COMPARED, **initial)
    optimizer = optax.adam(LEARNING_RATE)
    images, labels = jax.device_put((images, labels))
    calls, losses = {}, {}
    for library in libraries:
        step = train_cnn.make_train_step(train_cnn.LAYERS[_NAMES[library]], optimizer)
        params = jax.device_put(initial)
        state = optimizer.init(params)
        losses[library] = []
        for _ in range(STEPS_COMPARED):
            params, state, loss, _ = step(params, state, images, labels)
            losses[library].append(float(loss))
        calls[library] = lambda step=step, params=params, state=state: jax.block_until_ready(
            step(params, state, images, labels)
        )
    seconds = measure(calls, budget)
    return {library: {"seconds": seconds[library], "losses": losses[library]} for library in libraries}
