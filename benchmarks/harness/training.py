"""The example's jitted training step on our layers and on jax.lax, from the same parameters and images."""

from __future__ import annotations

import sys
from pathlib import Path

import jax
import numpy as np
import optax
from timing import measure
from verification import VerificationError

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
import train_cnn

BATCH, SIDE = 64, 28
LEARNING_RATE = 1e-3
STEPS_COMPARED = 5
_NAMES = {"ours": "handwritten", "lax": "lax"}


def start() -> dict[str, np.ndarray]:
    """Parameters, images and labels, for every library the same."""
    rng = np.random.default_rng(0)
    params = train_cnn.init_params(jax.random.key(0), (SIDE, SIDE, 1))
    return {
        **{name: np.asarray(value) for name, value in params.items()},
        "images": rng.random((BATCH, SIDE, SIDE, 1), dtype=np.float32),
        "labels": rng.integers(0, train_cnn.CLASSES, BATCH),
    }


def run(libraries: list[str], budget: float) -> dict[str, dict]:
    """Times of a step, and the losses of the first ones, by library."""
    arrays = start()
    optimizer = optax.adam(LEARNING_RATE)
    images, labels = jax.device_put((arrays.pop("images"), arrays.pop("labels")))
    calls, losses = {}, {}
    for library in libraries:
        step = train_cnn.make_train_step(train_cnn.LAYERS[_NAMES[library]], optimizer)
        params = jax.device_put(arrays)
        state = optimizer.init(params)
        losses[library] = []
        for _ in range(STEPS_COMPARED):
            params, state, loss, _ = step(params, state, images, labels)
            losses[library].append(float(loss))
        calls[library] = lambda step=step, params=params, state=state: jax.block_until_ready(
            step(params, state, images, labels)
        )
    for library in libraries[1:]:
        same_losses(losses[libraries[0]], losses[library], f"{libraries[0]} and {library}")
    seconds = measure(calls, budget)
    return {library: {"seconds": seconds[library], "losses": losses[library]} for library in libraries}


def same_losses(one: list[float], other: list[float], who: str) -> None:
    """Raises VerificationError where training goes different ways.

    The first losses agree to float32's rounding, later ones less: Adam divides by the gradient's size.
    """
    if not np.allclose(one, other, rtol=1e-4, atol=0):
        raise VerificationError(f"the training steps of {who} have other losses: {one} and {other}")
