"""``gradient_flow``: how large the gradient of a loss is in each layer, and how far it moves the weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax
from jax.typing import ArrayLike

from jax_convgrad.instruments.arguments import loss_of, with_batch
from jax_convgrad.instruments.flow_numbers import ParameterFlow
from jax_convgrad.instruments.flow_program import Inputs, Sums, arguments, inputs_of, program, sums
from jax_convgrad.instruments.flow_report import FlowReport
from jax_convgrad.instruments.forward_order import CONSTANT, Origin, forward_order


class Optimizer(Protocol):
    """The methods of an ``optax.GradientTransformation`` that are needed."""

    init: Callable[..., Any]
    """params -> state."""
    update: Callable[..., Any]
    """(gradients, state, params) -> (updates, state)."""


def gradient_flow(
    loss_fn: Callable[..., Any],
    params: Any,
    *args: Any,
    learning_rate: ArrayLike | None = None,
    optimizer: Optimizer | None = None,
    opt_state: Any = None,
    has_aux: bool = False,
    **kwargs: Any,
) -> FlowReport:
    """Measures how large the gradient of a loss is in each layer, and how far a step moves the weights.

    ```python
    import jax
    import jax.numpy as jnp
    from jax_convgrad import conv, gradient_flow


    def loss_fn(params, images):
        y = conv(images, params["conv1"]["w"], activation="relu")
        return conv(y, params["conv2"]["w"]).var()


    w = jax.random.normal(jax.random.key(0), (3, 3, 4, 4))
    params = {"conv1": {"w": w}, "conv2": {"w": w}}
    report = gradient_flow(loss_fn, params, jnp.ones((1, 8, 8, 4)), learning_rate=0.1)
    print(report)
    assert [layer.name for layer in report.layers] == ["conv1", "conv2"]
    ```

    ``report.plot("flow.png")`` draws it.

    A layer is a group of arrays in ``params`` whose keys differ only in the last one, as "conv1/w" and
    "conv1/b" do; an array at the top of ``params`` is a layer by itself. Layers are in the order in which the
    forward pass brings them together with the arrays of the other arguments, whatever they are called. Those
    that never meet these come last, in the pytree's order.

    Parameters are the floating-point and complex arrays in ``params``. Everything else in it, Python's own
    numbers included, is passed to ``loss_fn`` unchanged. One compiled call computes the gradients and
    measures them on the device, in float32, or in float64 for float64, without overflow. It is compiled again
    each time, because ``loss_fn`` may read what changes outside of it. To look often, for instance during
    training, pass a function that ``jax.jit`` made: it is compiled once for the same function, optimizer and
    shapes.

    Args:
      loss_fn: (params, *args, **kwargs) -> a real scalar, or with ``has_aux`` (scalar, anything).
      params: pytree, of any library: dicts, ``flax.nnx.State``, Equinox modules.
      *args: whatever else ``loss_fn`` takes: a batch, or x and y, a key, a function. What is no array is
        passed on unchanged.
      learning_rate: the rate of gradient descent, whose step is -learning_rate·g; 1 without an ``optimizer``.
      optimizer: takes the step instead: an ``optax.GradientTransformation``, or any object with its ``init``
        and ``update``. In the trees that it gets, None stands for everything that is no parameter.
      opt_state: the optimizer's state at this point of the training; None for a fresh one. (The first step of
        a fresh Adam moves every weight by the learning rate, however small its gradient is.)
      has_aux: whether ``loss_fn`` returns a second result besides the loss, which is dropped.
      **kwargs: as args.

    Returns:
      The numbers, which print as a table.

    Raises:
      TypeError: an argument has the wrong type, or the loss is not a real floating-point number.
      ValueError: the loss is not a scalar, ``params`` holds no parameter, or arguments do not go together.
    """
    if not callable(loss_fn):
        raise TypeError(f"loss_fn must be a function (params, ...) -> loss, not {loss_fn!r}")
    rate = _learning_rate(learning_rate, optimizer, opt_state)
    args = with_batch(loss_fn, args, kwargs)
    inputs = inputs_of(params, (args, kwargs), opt_state)
    named = jax.tree.leaves_with_path(inputs.parameters)
    if not named:
        raise ValueError(
            "params holds no floating-point or complex array, so there is nothing to differentiate by"
        )

    order = _order(loss_fn, has_aux, inputs)
    run = program(loss_fn, optimizer, has_aux, inputs.statics)
    loss, *arrays = run(inputs.parameters, inputs.arrays)
    arrays.append([leaf for _, leaf in named])
    # Asked for all at once, so that they come in one transfer when the device is done.
    loss, *measured = jax.device_get((loss, *([*map(sums, of)] for of in arrays)))
    gradients, updates, weights = measured

    rows = []
    for at in order:
        path, parameter = named[at]
        step_norm = updates[at].norm() if updates else rate * gradients[at].norm()
        rows.append(_row(_names(path), parameter, gradients[at], weights[at].norm(), step_norm))
    layers = {row.layer: None for row in rows}  # in the order of their first parameters
    step = f"gradient descent with learning rate {rate:.6g}"
    if optimizer is not None:
        step = "the optimizer with the state given" if opt_state is not None else "the optimizer, newly begun"
    return FlowReport(float(loss), tuple(row for layer in layers for row in rows if row.layer == layer), step)


def _learning_rate(learning_rate: Any, optimizer: Any, opt_state: Any) -> float:
    """The number to take; checks these three arguments."""
    if optimizer is not None:
        if learning_rate is not None:
            raise ValueError("learning_rate and optimizer are both given, but an optimizer has its own")
        if not all(callable(getattr(optimizer, name, None)) for name in ("init", "update")):
            raise TypeError(
                "optimizer must have the methods init and update, as an optax.GradientTransformation has, "
                f"but is {optimizer!r}"
            )
    elif opt_state is not None:
        raise ValueError("opt_state is given without the optimizer that it belongs to")
    if learning_rate is None:
        return 1.0
    if callable(learning_rate):
        raise TypeError("learning_rate must be a number; if it is a schedule, pass its value at this step")
    try:
        rate = float(learning_rate)
    except (TypeError, ValueError):
        raise TypeError(f"learning_rate must be a number, not {learning_rate!r}") from None
    if not 0 <= rate < math.inf:
        raise ValueError(f"learning_rate must be finite and not negative, but is {rate}")
    return rate


def _order(loss_fn: Callable[..., Any], has_aux: bool, inputs: Inputs) -> Sequence[int]:
    """The parameters' numbers in the order of the forward pass, which is traced, and its result checked."""

    def forward(parameters: Any, arrays: Any) -> jax.Array:
        params, (args, kwargs), _ = arguments(parameters, arrays, inputs.statics)
        loss = loss_of(loss_fn(params, *args, **kwargs), has_aux, "loss_fn")
        if loss.ndim:
            raise ValueError(f"loss_fn must return a scalar, but returned an array of shape {loss.shape}")
        return loss

    traced = jax.make_jaxpr(forward)(inputs.parameters, inputs.arrays)
    count = len(jax.tree.leaves(inputs.parameters))
    of_params, of_batch, of_state = (len(jax.tree.leaves(part)) for part in inputs.arrays)
    origins: list[Origin] = [frozenset({number}) for number in range(count)]
    origins += [CONSTANT] * of_params + [None] * of_batch + [CONSTANT] * of_state
    met = forward_order(traced.jaxpr, origins)
    return [*met, *sorted(set(range(count)) - set(met))]


def _names(path: tuple[Any, ...]) -> tuple[str, str]:
    """A parameter's name, and its layer's, from its keys."""
    if len(path) > 1 and path[-1] == jax.tree_util.GetAttrKey("value"):
        path = path[:-1]  # the box that Flax keeps an array in

    def text(keys: tuple[Any, ...]) -> str:
        return jax.tree_util.keystr(keys, simple=True, separator="/")

    name = text(path) or "params"  # which is then one array
    return name, text(path[:-1]) or name


def _row(
    names: tuple[str, str], parameter: Any, gradient: Sums, weight_norm: float, update_norm: float
) -> ParameterFlow:
    return ParameterFlow(
        name=names[0],
        size=parameter.size,
        gradient_norm=gradient.norm(),
        gradient_mean=gradient.mean(parameter.size),
        gradient_max=float(gradient.largest),
        zeros=int(gradient.zeros),
        nonfinite=int(gradient.nonfinite),
        weight_norm=weight_norm,
        update_norm=update_norm,
        layer=names[1],
        shape=parameter.shape,
        dtype=str(parameter.dtype),
    )
