"""XLA custom calls: traced as ``jax.ffi.ffi_call`` does, or written straight into a program.

This is the one place that says ``ffi_call``. If every call were traced first, a large net would take longer
to lower than ``jax.lax``'s. So the lowering writes a call itself, and an equal one again from its parts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
from jax.core import ShapedArray
from jax.interpreters.mlir import ir


@dataclass(frozen=True)
class Lowered:
    """An operand or a result of a call that is written straight into the program that is being lowered.

    ``custom_call`` and the functions of ffi.py take it in an array's place.
    """

    ctx: Any
    value: Any
    aval: Any

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape, which has known sizes only."""
        return self.aval.shape

    @property
    def dtype(self) -> Any:
        """Its NumPy dtype."""
        return self.aval.dtype

    @property
    def ndim(self) -> int:
        """Its number of dimensions."""
        return len(self.aval.shape)


def named(location: Any, name: str) -> Any:
    """The location of an operation, which profiles and HLO metadata show, with this name in place of JAX's.

    JAX's name is the primitive's. It occurs twice, the second time behind the scopes that it stands in.
    """
    # In versions of JAX where all locations have one type, one without a name crashes when asked for it.
    is_a_name = getattr(location, "is_a_name", lambda: hasattr(location, "name_str"))
    if not is_a_name():
        return location
    *scopes, last = location.name_str.split("/")
    full = "/".join((*scopes, f"{name}:" if last.endswith(":") else name))
    return ir.Location.name(full, childLoc=named(location.child_loc, name))


class Written(NamedTuple):
    """A call that stands in a program, without its operands, so that it can be written once more.

    A net has many layers of few kinds, and most of the time to lower a call goes into its attributes.
    """

    name: str
    types: Sequence[Any]
    attributes: dict[str, Any]
    places: Sequence[int]
    """The results that are wanted, by number."""

    def again(self, operands: Sequence[Any]) -> list[Any]:
        """Writes the call with other operands of the same types, and gives the results that are wanted."""
        with named(ir.Location.current, self.name):
            call = ir.Operation.create(
                "stablehlo.custom_call", results=self.types, operands=operands, attributes=self.attributes
            )
        return [call.results[place] for place in self.places]


def written(name: str, results: Sequence[Any], operands: Sequence[Any]) -> Written | None:
    """The call that gave the results, or None if it is not one call of these operands; ``name`` is its op."""
    operation = getattr(results[0].owner, "operation", results[0].owner)
    if (
        getattr(operation, "name", None) != "stablehlo.custom_call"
        or list(operation.operands) != list(operands)
        or any(result.owner != operation for result in results)
    ):
        return None
    return Written(
        _call_name(name),
        [result.type for result in operation.results],
        {name: operation.attributes[name] for name in operation.attributes},
        [result.result_number for result in results],
    )


def _call_name(target: str) -> str:
    return "jax_convgrad." + target.removeprefix("jax_convgrad_")


def custom_call(
    target: str,
    results: Sequence[jax.ShapeDtypeStruct],
    *,
    input_layouts: Sequence[Sequence[int]] | None = None,
    output_layouts: Sequence[Sequence[int]] | None = None,
) -> Callable[..., Any]:
    """``jax.ffi.ffi_call``, which also takes ``Lowered`` operands and then skips the tracing."""

    def write(*operands: Lowered, **attributes: Any) -> list[Lowered]:
        avals = [ShapedArray(result.shape, result.dtype) for result in results]
        ctx = operands[0].ctx.replace(avals_in=[operand.aval for operand in operands], avals_out=avals)
        # Here JAX wants layouts minor to major, as XLA has them.
        rule = jax.ffi.ffi_lowering(
            target,
            operand_layouts=input_layouts and [layout[::-1] for layout in input_layouts],
            result_layouts=output_layouts and [layout[::-1] for layout in output_layouts],
        )
        with named(ir.Location.current, _call_name(target)):
            values = rule(ctx, *(operand.value for operand in operands), **attributes)
        return [Lowered(ctx, value, aval) for value, aval in zip(values, avals, strict=True)]

    def call(*operands: Any, **attributes: Any) -> Any:
        if isinstance(operands[0], Lowered):
            return write(*operands, **attributes)
        of_arrays = jax.ffi.ffi_call(
            target, results, input_layouts=input_layouts, output_layouts=output_layouts
        )
        return of_arrays(*operands, **attributes)

    return call
