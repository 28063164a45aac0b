"""How a kernel becomes a JAX primitive: its shape rule, its eager evaluation, its lowering per platform."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import mlir
from jax.interpreters.mlir import ir
from jax.sharding import PartitionSpec

from jax_convgrad.geometry import MAX_AXES, Axis, ConvGeometry, are_known
from jax_convgrad.primitives import ffi, sharding

lax_forms: dict[Primitive, Callable[..., Any]] = {}
"""Each primitive to what computes the same with ``jax.lax``, of the same operands and parameters."""

rules: dict[tuple[Primitive, str], Callable[..., Any]] = {}
"""Each primitive, on each platform that may have kernels, to its lowering rule."""


@functools.cache
def _jitted(primitive: Primitive, params: tuple[tuple[str, Any], ...]) -> Callable[..., Any]:
    return jax.jit(functools.partial(primitive.bind, **dict(params)))


_debug_nans: ContextVar[bool] = ContextVar("debug_nans", default=False)


@contextmanager
def debugging_nans() -> Iterator[None]:
    """Kernels called within look for NaN if ``jax_debug_nans`` is set here, whatever it is inside.

    JAX switches it off where it evaluates a jaxpr.
    """
    token = _debug_nans.set(_debug_nans.get() or getattr(jax.config, "jax_debug_nans", False))
    try:
        yield
    finally:
        _debug_nans.reset(token)


def _check_for_nans(primitive: Primitive, operands: Any, results: Any) -> None:
    """What JAX does for its own primitives under ``jax_debug_nans`` and ``jax_debug_infs``.

    Raises:
      FloatingPointError: there is one.
    """
    looked_for = {
        "nan": (getattr(jax.config, "jax_debug_nans", False) or _debug_nans.get(), jnp.isnan),
        "inf": (getattr(jax.config, "jax_debug_infs", False), jnp.isinf),
    }
    for value, (is_asked, is_value) in looked_for.items():
        if is_asked:
            with jax.debug_nans(False), jax.debug_infs(False):
                in_results, in_operands = (
                    any(bool(is_value(array).any()) for array in jax.tree.leaves(arrays))
                    for arrays in (results, operands)
                )
            if in_results:
                whence = ", whose operands have it already" if in_operands else ""
                raise FloatingPointError(f"invalid value ({value}) encountered in {primitive.name}{whence}")


@functools.cache
def _warn_no_cuda_kernels() -> None:
    warnings.warn(
        "jax_convgrad was built without CUDA kernels, so for CUDA it computes with jax.lax. "
        "Install it where nvcc is found, with --config-settings cmake.define.JAX_CONVGRAD_CUDA=ON, to have "
        "them.",
        stacklevel=2,
    )


def define_primitive(
    name: str,
    abstract: Callable[..., Any],
    native: Callable[..., Any],
    on_lax: Callable[..., Any],
    *,
    factors: Callable[..., sharding.Factors] | None = None,
    multiple_results: bool = False,
    sums: bool = False,
    only_calls: bool = True,
    any_size: frozenset[str] = frozenset(),
    serves: Callable[..., bool] = lambda platform, *operands, **params: True,
    of_partial_sums: tuple[Callable[..., Any], Callable[..., Any]] | None = None,
) -> Primitive:
    """A primitive ``jax_convgrad_<name>``.

    ``abstract`` gives the result's ShapedArray (or a list of them), ``native(platform, *operands, **params)``
    calls the kernels and ``on_lax(*operands, **params)`` computes the same with ``jax.lax``, where a platform
    has no kernels and where there are more spatial axes than they know. ``sums`` says that a result is a sum
    over every operand, and so zero where one is empty, and ``only_calls`` that of real operands ``native``
    makes a call and nothing else.
    ``serves(platform, *operands, **params)`` says whether the kernels take such operands; else ``on_lax``
    computes.
    ``factors(*operands, **params)`` says how the kernels may be split over devices, and ``any_size`` of which
    of its letters they learn the size when they run only, so that it may be a symbol in an exported program;
    of others their workspace depends, or their attributes. Where a result of
    partial sums is not the sum of partial results, ``of_partial_sums`` is called in their place: the first
    of it as ``native`` is, for a device's part of the sum, the second with the whole sum and as ``on_lax``.
    """
    primitive = Primitive(f"jax_convgrad_{name}")
    primitive.multiple_results = multiple_results
    lax_forms[primitive] = on_lax

    def abstract_eval(*operands: Any, **params: Any) -> Any:
        result = abstract(*operands, **params)
        # As in jax.lax: Python's own numbers, which give way to any dtype, do so after this operation too.
        if not multiple_results and all(operand.weak_type for operand in operands):
            return result.update(weak_type=True)
        return result

    primitive.def_abstract_eval(abstract_eval)

    def run_eagerly(*operands: jax.Array, **params: Any) -> Any:
        # Under jax.disable_jit jit would come straight back to this, and so it would where jax_debug_nans has
        # found a NaN in jit's results. So they are looked through here, where the primitive is known.
        with jax.disable_jit(False), jax.debug_nans(False), jax.debug_infs(False):
            results = _jitted(primitive, tuple(params.items()))(*operands)
        _check_for_nans(primitive, operands, results)
        return results

    primitive.def_impl(run_eagerly)

    def on_platform(platform: str, devices: int, *operands: jax.Array, **params: Any) -> Any:
        results = jax.tree.leaves(abstract(*map(jax.typeof, operands), **params))
        if all(array.size == 0 for array in results) or (sums and any(array.size == 0 for array in operands)):
            # No call, and so no layouts: XLA for the CPU divides by zero over copies of some empty arrays.
            zeros = [jnp.zeros(result.shape, result.dtype) for result in results]
            return zeros if multiple_results else zeros[0]
        kernels = platform in ffi.backends and _within_kernels(**params)
        kernels = kernels and _sizes_are_known(any_size, factors, operands, params)
        if kernels and serves(platform, *operands, **params):
            if devices == 1 or factors is None:
                return native(platform, *operands, **params)
            parts = part_of(platform, devices, operands, params)(*operands)
            return parts if multiple_results else parts[0]
        if platform == "cuda" and platform not in ffi.backends:
            _warn_no_cuda_kernels()
        return on_lax(*operands, **params)

    def lower(function: Callable[..., Any], ctx: Any, *operands: Any, **params: Any) -> Any:
        return mlir.lower_fun(function, multiple_results=multiple_results)(ctx, *operands, **params)

    def is_a_call(platform: str, ctx: Any, params: Mapping[str, Any]) -> bool:
        """Whether ``on_platform`` would come to one call of a kernel, for one device."""
        arrays = (*ctx.avals_in, *ctx.avals_out)
        floats = {array.dtype for array in ctx.avals_in if jnp.issubdtype(array.dtype, jnp.inexact)}
        return (
            only_calls
            and platform in ffi.backends
            and _within_kernels(**params)
            and len(floats) == 1
            and not any(jnp.issubdtype(dtype, jnp.complexfloating) for dtype in floats)
            and all(are_known(array.shape) and 0 not in array.shape for array in arrays)
            and serves(platform, *ctx.avals_in, **params)
        )

    def part_of(platform: str, devices: int, arrays: Sequence[Any], params: dict[str, Any]) -> Any:
        """The call that XLA may split."""
        assert factors is not None
        apart = of_partial_sums and (functools.partial(of_partial_sums[0], platform), of_partial_sums[1])
        # A device's part is the primitive again, in a program of its own in which nothing is split.
        return sharding.partitioned(
            name, platform, primitive.bind, factors(*arrays, **params), params, devices, apart
        )

    def call_of(
        platform: str, split: Any, devices: int, ctx: Any, operands: Sequence[Any], params: dict[str, Any]
    ) -> Sequence[Any] | None:
        """The results of the one call that it comes to; None where that is not all."""
        if split is not None:
            with ffi.named(ir.Location.current, f"jax_convgrad.{name}"):
                return part_of(platform, devices, ctx.avals_in, params).lowered(split, operands)
        given = [ffi.Lowered(ctx, *pair) for pair in zip(operands, ctx.avals_in, strict=True)]
        try:
            results = native(platform, *given, **params)
        except (TypeError, AttributeError):
            return None  # it does more than a call, or is wrong, as tracing it will tell
        return [result.value for result in (results if multiple_results else [results])]

    def lower_for(platform: str, ctx: Any, *operands: Any, **params: Any) -> Any:
        split = sharding.splittable(ctx) if factors is not None else None
        devices = 1 if split is None else split.module_context.axis_context.num_devices
        # Traced first, as below, a large net takes longer to lower than lax's.
        calls = calls_in(ctx.module_context)
        kind = (primitive, platform, devices, tuple(ctx.avals_in), tuple(params.items()))
        if kind in calls:
            return calls[kind].again(operands)
        if is_a_call(platform, ctx, params):
            values = call_of(platform, split, devices, ctx, operands, params)
            if values is not None:
                if (call := ffi.written(name, values, operands)) is not None:
                    calls[kind] = call
                return values
        return lower(functools.partial(on_platform, platform, devices), split or ctx, *operands, **params)

    for platform in ("cpu", "cuda"):
        rules[primitive, platform] = functools.partial(lower_for, platform)
        mlir.register_lowering(primitive, rules[primitive, platform], platform=platform)
    mlir.register_lowering(primitive, functools.partial(lower, on_lax))
    return primitive


def calls_in(module_context: Any) -> dict[Any, Any]:
    """What has been written into a program, to be written again: it lives as long as the program is lowered.

    JAX keeps the functions there that it has lowered already, whatever their keys are.
    """
    return getattr(module_context, "cached_primitive_lowerings", {})


def lowered_for(ctx: Any) -> tuple[str, ...]:
    """The platforms that an equation is lowered for; none where it has one of its own."""
    platforms = getattr(ctx, "platforms", None) or getattr(ctx.module_context, "platforms", ())
    is_elsewhere = getattr(getattr(ctx, "jaxpr_eqn_ctx", None), "compute_type", None) is not None
    return () if is_elsewhere or platforms is None else tuple(platforms)


def shaped(array: Any, shape: Sequence[int], dtype: Any = None) -> ShapedArray:
    """A result of the given shape that varies as ``array`` does, of its dtype where none is given."""
    unsplit = array.sharding.update(spec=PartitionSpec(*(None for _ in shape)))
    return array.update(shape=tuple(shape), dtype=dtype, weak_type=False, sharding=unsplit)


def _sizes_are_known(
    any_size: frozenset[str],
    factors: Callable[..., sharding.Factors] | None,
    operands: Sequence[Any],
    params: Mapping[str, Any],
) -> bool:
    """Whether no size is a symbol but those that kernels learn when they run."""
    geometry = params.get("geometry")
    axes = params.get("axes", ()) if geometry is None else geometry.axes
    if all(are_known(array.shape) for array in operands) and all(axis.is_known for axis in axes):
        return True
    if factors is None or not all(axis.is_known for axis in axes):
        return False
    labels = factors(*operands, **params).operands
    return all(
        isinstance(size, int) or label in any_size
        for array, letters in zip(operands, labels, strict=True)
        for size, label in zip(array.shape, letters, strict=True)
    )


def _within_kernels(*, geometry: ConvGeometry | None = None, axes: Sequence[Axis] = (), **_: Any) -> bool:
    """Whether the kernels know as many spatial axes as a primitive's parameters have."""
    return len(axes if geometry is None else geometry.axes) <= MAX_AXES
