"""The lowering of a primitive: to a kernel's call, a call that XLA may split, or ``jax.lax``'s operation."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import mlir
from jax.interpreters.mlir import ir

from jax_convgrad import native
from jax_convgrad.geometry import MAX_AXES, are_known
from jax_convgrad.primitives import custom_call, sharding, targets
from jax_convgrad.primitives.complex_form import is_complex


@dataclass(frozen=True, eq=False)
class Lowering:
    """The lowering of one primitive. Most fields are arguments of ``define`` (define.py).

    ``native(platform, *operands, **params)`` calls its kernel on real and complex operands.
    """

    primitive: Primitive
    name: str
    result: Callable[..., Any]
    native: Callable[..., Any]
    on_lax: Callable[..., Any]
    factors: Callable[..., sharding.Factors] | None
    partial_sums: tuple[Callable[..., Any], Callable[..., Any]] | None
    serves: Callable[..., bool] | None
    any_size: frozenset[str]
    sums: bool
    only_calls: bool

    def on_kernels(self, platform: str, ctx: Any, *operands: Any, **params: Any) -> Any:
        """The lowering rule for a platform that may have kernels."""
        split = sharding.splittable(ctx) if self.factors is not None else None
        devices = 1 if split is None else split.module_context.axis_context.num_devices
        # If every call were traced first, a large net would take longer to lower than lax's.
        calls = calls_in(ctx.module_context)
        kind = (self.primitive, platform, devices, tuple(ctx.avals_in), tuple(params.items()))
        if kind in calls:
            return calls[kind].again(operands)
        if self._is_a_call(platform, ctx, params):
            values = self._call(platform, split, devices, ctx, operands, params)
            if values is not None:
                if (call := custom_call.written(self.name, values, operands)) is not None:
                    calls[kind] = call
                return values
        compute = functools.partial(self._compute, platform, devices)
        return self.traced(compute, split or ctx, *operands, **params)

    def traced(self, function: Callable[..., Any], ctx: Any, *operands: Any, **params: Any) -> Any:
        """The lowering by tracing a function of arrays."""
        multiple_results = self.primitive.multiple_results
        return mlir.lower_fun(function, multiple_results=multiple_results)(ctx, *operands, **params)

    def _compute(self, platform: str, devices: int, *operands: jax.Array, **params: Any) -> Any:
        """The results of arrays, on the kernels or with ``jax.lax``."""
        several = self.primitive.multiple_results
        results = jax.tree.leaves(self.result(*map(jax.typeof, operands), **params))
        no_products = self.sums and any(array.size == 0 for array in operands)
        if no_products or all(array.size == 0 for array in results):
            # No call, and so no layouts: XLA for the CPU divides by zero over copies of some empty arrays.
            zeros = [jnp.zeros(result.shape, result.dtype) for result in results]
            return zeros if several else zeros[0]
        on_kernels = platform in targets.backends and _within_kernels(params)
        on_kernels = on_kernels and self._sizes_are_known(operands, params)
        if on_kernels and self._serves(platform, operands, params):
            if devices == 1 or self.factors is None:
                return self.native(platform, *operands, **params)
            parts = self._partitioned(platform, devices, operands, params)(*operands)
            return parts if several else parts[0]
        if platform == "cuda" and platform not in targets.backends:
            _warn_no_cuda_kernels()
        return self.on_lax(*operands, **params)

    # ------------------------------------------------------------------------------ one call, without tracing

    def _is_a_call(self, platform: str, ctx: Any, params: Mapping[str, Any]) -> bool:
        """Reports whether ``_compute`` would come to one call of a kernel, for one device."""
        arrays = (*ctx.avals_in, *ctx.avals_out)
        floats = [array for array in ctx.avals_in if jnp.issubdtype(array.dtype, jnp.inexact)]
        return (
            self.only_calls
            and platform in targets.backends
            and _within_kernels(params)
            and len({array.dtype for array in floats}) == 1
            and not any(map(is_complex, floats))
            and all(are_known(array.shape) and 0 not in array.shape for array in arrays)
            and self._serves(platform, ctx.avals_in, params)
        )

    def _call(
        self,
        platform: str,
        split: Any,
        devices: int,
        ctx: Any,
        operands: Sequence[Any],
        params: dict[str, Any],
    ) -> Sequence[Any] | None:
        """The results of the one call; None if more than a call is needed."""
        if split is not None:
            with custom_call.named(ir.Location.current, f"jax_convgrad.{self.name}"):
                call = self._partitioned(platform, devices, ctx.avals_in, params)
                return call.lowered(split, operands)
        given = [custom_call.Lowered(ctx, *pair) for pair in zip(operands, ctx.avals_in, strict=True)]
        try:
            results = self.native(platform, *given, **params)
        except (TypeError, AttributeError):
            return None  # it does more than a call, or is wrong, and then tracing it raises the error
        return [result.value for result in (results if self.primitive.multiple_results else [results])]

    def _partitioned(self, platform: str, devices: int, arrays: Sequence[Any], params: dict[str, Any]) -> Any:
        """The call that XLA may split."""
        assert self.factors is not None
        # A device's part is the primitive again, in a program of its own in which nothing is split.
        return sharding.partitioned(
            self.name,
            platform,
            self.primitive.bind,
            self.factors(*arrays, **params),
            params,
            devices,
            self.partial_sums,
        )

    # -------------------------------------------------------------------------------------- what kernels take

    def _serves(self, platform: str, operands: Sequence[Any], params: Mapping[str, Any]) -> bool:
        return self.serves is None or self.serves(platform, *operands, **params)

    def _sizes_are_known(self, operands: Sequence[Any], params: Mapping[str, Any]) -> bool:
        """Reports whether no size is a symbol, except those that kernels learn when they run."""
        if not all(axis.is_known for axis in _axes(params)):
            return False
        if all(are_known(array.shape) for array in operands):
            return True
        if self.factors is None:
            return False
        labels = self.factors(*operands, **params).operands
        return all(
            isinstance(size, int) or label in self.any_size
            for array, letters in zip(operands, labels, strict=True)
            for size, label in zip(array.shape, letters, strict=True)
        )


def _axes(params: Mapping[str, Any]) -> Sequence[Any]:
    """The spatial axes of a primitive with these parameters; one without a ``spec`` has no use for axes."""
    return params["spec"].axes if "spec" in params else ()


def _within_kernels(params: Mapping[str, Any]) -> bool:
    """Reports whether the kernels know as many spatial axes as a primitive with these parameters has."""
    return len(_axes(params)) <= MAX_AXES


@functools.cache
def _warn_no_cuda_kernels() -> None:
    warnings.warn(
        "jax_convgrad's CUDA kernels are not installed, so jax.lax computes on NVIDIA GPUs. To "
        f"install them: {native.cuda_remedy()}",
        stacklevel=2,
    )


def calls_in(module_context: Any) -> dict[Any, Any]:
    """The code that was written into a program, to be written again; it lives while the program is lowered.

    JAX keeps the functions that it has lowered already in this dictionary, under keys of any kind.
    """
    return getattr(module_context, "cached_primitive_lowerings", {})


def lowered_for(ctx: Any) -> tuple[str, ...]:
    """The platforms that an equation is lowered for; empty if it has one of its own."""
    platforms = getattr(ctx, "platforms", None) or getattr(ctx.module_context, "platforms", ())
    is_elsewhere = getattr(getattr(ctx, "jaxpr_eqn_ctx", None), "compute_type", None) is not None
    return () if is_elsewhere or platforms is None else tuple(platforms)
