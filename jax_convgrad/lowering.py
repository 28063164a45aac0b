"""How a kernel becomes a JAX primitive: its shape rule, its eager evaluation, its lowering per platform."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import mlir
from jax.sharding import PartitionSpec

from jax_convgrad import ffi, sharding
from jax_convgrad.geometry import MAX_AXES, Axis, ConvGeometry

lax_forms: dict[Primitive, Callable[..., Any]] = {}
"""Each primitive to what computes the same with ``jax.lax``, of the same operands and parameters."""

rules: dict[tuple[Primitive, str], Callable[..., Any]] = {}
"""Each primitive, on each platform that may have kernels, to its lowering rule."""


@functools.cache
def _jitted(primitive: Primitive, params: tuple[tuple[str, Any], ...]) -> Callable[..., Any]:
    return jax.jit(functools.partial(primitive.bind, **dict(params)))


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
    ``factors(*operands, **params)`` says how the kernels may be split over devices. Where a result of
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
        # Under jax.disable_jit (and jax_debug_nans, which uses it) jit would come straight back to this.
        with jax.disable_jit(False):
            return _jitted(primitive, tuple(params.items()))(*operands)

    primitive.def_impl(run_eagerly)

    def on_platform(platform: str, devices: int, *operands: jax.Array, **params: Any) -> Any:
        results = jax.tree.leaves(abstract(*map(jax.typeof, operands), **params))
        if all(array.size == 0 for array in results) or (sums and any(array.size == 0 for array in operands)):
            # No call, and so no layouts: XLA for the CPU divides by zero over copies of some empty arrays.
            zeros = [jnp.zeros(result.shape, result.dtype) for result in results]
            return zeros if multiple_results else zeros[0]
        kernels = platform in ffi.backends and _within_kernels(**params)
        if kernels and serves(platform, *operands, **params):
            kernel = functools.partial(native, platform)
            if devices == 1 or factors is None:
                return kernel(*operands, **params)
            apart = of_partial_sums and (functools.partial(of_partial_sums[0], platform), of_partial_sums[1])
            split = sharding.partitioned(
                name, platform, kernel, factors(*operands, **params), params, devices, apart
            )
            parts = split(*operands)
            return parts if multiple_results else parts[0]
        if platform == "cuda" and platform not in ffi.backends:
            _warn_no_cuda_kernels()
        return on_lax(*operands, **params)

    def lower(function: Callable[..., Any], ctx: Any, *operands: Any, **params: Any) -> Any:
        return mlir.lower_fun(function, multiple_results=multiple_results)(ctx, *operands, **params)

    def is_a_call(platform: str, ctx: Any, params: Mapping[str, Any]) -> bool:
        """Whether ``on_platform`` would come to one call of a kernel, for one device."""
        arrays = (*ctx.avals_in, *ctx.avals_out)
        floats = {array.dtype for array in arrays if jnp.issubdtype(array.dtype, jnp.inexact)}
        return (
            only_calls
            and platform in ffi.backends
            and _within_kernels(**params)
            and len(floats) == 1
            and not any(jnp.issubdtype(dtype, jnp.complexfloating) for dtype in floats)
            and all(isinstance(size, int) and size > 0 for array in arrays for size in array.shape)
            and serves(platform, *ctx.avals_in, **params)
        )

    def lower_for(platform: str, ctx: Any, *operands: Any, **params: Any) -> Any:
        split = sharding.splittable(ctx) if factors is not None else None
        devices = 1 if split is None else split.module_context.axis_context.num_devices
        if split is None and is_a_call(platform, ctx, params):
            # Traced first, as below, a large net takes longer to lower than lax's.
            given = [ffi.Lowered(ctx, *pair) for pair in zip(operands, ctx.avals_in, strict=True)]
            results = native(platform, *given, **params)
            return [result.value for result in (results if multiple_results else [results])]
        return lower(functools.partial(on_platform, platform, devices), split or ctx, *operands, **params)

    for platform in ("cpu", "cuda"):
        rules[primitive, platform] = functools.partial(lower_for, platform)
        mlir.register_lowering(primitive, rules[primitive, platform], platform=platform)
    mlir.register_lowering(primitive, functools.partial(lower, on_lax))
    return primitive


def shaped(array: Any, shape: Sequence[int], dtype: Any = None) -> ShapedArray:
    """A result of the given shape that varies as ``array`` does, of its dtype where none is given."""
    unsplit = array.sharding.update(spec=PartitionSpec(*(None for _ in shape)))
    return array.update(shape=tuple(shape), dtype=dtype, weak_type=False, sharding=unsplit)


def _within_kernels(*, geometry: ConvGeometry | None = None, axes: Sequence[Axis] = (), **_: Any) -> bool:
    """Whether the kernels know as many spatial axes as a primitive's parameters have."""
    return len(axes if geometry is None else geometry.axes) <= MAX_AXES
