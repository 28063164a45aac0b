"""Every op in every dtype against ``jax.lax`` in float64, and twice for the same bits.

An error is in units of its bound: 64·eps·Σ|a·b|, for a sum of a few hundred products in a type with this eps,
and half a unit in the last place of the type in which the sum is stored.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import jax_convgrad


class _Case(NamedTuple):
    """One call of an op. ``reference`` takes the y that ``ours`` gave, then what ``ours`` takes."""

    op: str
    title: str
    shapes: tuple[tuple[int, ...], ...]
    ours: Callable[..., Any]
    reference: Callable[..., Any]


def _conv(title: str, x: Any, w: Any, stride: Any, pad: Any, dilation: Any, groups: int, relu: bool) -> _Case:
    letters = "DHW"[5 - len(x) :]
    numbers: Any = (f"N{letters}C", f"{letters}IO", f"N{letters}C")
    options: Any = {"stride": stride, "padding": pad, "dilation": dilation, "groups": groups}
    options |= {"activation": "relu" if relu else None, "precision": "highest", "dimension_numbers": numbers}

    def reference(y: Any, x: Any, w: Any, *b: Any) -> Any:
        z = sum(b, lax.conv_general_dilated(x, w, stride, pad, None, dilation, numbers, groups))
        # Where z is next to 0, rounding decides which side relu takes: the gradient follows the given y.
        kept = jnp.where(y > 0, z, 0)
        return kept + lax.stop_gradient(jnp.maximum(z, 0) - kept) if relu else z

    shapes = (x, w, w[-1:])[: 2 + relu]
    return _Case("conv", title, shapes, partial(jax_convgrad.conv, **options), reference)


def _transposed(title: str, x: Any, w: Any) -> _Case:
    options: Any = {"strides": (2, 2), "padding": "SAME", "precision": "highest"}
    ours, reference = (partial(module.conv_transpose, **options) for module in (jax_convgrad, lax))
    return _Case("conv_transpose", title, (x, w), ours, lambda y, *primals: reference(*primals))


def _pool(op: str, start: float, operation: Any, divisor: int) -> _Case:
    window, strides, padding = (3, 2), (2, 2), ((1, 1), (0, 1))
    around = (1, *window, 1), (1, *strides, 1), ((0, 0), *padding, (0, 0))
    pool = getattr(jax_convgrad, op)

    def reference(y: Any, x: Any) -> Any:
        return lax.reduce_window(x, start, operation, *around) / divisor

    return _Case(op, "window 3x2", ((2, 8, 7, 2),), lambda x: pool(x, window, strides, padding), reference)


_ONE, _TWO, _NONE, _BIAS = (1, 1), (2, 2), (0, 0), "conv_bias_grad"
# Odd shapes, such that each kind of kernel serves one.
_CASES = [
    _conv("3x3", (2, 12, 12, 32), (3, 3, 32, 32), _ONE, (_ONE, _ONE), _ONE, 1, True),
    _conv("3x3 alone", (2, 12, 12, 32), (3, 3, 32, 32), _ONE, (_ONE, _ONE), _ONE, 1, False),
    _conv("stride 2x1, uneven padding", (2, 9, 8, 5), (3, 3, 5, 6), (2, 1), ((1, 2), (0, 1)), _ONE, 1, True),
    _conv("dilation 2x1, 3 groups", (2, 10, 9, 6), (3, 2, 2, 9), _ONE, (_TWO, (1, 0)), (2, 1), 3, True),
    _conv("depthwise, stride 2", (2, 9, 11, 16), (3, 3, 1, 16), _TWO, (_ONE, _ONE), _ONE, 16, False),
    _conv("1x1", (3, 5, 7, 16), (1, 1, 16, 24), _ONE, (_NONE, _NONE), _ONE, 1, True),
    _conv("1-D, cropped", (2, 23, 4), (5, 4, 3), (3,), ((-1, 2),), (1,), 1, False),
    _conv("3-D", (1, 4, 5, 6, 3), (2, 3, 2, 3, 4), (1, 2, 1), ((0, 1), _ONE, _NONE), (1, 1, 1), 1, True),
    _Case(_BIAS, "6 channels", ((2, 9, 8, 6),), jax_convgrad.conv_bias_grad, lambda _, dy: dy.sum((0, 1, 2))),
    _transposed("3x3, stride 2", (2, 5, 4, 6), (3, 3, 6, 8)),
    _pool("max_pool", -jnp.inf, lax.max, 1),
    _pool("avg_pool", 0.0, lax.add, 6),
]


def _with_gradients(function: Callable[..., Any], dy: Any, *args: Any) -> tuple[Any, ...]:
    y, pullback = jax.vjp(function, *args)
    return (y, *pullback(dy))


@cache
def _compiled(reference: Callable[..., Any]) -> Callable[..., Any]:
    # Without optimisation: compiling takes longest.
    options = {"xla_backend_optimization_level": 0}
    return jax.jit(partial(_with_gradients, reference), compiler_options=options)


def _exact(case: _Case, *args: Any) -> list[np.ndarray]:
    with jax.enable_x64(True), jax.default_device(jax.devices("cpu")[0]):
        y, _, *gradients = map(np.asarray, _compiled(case.reference)(*args))
    return [y, *gradients]


def largest_error(actual: Any, exact: Any, size: Any) -> float:
    """Returns it in units of the bound; ``size`` is the sum of the products' absolute values."""
    stored = jnp.finfo(actual.dtype)
    eps = float(min(stored.eps, jnp.finfo("float32").eps))
    rounding = float(stored.eps) / 2 * np.abs(exact) + float(stored.smallest_subnormal)
    ratio = np.abs(actual.astype(np.float64) - exact) / (64 * eps * size + rounding)
    return float(np.nan_to_num(ratio, nan=1e9, posinf=1e9).max(initial=0))  # JSON has neither


