"""A net's training step in Flax and optax: its state, the jitted step, and what the first step computed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from flax import traverse_util

from whole_steps import flax_classifiers, flax_others
from whole_steps.layers import Layers
from whole_steps.registry import LEARNING_RATE, MOMENTUM, NOISE, Model, Net

State = dict[str, dict[str, Any]]  # by model: "params", "batch_stats" and the optimizer's state "opt"
Step = Callable[[State, dict[str, jax.Array]], tuple[State, dict[str, jax.Array]]]

_optimizer = optax.sgd(LEARNING_RATE, MOMENTUM)


def made(model: Model, layers: Layers) -> nn.Module:
    """The Flax module."""
    module = flax_classifiers if hasattr(flax_classifiers, model.name) else flax_others
    return getattr(module, model.name)(layers, **model.sizes)


def initial(net: Net) -> dict[str, np.ndarray]:
    """Random parameters and the running statistics, by path; they do not depend on the layers."""
    variables = {}
    for number, (name, model) in enumerate(net.models.items()):
        shape = (net.x[0], 1, 1, NOISE) if name == "generator" else net.x
        module = made(model, Layers())
        variables[name] = jax.jit(module.init)(jax.random.key(number), jnp.zeros(shape, jnp.float32))
    return jax.device_get(traverse_util.flatten_dict(variables, sep="/"))


def state_of(start: dict[str, np.ndarray]) -> State:
    """The state before the first step, on the device; the step takes its buffers over."""
    state = jax.tree.map(jnp.array, traverse_util.unflatten_dict(start, sep="/"))
    return {
        name: {"batch_stats": {}, **variables, "opt": _optimizer.init(variables["params"])}
        for name, variables in state.items()
    }


def found(state: State, losses: dict[str, jax.Array]) -> dict[str, np.ndarray]:
    """After the first step: losses, gradients (all that momentum has summed so far), running means."""
    result: dict[str, Any] = dict(losses)
    for name, part in state.items():
        result[name] = {"params": part["opt"][0].trace, "batch_stats": part["batch_stats"]}
    flat = jax.device_get(traverse_util.flatten_dict(result, sep="/"))
    # PyTorch's running variance is that of a sample, so a batch's moves it by more.
    return {path: array for path, array in flat.items() if not path.endswith("/var")}


def step_of(net: Net, layers: Layers) -> Step:
    """The step, to be jitted. Its first argument can be donated."""
    models = {name: made(model, layers) for name, model in net.models.items()}
    if net.loss == "adversarial":
        return _adversarial(models["generator"], models["discriminator"])
    return _supervised(models["model"], _mean_square if net.loss == "regress" else _cross_entropy)


def _cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def _mean_square(y: jax.Array, target: jax.Array) -> jax.Array:
    return jnp.mean(jnp.square(y - target))


def _apply(module: nn.Module, params: Any, batch_stats: Any, x: jax.Array) -> tuple[jax.Array, Any]:
    y, updates = module.apply({"params": params, "batch_stats": batch_stats}, x, mutable=["batch_stats"])
    return y, updates.get("batch_stats", batch_stats)


def _updated(part: dict[str, Any], grads: Any, batch_stats: Any) -> dict[str, Any]:
    updates, opt = _optimizer.update(grads, part["opt"], part["params"])
    return {"params": optax.apply_updates(part["params"], updates), "batch_stats": batch_stats, "opt": opt}


def _supervised(module: nn.Module, loss: Callable[..., jax.Array]) -> Step:
    def step(state: State, batch: dict[str, jax.Array]) -> tuple[State, dict[str, jax.Array]]:
        part = state["model"]

        def of_params(params: Any) -> tuple[jax.Array, Any]:
            y, batch_stats = _apply(module, params, part["batch_stats"], batch["x"])
            return loss(y, batch["target"]), batch_stats

        (value, batch_stats), grads = jax.value_and_grad(of_params, has_aux=True)(part["params"])
        return {"model": _updated(part, grads, batch_stats)}, {"loss": value}

    return step


def _adversarial(generator: nn.Module, discriminator: nn.Module) -> Step:
    """The discriminator learns from real and generated pictures, then the generator from the updated one."""

    def cost(logits: jax.Array, real: bool) -> jax.Array:
        return jnp.mean(jax.nn.softplus(-logits if real else logits))

    def step(state: State, batch: dict[str, jax.Array]) -> tuple[State, dict[str, jax.Array]]:
        g, d = state["generator"], state["discriminator"]
        pictures, pull_back, g_stats = jax.vjp(
            lambda params: _apply(generator, params, g["batch_stats"], batch["noise"]),
            g["params"],
            has_aux=True,
        )

        def of_discriminator(params: Any) -> tuple[jax.Array, Any]:
            real, stats = _apply(discriminator, params, d["batch_stats"], batch["x"])
            false, stats = _apply(discriminator, params, stats, pictures)
            return cost(real, True) + cost(false, False), stats

        (d_loss, d_stats), grads = jax.value_and_grad(of_discriminator, has_aux=True)(d["params"])
        d = _updated(d, grads, d_stats)

        def of_pictures(pictures: jax.Array) -> tuple[jax.Array, Any]:
            logits, stats = _apply(discriminator, d["params"], d["batch_stats"], pictures)
            return cost(logits, True), stats

        (g_loss, d_stats), dy = jax.value_and_grad(of_pictures, has_aux=True)(pictures)
        (grads,) = pull_back(dy)
        d = {**d, "batch_stats": d_stats}
        return {"generator": _updated(g, grads, g_stats), "discriminator": d}, {
            "generator_loss": g_loss,
            "discriminator_loss": d_loss,
        }

    return step
