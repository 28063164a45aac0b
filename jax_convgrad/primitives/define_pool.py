"""``define_pool``: a primitive of pooling, for which ``define`` gets what all of them have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive

from jax_convgrad.primitives import ffi
from jax_convgrad.primitives.batching import pool_rule, position_rule
from jax_convgrad.primitives.define import define, shaped
from jax_convgrad.primitives.pool_spec import PoolSpec
from jax_convgrad.primitives.sharding import Factors
from jax_convgrad.primitives.spatial_parts import Rows, letter


def kernel_of(
    target: str, shape: Callable[..., tuple[int, ...]], dtypes: tuple[Any, ...] = (None,), **attributes: Any
) -> Callable[..., Any]:
    """The call of a kernel with results of one shape and these dtypes, where None is the first operand's."""

    def call(platform: str, *operands: Any, spec: PoolSpec, **params: Any) -> Any:
        results = [(shape(*operands, spec=spec), dtype or operands[0].dtype) for dtype in dtypes]
        out = ffi.pool(platform, target, operands, results, spec, **attributes, **params)
        return out if len(dtypes) > 1 else out[0]

    return call


def _in_order(compute: Callable[..., Any]) -> Callable[..., Any]:
    """``compute``, a function of arrays [N, spatial..., C], for arrays of other dimensions."""

    def computed(*operands: Any, spec: PoolSpec, **params: Any) -> Any:
        last = PoolSpec.channels_last(spec.axes)
        if spec == last:
            return compute(*operands, spec=last, **params)
        order = (spec.batch, *spec.spatial, spec.channel)
        results = compute(*(jnp.transpose(operand, order) for operand in operands), spec=last, **params)
        places = [order.index(d) for d in range(len(order))]
        return jax.tree.map(lambda result: jnp.transpose(result, places), results)

    return computed


def _factors(operands: int, results: int, rows: Rows) -> Callable[..., Factors]:
    """Returns how a pooling may be split: by images and channels, over which nothing is summed, and by rows.

    It is not split by images if one operand has fewer, since each of those belongs to several of the other's.
    """

    def factors(*arrays: Any, spec: PoolSpec, **_: Any) -> Factors:
        sizes = {"n": arrays[0].shape[spec.batch], "c": arrays[0].shape[spec.channel]}
        labels: list[str | None] = [None] * len(spec.dimensions)
        labels[spec.batch] = "n" if len({array.shape[spec.batch] for array in arrays}) == 1 else None
        labels[spec.channel] = "c"
        for a, d in enumerate(spec.spatial):
            labels[d] = letter(a)
        return Factors((tuple(labels),) * operands, (tuple(labels),) * results, sizes, rows=rows)

    return factors


def define_pool(
    name: str,
    shape: Callable[..., tuple[int, ...]],
    kernel: Callable[..., Any],
    on_lax: Callable[..., Any],
    rows: Rows,
    dtypes: tuple[Any, ...] = (None,),
    *,
    operands: int = 1,
    any_size: str = "nc",
    **rules: Any,
) -> Primitive:
    """The primitive of a pooling, whose results have one shape.

    Args:
      name: as for ``define``.
      shape: ``shape(*operands, spec=spec)`` gives the shape of each result.
      kernel: ``kernel(platform, *operands, spec=spec, **params)``, see ``kernel_of``.
      on_lax: ``on_lax(*operands, axes=axes, **params)`` computes the same of arrays [N, spatial..., C].
      rows: one device's call if rows are split (pool_parts.py).
      dtypes: the dtype of each result; None is the first operand's.
      operands: 1, or 2 if the second one holds positions.
      any_size: as for ``define``, of the letters n and c.
      rules: further arguments of ``define``.
    """
    several = len(dtypes) > 1

    def result(*arrays: Any, spec: PoolSpec, **_: Any) -> Any:
        results = [shaped(arrays[0], shape(*arrays, spec=spec), dtype) for dtype in dtypes]
        return results if several else results[0]

    def native(platform: str, *arrays: Any, spec: PoolSpec, **params: Any) -> Any:
        def call(*arrays: Any, **how: Any) -> Any:
            return kernel(platform, *arrays, **how)

        # If one is empty, operands go channels-last. Else they would be copied, and over copies of some empty
        # arrays XLA for the CPU divides by zero.
        run = _in_order(call) if any(0 in array.shape for array in arrays) else call
        return run(*arrays, spec=spec, **params)

    def elsewhere(*arrays: Any, spec: PoolSpec, **params: Any) -> Any:
        return on_lax(*arrays, axes=spec.axes, **params)

    return define(
        name,
        result,
        native,
        _in_order(elsewhere),
        vmap=pool_rule if operands == 1 else position_rule,
        factors=_factors(operands, len(dtypes), rows),
        any_size=any_size,
        multiple_results=several,
        **rules,
    )
