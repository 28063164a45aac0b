"""Every op in every dtype on odd shapes, against ``jax.lax`` in float64; the same bits twice; ``install()``.

An error is told in units of the bound on it. A sum of n rounded products may lie 4·√n·eps·Σ|a·b| from the
exact one, eps being that of the type in which it is summed, and is then rounded once to the type that it is
stored in; both are far less than what an omitted product would make.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import jax_convgrad as ours

DTYPES = ("float32", "bfloat16", "float16", "float64")
_OPS = ("fprop", "dgrad", "wgrad", "bgrad")
_WITH_RELU = ("conv+relu: y", "conv+relu: dx", "conv+relu: dw", "conv+relu: db")
_TRANSPOSED = ("conv_transpose: y", "conv_transpose: dx", "conv_transpose: dw")
_POOLS = ("max_pool: y", "max_pool: dx", "avg_pool: y", "avg_pool: dx")
_HIGHEST = lax.Precision.HIGHEST
_FACTOR = 4
_LARGEST = 1e9  # told for NaN and infinity, which JSON has not


@dataclass(frozen=True)
class _Layer:
    name: str
    x: tuple[int, ...]
    w: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    groups: int = 1

    @property
    def spatial(self) -> int:
        return len(self.x) - 2

    @property
    def dimension_numbers(self) -> lax.ConvDimensionNumbers:
        letters = "DHW"[3 - self.spatial :]
        return lax.conv_dimension_numbers(self.x, self.w, (f"N{letters}C", f"{letters}IO", f"N{letters}C"))

    @property
    def options(self) -> dict[str, Any]:
        """In the words of ``conv``."""
        return {
            "stride": self.stride,
            "padding": self.padding,
            "dilation": self.dilation,
            "groups": self.groups,
            "precision": _HIGHEST,
        }

    def on_lax(self, x: Any, w: Any) -> Any:
        """The convolution, by ``jax.lax``."""
        return lax.conv_general_dilated(
            x,
            w,
            self.stride,
            self.padding,
            rhs_dilation=self.dilation,
            dimension_numbers=self.dimension_numbers,
            feature_group_count=self.groups,
            precision=_HIGHEST,
        )

    def lengths(self, y: tuple[int, ...]) -> dict[str, int]:
        """How many products a sum of each op has at most."""
        taps = math.prod(self.w[: self.spatial])
        positions = math.prod(y[:-1])
        return {
            "fprop": taps * self.w[-2],
            "dgrad": taps * self.w[-1] // self.groups,
            "wgrad": positions,
            "bgrad": positions,
        }


_LAYERS = (
    _Layer("3x3 of 32 channels", (2, 12, 12, 32), (3, 3, 32, 32), (1, 1), ((1, 1), (1, 1)), (1, 1)),
    _Layer("stride 2x1, uneven padding", (2, 9, 8, 5), (3, 3, 5, 6), (2, 1), ((1, 2), (0, 1)), (1, 1)),
    _Layer("dilation 2x1, 3 groups", (2, 10, 9, 6), (3, 2, 2, 9), (1, 1), ((2, 2), (1, 0)), (2, 1), 3),
    _Layer("depthwise, stride 2", (2, 9, 11, 16), (3, 3, 1, 16), (2, 2), ((1, 1), (1, 1)), (1, 1), 16),
    _Layer("1x1", (3, 5, 7, 16), (1, 1, 16, 24), (1, 1), ((0, 0), (0, 0)), (1, 1)),
    _Layer("1-D, cropped", (2, 23, 4), (5, 4, 3), (3,), ((-1, 2),), (1,)),
    _Layer("3-D", (1, 4, 5, 6, 3), (2, 3, 2, 3, 4), (1, 2, 1), ((0, 1), (1, 1), (0, 0)), (1, 1, 1)),
)


class _Errors:
    """The largest error of each op, in units of its bound, and where it was."""

    def __init__(self, dtype: str) -> None:
        self.dtype = dtype
        self.found: dict[str, list[Any]] = {}
        self.bits_differ: list[str] = []

    def add(self, op: str, case: str, actual: Any, exact: Any, sum_of_abs: Any, length: int) -> None:
        stored = jnp.finfo(self.dtype)
        eps = float(jnp.finfo(jnp.float64 if self.dtype == "float64" else jnp.float32).eps)
        exact = np.asarray(exact, np.float64)
        rounding = float(stored.eps) / 2 * np.abs(exact) + float(stored.smallest_subnormal)
        bound = _FACTOR * math.sqrt(length + 1) * eps * np.asarray(sum_of_abs, np.float64) + rounding
        ratio = np.abs(np.asarray(actual).astype(np.float64) - exact) / bound
        largest = float(np.nan_to_num(ratio, nan=_LARGEST, posinf=_LARGEST).max(initial=0))
        if op not in self.found or largest > self.found[op][0]:
            self.found[op] = [min(largest, _LARGEST), case]

    def twice(self, case: str, function: Callable[..., Any], *args: Any) -> dict[str, Any]:
        """What the function returns by name; it is called again, to see whether the bits are the same."""
        first, second = (jax.tree.map(np.asarray, function(*args)) for _ in range(2))
        for op, value in first.items():
            if value.tobytes() != second[op].tobytes():
                self.bits_differ.append(f"{op} of {case}")
        return first


def _rounded(generator: np.random.Generator, shape: tuple[int, ...], dtype: str) -> tuple[Any, np.ndarray]:
    """The same numbers in the dtype and in float64."""
    array = np.asarray(generator.standard_normal(shape)).astype(jnp.dtype(dtype))
    return array, array.astype(np.float64)


def _reference(compiled: Callable[..., Any], *args: Any) -> Any:
    """In float64 on the CPU, whichever platform is checked."""
    with jax.enable_x64(True), jax.default_device(jax.devices("cpu")[0]):
        return jax.tree.map(np.asarray, compiled(*args))


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """A reference, jitted without optimisation: compiling it takes longest."""
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})


def _with_gradients(names: tuple[str, ...], function: Callable[..., Any]) -> Callable[..., Any]:
    """(*primals, dy) to the value and the gradient of each primal, under these names."""

    def run(*args: Any) -> dict[str, Any]:
        y, pullback = jax.vjp(function, *args[:-1])
        return dict(zip(names, (y, *pullback(args[-1])), strict=True))

    return run


@functools.cache
def _layer_reference(layer: _Layer) -> Callable[..., Any]:
    """(x, w, b, dy, where y > 0) to the ops, the layer with relu, and the ops' sums of absolute products."""
    contractions = _with_gradients(_OPS[:3], layer.on_lax)

    def sums(x: Any, w: Any, dy: Any) -> dict[str, Any]:
        return {**contractions(x, w, dy), "bgrad": dy.sum(tuple(range(dy.ndim - 1)))}

    def references(x: Any, w: Any, b: Any, dy: Any, positive: Any) -> Any:
        plain = sums(x, w, dy)
        relu = {**sums(x, w, dy * positive), "fprop": jnp.maximum(plain["fprop"] + b, 0)}
        return plain, relu, sums(abs(x), abs(w), abs(dy))

    return _compiled(references)


