"""The contents of a traced function: convolutions, each kind once with its count, and rules of its own.

The convolutions are also timed, on these kernels and on ``jax.lax``.
"""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend import core

from jax_convgrad.geometry import ConvGeometry, dilated
from jax_convgrad.instruments.layer_text import Layer
from jax_convgrad.instruments.on_lax import on_lax
from jax_convgrad.primitives import contractions
from jax_convgrad.primitives.conv_spec import ConvSpec, Dims
from jax_convgrad.primitives.epilogue import fprop_epilogue_p
from jax_convgrad.primitives.number_types import Precision
from jax_convgrad.replace.jaxpr_rewriting import equations

_FORWARD = {
    contractions.fprop_p: "fprop",
    fprop_epilogue_p: "fprop",
    contractions.dgrad_p: "dgrad",
    contractions.wgrad_p: "wgrad",
}


class Found(NamedTuple):
    """A convolution: which contraction runs it forward, and over what. Equal ones are one layer."""

    contraction: str
    shapes: tuple[tuple[int, ...], tuple[int, ...]]
    dtype: np.dtype
    geometry: ConvGeometry
    dimensions: Dims
    precision: Precision
    bias: bool = False
    relu: bool = False

    @property
    def text(self) -> str:
        """The layer as ``layer_text`` writes it, or its shapes if that has no words for it."""
        layer = _layer(self)
        kind = "dW of " if self.contraction == "wgrad" else ""
        if layer is not None:
            return kind + str(layer)
        return f"{self.contraction} of {list(self.shapes[0])} and {list(self.shapes[1])}"


def found_in(jaxpr: Any) -> tuple[Counter[Found], int]:
    """Counts how often each convolution runs on this package's kernels, and the convolutions of ``lax``."""
    found: Counter[Found] = Counter()
    of_lax = 0
    for equation, times in equations(jaxpr):
        if equation.primitive is lax.conv_general_dilated_p:
            of_lax += times
        if equation.primitive not in _FORWARD:
            continue
        params = equation.params
        a, b, *bias = (var.aval for var in equation.invars)
        found[
            Found(
                _FORWARD[equation.primitive],
                (tuple(a.shape), tuple(b.shape)),
                np.dtype(a.dtype),
                params["spec"].geometry,
                params["spec"].dimensions,
                params["spec"].precision,
                bool(bias),
                params.get("relu", False),
            )
        ] += times
    return found, of_lax


_OF_JAX = Path(jax.__file__).parent


def own_rules(jaxpr: Any) -> list[str]:
    """The functions with a ``custom_vjp`` or ``custom_jvp``, except JAX's own such as ``jax.nn.relu``."""
    names: dict[str, None] = {}
    for equation, _ in equations(jaxpr):
        if not equation.primitive.name.startswith(("custom_vjp", "custom_jvp")):
            continue
        inner = next(v for v in equation.params.values() if isinstance(v, core.ClosedJaxpr))
        written = inner.jaxpr.debug_info
        if not Path(written.func_filename or "").is_relative_to(_OF_JAX):
            names[written.func_name] = None
    return list(names)


def _layer(found: Found) -> Layer | None:
    """None if the text has no words for it: a stride and an input dilation at once, no axis or 4."""
    geometry, dims = found.geometry, found.dimensions
    a, b = found.shapes
    if not 1 <= len(geometry.axes) <= 3:
        return None
    transposed = found.contraction == "dgrad"
    if found.contraction == "wgrad":  # the layer whose filter's gradient it is
        channels, batch, out = a[dims.x[1]], a[dims.x[0]], b[dims.y[1]]
    elif transposed:  # from y's side to x's
        batch, channels, out = a[dims.y[0]], a[dims.y[1]], b[dims.w[1]] * geometry.groups
    else:
        batch, channels, out = a[dims.x[0]], a[dims.x[1]], b[dims.w[0]]
    # Of the convolution that is run over the input's positions.
    run = geometry.transpose() if transposed else geometry
    by_input = any(axis.input_dilation > 1 for axis in run.axes)
    if by_input and any(axis.stride > 1 for axis in run.axes):
        return None
    pads = []
    for axis in run.axes:
        window = dilated(axis.taps, axis.filter_dilation)
        span = dilated(axis.input, axis.input_dilation)
        lo, hi = axis.pad_lo, (axis.output - 1) * axis.stride + window - span - axis.pad_lo
        # The text of a transposed layer has the padding of the convolution that it undoes.
        pads.append((window - 1 - lo, window - 1 - hi) if by_input or transposed else (lo, hi))
    layer = Layer(
        batch,
        tuple(axis.input for axis in run.axes),
        channels,
        tuple(axis.taps for axis in run.axes),
        out,
        tuple(axis.input_dilation if by_input else axis.stride for axis in run.axes),
        tuple(pads),
        tuple(axis.filter_dilation for axis in run.axes),
        geometry.groups,
        by_input or transposed,
    )
    return layer if layer.geometry == run else None


@dataclass(frozen=True)
class Times:
    """Medians in seconds of one op here and on ``lax``."""

    ours: float
    lax: float

    @property
    def ratio(self) -> float:
        """The time that ``lax`` takes, as a multiple of the kernels' time."""
        return self.lax / self.ours


def interleaved(
    ours: Callable[..., Any], theirs: Callable[..., Any], args: Sequence[Any], repeats: int
) -> Times:
    """Compiles both, then times them by turns, so that other work on the machine slows both alike."""
    calls = [jax.jit(ours), jax.jit(theirs)]
    for call in calls:
        jax.block_until_ready(call(*args))
    seconds: tuple[list[float], list[float]] = [], []
    for _ in range(repeats):
        for call, taken in zip(calls, seconds, strict=True):
            start = time.perf_counter()
            jax.block_until_ready(call(*args))
            taken.append(time.perf_counter() - start)
    return Times(*map(statistics.median, seconds))


def timed(found: Found, repeats: int) -> dict[str, Times]:
    """Times of "forward", and of "dX" and "dW": the gradients in the first and in the second operand."""
    rng = np.random.default_rng(0)

    def drawn(shape: Sequence[int]) -> jax.Array:
        return jnp.asarray(rng.standard_normal(shape), found.dtype)

    spec = ConvSpec(found.geometry, found.dimensions, found.precision)
    fprop, dgrad, wgrad = (
        partial(op, spec=spec) for op in (contractions.fprop, contractions.dgrad, contractions.wgrad)
    )
    a, b = map(drawn, found.shapes)
    forward: Callable[..., jax.Array] = {"fprop": fprop, "dgrad": dgrad, "wgrad": wgrad}[found.contraction]
    result = jax.eval_shape(forward, a, b)
    t = drawn(result.shape)
    # The transposes of primitives/contractions.py.
    gradients = {
        "fprop": (lambda a, b, t: dgrad(t, b), lambda a, b, t: wgrad(a, t)),
        "dgrad": (lambda a, b, t: fprop(t, b), lambda a, b, t: wgrad(t, a)),
        "wgrad": (lambda a, b, t: dgrad(b, t), lambda a, b, t: fprop(a, t)),
    }[found.contraction]
    operands = [a, b]
    if found.bias or found.relu:
        operands += [drawn((result.shape[found.dimensions.y[1]],))] if found.bias else []
        forward = partial(fprop_epilogue_p.bind, relu=found.relu, spec=spec)
    times = {"forward": interleaved(forward, on_lax(forward), operands, repeats)}
    for name, gradient in zip(("dX", "dW"), gradients, strict=True):
        times[name] = interleaved(gradient, on_lax(gradient), [a, b, t], repeats)
    return times