def _ops(dtype: str) -> tuple[dict[str, float], list[str]]:
    """The largest error of each y and gradient; what is wrong: errors above 1, other bits in a second run."""
    errors: dict[str, float] = {}
    wrong: list[str] = []
    draw = np.random.default_rng(0).standard_normal
    for case in _CASES:
        y_shape = jax.eval_shape(case.ours, *map(jnp.zeros, case.shapes)).shape
        dy, x, *others = (np.asarray(draw(shape)).astype(dtype) for shape in (y_shape, *case.shapes))
        args = [dy, abs(x), *others]  # max_pool of |x| has the same maxima
        ours = jax.jit(partial(_with_gradients, case.ours))
        with jax.enable_x64(dtype == "float64"):
            got, again = (list(map(np.asarray, ours(*args))) for _ in range(2))
        dy, *primals = (value.astype(np.float64) for value in args)
        exact = _exact(case, dy, got[0].astype(np.float64), *primals)
        sizes = _exact(case, abs(dy), np.ones(y_shape), *map(abs, primals))  # relu lets all pass at y = 1
        names = ("db", "ddy") if case.op == _BIAS else ("y", "dx", "dw", "db")
        values = zip(names, got, again, exact, sizes, strict=False)
        for name, first, second, *rest in values:
            row, error = f"{case.op} {name}", largest_error(first, *rest)
            errors[row] = max(errors.get(row, 0.0), error)
            if error > 1 or first.tobytes() != second.tobytes():
                bits = "the same" if first.tobytes() == second.tobytes() else "other"
                wrong.append(f"{row} of {case.title}: {error:.3g} bounds off, {bits} bits in a second run")
    return errors, wrong


def run(platform: str, part: str) -> tuple[dict[str, float], list[str]]:
    """Checks a dtype, or "install", on "cpu" or "cuda"."""
    with jax.default_device(jax.devices(platform)[0]):
        if part != "install":
            return _ops(part)
        jax_convgrad.install()
        program = jax.jit(lambda x: lax.conv(x, x, (1, 1), "SAME")).lower(jnp.ones((1, 1, 5, 5))).as_text()
        return {}, [] if "jax_convgrad_" in program else ["jax.lax's convolution stays on jax.lax"]