def _layer(layer: _Layer, dtype: str, errors: _Errors) -> None:
    generator = np.random.default_rng(0)
    x, x64 = _rounded(generator, layer.x, dtype)
    w, w64 = _rounded(generator, layer.w, dtype)
    b, b64 = _rounded(generator, layer.w[-1:], dtype)
    y_shape = jax.eval_shape(layer.on_lax, x, w).shape
    dy, dy64 = _rounded(generator, y_shape, dtype)
    options = layer.options

    def with_relu(x: Any, w: Any, b: Any) -> Any:
        return ours.conv(x, w, b, activation="relu", **options)

    def kernels(x: Any, w: Any, b: Any, dy: Any) -> dict[str, Any]:
        return {
            "fprop": ours.conv(x, w, **options),
            "dgrad": ours.conv_input_grad(dy, w, x.shape, **options),
            "wgrad": ours.conv_filter_grad(x, dy, w.shape, **options),
            "bgrad": ours.conv_bias_grad(dy),
            **_with_gradients(_WITH_RELU, with_relu)(x, w, b, dy),
        }

    got = errors.twice(layer.name, jax.jit(kernels), x, w, b, dy)
    # Where y is next to 0 its rounding decides which side relu takes: the gradient's is that of the y given.
    positive = (got[_WITH_RELU[0]] > 0).astype(np.float64)
    plain, relu, sizes = _reference(_layer_reference(layer), x64, w64, b64, dy64, positive)
    lengths = layer.lengths(y_shape)
    for op, name in zip(_OPS, _WITH_RELU, strict=True):
        bias = np.abs(b64) if op == "fprop" else 0
        errors.add(op, layer.name, got[op], plain[op], sizes[op], lengths[op])
        errors.add(name, layer.name, got[name], relu[op], sizes[op] + bias, lengths[op] + 1)


def _transposed_by(module: Any) -> Callable[..., dict[str, Any]]:
    return _with_gradients(
        _TRANSPOSED, lambda x, w: module.conv_transpose(x, w, (2, 2), "SAME", precision=_HIGHEST)
    )


@functools.cache
def _transposed_reference() -> Callable[..., Any]:
    run = _transposed_by(lax)
    return _compiled(lambda x, w, dy: (run(x, w, dy), run(abs(x), abs(w), abs(dy))))


