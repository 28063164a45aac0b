"""``define``: how a kernel becomes a JAX primitive, from its shapes to its derivatives, in one call.

What all primitives have in common is said here once: complex operands go to the kernel as real ones, and
where there is no kernel ``jax.lax`` computes the same.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jax.sharding import PartitionSpec

from jax_convgrad.primitives.complex_form import ComplexForm, is_complex
from jax_convgrad.primitives.eager import run_eagerly
from jax_convgrad.primitives.lowering import Lowering
from jax_convgrad.primitives.sharding import Factors

lax_forms: dict[Primitive, Callable[..., Any]] = {}
"""Each primitive's ``on_lax``: the same with ``jax.lax``, of its operands and parameters."""

rules: dict[tuple[Primitive, str], Callable[..., Any]] = {}
"""Each primitive's lowering rule, on each platform that may have kernels."""


def define(
    name: str,
    result: Callable[..., Any],
    kernel: Callable[..., Any],
    on_lax: Callable[..., Any],
    *,
    vmap: Callable[..., Any],
    transposes: Sequence[Callable[..., Any]] = (),
    jvp: Callable[..., Any] | None = None,
    transpose: Callable[..., Any] | None = None,
    complex_form: ComplexForm | None = None,
    factors: Callable[..., Factors] | None = None,
    partial_sums: tuple[Callable[..., Any], Callable[..., Any]] | None = None,
    serves: Callable[..., bool] | None = None,
    any_size: str = "",
    sums: bool = False,
    only_calls: bool = True,
    multiple_results: bool = False,
) -> Primitive:
    """A primitive ``jax_convgrad_<name>``, with all of its rules.

    Args:
      name: the op, as it appears in jaxprs and profiles.
      result: ``result(*operands, **params)`` gives the result's ShapedArray, or a list of them.
      kernel: ``kernel(platform, *operands, **params)`` calls the kernel on real operands.
      on_lax: ``on_lax(*operands, **params)`` computes the same with ``jax.lax``: on platforms without
        kernels, with more spatial axes than kernels know, and where sizes are symbols.
      vmap: ``vmap(primitive, operands, mapped, **params)``, the batching rule.
      transposes: for a primitive that is linear in each of its operands, the transpose in each:
        ``transpose(cotangent, *operands, **params)``.
      jvp: JAX's jvp rule, of a primitive without ``transposes``.
      transpose: JAX's transpose rule, of a primitive without ``transposes``.
      complex_form: how complex operands go to the kernel; None if the primitive takes real ones alone.
      factors: ``factors(*operands, **params)`` says how the call may be split over devices; None if XLA
        splits what the kernel function returns.
      partial_sums: a pair of functions, for a sum that is split over devices. The first gives a device's part
        from the primitive's arguments. The second takes the sum of all parts, and the same arguments, and
        gives the result. None if the devices' results just add up.
      serves: ``serves(platform, *operands, **params)`` says whether the kernels take such operands.
      any_size: those letters of ``factors`` whose size kernels learn when they run, so that it may be a
        symbol in an exported program. On other sizes the workspace or the attributes depend.
      sums: True if a result is a sum over every operand, and so zero if one is empty.
      only_calls: True if ``kernel`` makes one call and nothing else.
      multiple_results: True if the primitive has a list of results.

    Returns:
      The primitive. ``lax_forms`` and ``rules`` hold what other modules need of it.
    """
    primitive = Primitive(f"jax_convgrad_{name}")
    primitive.multiple_results = multiple_results

    def abstract(*operands: Any, **params: Any) -> Any:
        shaped = result(*operands, **params)
        # As in jax.lax: Python's own numbers, which give way to any dtype, do so after this operation too.
        if not multiple_results and all(operand.weak_type for operand in operands):
            return shaped.update(weak_type=True)
        return shaped

    def native(platform: str, *operands: Any, **params: Any) -> Any:
        if complex_form is not None and is_complex(operands[0]):
            return complex_form.on_parts(functools.partial(kernel, platform), *operands, **params)
        return kernel(platform, *operands, **params)

    primitive.def_impl(functools.partial(run_eagerly, primitive))
    primitive.def_abstract_eval(abstract)
    batching.primitive_batchers[primitive] = functools.partial(vmap, primitive)
    _define_derivatives(primitive, transposes, jvp, transpose)

    lax_forms[primitive] = on_lax
    lowering = Lowering(
        primitive,
        name,
        result,
        native,
        on_lax,
        factors,
        partial_sums,
        serves,
        frozenset(any_size),
        sums,
        only_calls,
    )
    for platform in ("cpu", "cuda"):
        rules[primitive, platform] = functools.partial(lowering.on_kernels, platform)
        mlir.register_lowering(primitive, rules[primitive, platform], platform=platform)
    mlir.register_lowering(primitive, functools.partial(lowering.traced, on_lax))
    return primitive


def _define_derivatives(
    primitive: Primitive,
    transposes: Sequence[Callable[..., Any]],
    jvp: Callable[..., Any] | None,
    transpose: Callable[..., Any] | None,
) -> None:
    if len(transposes) == 1:
        ad.deflinear2(primitive, lambda *args, **params: [transposes[0](*args, **params)])
    elif transposes:
        ad.defbilinear(primitive, *transposes)
    if jvp is not None:
        ad.primitive_jvps[primitive] = jvp
    if transpose is not None:
        ad.primitive_transposes[primitive] = transpose


def shaped(array: Any, shape: Sequence[int], dtype: Any = None) -> ShapedArray:
    """A result of the given shape that varies as ``array`` does, of its dtype if no other is given."""
    unsplit = array.sharding.update(spec=PartitionSpec(*(None for _ in shape)))
    return array.update(shape=tuple(shape), dtype=dtype, weak_type=False, sharding=unsplit)