def _transposed(dtype: str, errors: _Errors) -> None:
    case = "conv_transpose 3x3, stride 2"
    generator = np.random.default_rng(1)
    x, x64 = _rounded(generator, (2, 5, 4, 6), dtype)
    w, w64 = _rounded(generator, (3, 3, 6, 8), dtype)
    dy, dy64 = _rounded(generator, (2, 10, 8, 8), dtype)
    got = errors.twice(case, jax.jit(_transposed_by(ours)), x, w, dy)
    exact, sizes = _reference(_transposed_reference(), x64, w64, dy64)
    for name, length in zip(_TRANSPOSED, (9 * 6, 9 * 8, 2 * 5 * 4), strict=True):
        errors.add(name, case, got[name], exact[name], sizes[name], length)


_WINDOW, _STRIDES, _PADDING = (3, 2), (2, 2), ((1, 1), (0, 1))


def _pools_by(max_pool: Callable[..., Any], avg_pool: Callable[..., Any]) -> Callable[..., dict[str, Any]]:
    of_max, of_avg = _with_gradients(_POOLS[:2], max_pool), _with_gradients(_POOLS[2:], avg_pool)
    return lambda x, dy: {**of_max(x, dy), **of_avg(x, dy)}


@functools.cache
def _pools_reference() -> Callable[..., Any]:
    shape, steps, around = (1, *_WINDOW, 1), (1, *_STRIDES, 1), ((0, 0), *_PADDING, (0, 0))
    run = _pools_by(
        lambda x: lax.reduce_window(x, -jnp.inf, lax.max, shape, steps, around),
        lambda x: lax.reduce_window(x, 0.0, lax.add, shape, steps, around) / math.prod(_WINDOW),
    )
    return _compiled(lambda x, dy: (run(x, dy), run(abs(x), abs(dy))))


def _pools(dtype: str, errors: _Errors) -> None:
    case = "pooling 3x2, stride 2, uneven padding"
    generator = np.random.default_rng(2)
    # No number twice, so that a window has one maximum in every dtype (bfloat16 has the integers up to 256).
    x = generator.permutation(2 * 8 * 7 * 2).reshape(2, 8, 7, 2).astype(jnp.dtype(dtype))
    dy, dy64 = _rounded(generator, (2, 4, 4, 2), dtype)
    kernels = _pools_by(
        lambda x: ours.max_pool(x, _WINDOW, _STRIDES, _PADDING),
        lambda x: ours.avg_pool(x, _WINDOW, _STRIDES, _PADDING),
    )
    got = errors.twice(case, jax.jit(kernels), x, dy)
    exact, sizes = _reference(_pools_reference(), x.astype(np.float64), dy64)
    for name in _POOLS:
        errors.add(name, case, got[name], exact[name], sizes[name], math.prod(_WINDOW))


def _of_dtype(dtype: str) -> dict[str, Any]:
    errors = _Errors(dtype)
    for layer in _LAYERS:
        _layer(layer, dtype, errors)
    _transposed(dtype, errors)
    _pools(dtype, errors)
    return {"errors": errors.found, "bits_differ": errors.bits_differ}


def _in_its_context(dtype: str) -> dict[str, Any]:
    if dtype != "float64":
        return _of_dtype(dtype)
    with jax.enable_x64(True):
        return _of_dtype(dtype)


def _round_trip() -> str:
    """What is wrong with ``install()`` and ``uninstall()``; "" if nothing is."""
    layer = _LAYERS[1]
    generator = np.random.default_rng(3)
    x, _ = _rounded(generator, layer.x, "float32")
    w, _ = _rounded(generator, layer.w, "float32")
    of_lax = np.asarray(jax.jit(layer.on_lax)(x, w))
    ours.install()
    try:
        lowered = jax.jit(layer.on_lax).lower(x, w).as_text()
        installed = np.asarray(jax.jit(layer.on_lax)(x, w))
    finally:
        ours.uninstall()
    afterwards = jax.jit(layer.on_lax).lower(x, w).as_text()
    if "jax_convgrad_" not in lowered:
        return "install() does not put the kernels under jax.lax's convolution"
    if not np.allclose(installed, of_lax, rtol=1e-4, atol=1e-4):
        return "install() changes the numbers of jax.lax's convolution"
    if "jax_convgrad_" in afterwards:
        return "uninstall() leaves the kernels under jax.lax's convolution"
    return ""


def run(platform: str, step: Callable[[str, Callable[[], Any]], Any]) -> None:
    """The check on a platform in JAX's name ("cpu", "cuda"); ``step`` gets each part's name and function."""
    with jax.default_device(jax.devices(platform)[0]):
        for dtype in DTYPES:
            # The default binds each turn's dtype; mypy infers no type for such a lambda.
            step(dtype, lambda dtype=dtype: _in_its_context(dtype))  # type: ignore[misc]
        step("install", _round_trip)
