"""The border to native code: attributes, layouts, workspace; targets.py registers what is called.

The one place that says ``ffi_call``. Kernels know one physical layout (channels last); a user's order of
dimensions is kept by telling XLA the layout of each operand and result, which then stores the array that way
from the start where it can, instead of transposing it here.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.core import ShapedArray
from jax.interpreters.mlir import ir
from jax.typing import DTypeLike

from jax_convgrad.geometry import Axis, ConvGeometry
from jax_convgrad.primitives.number_types import Precision, allows_tf32
from jax_convgrad.primitives.targets import Backend, backends, register

__all__ = ["Backend", "backends", "register"]  # whoever calls the kernels asks here for what they are


class Dims(NamedTuple):
    """Which logical dimension plays which part.

    In x and y (batch, channel, spatial...), in w (out, in, spatial...).
    The same numbers as ``jax.lax.ConvDimensionNumbers``.
    """

    x: tuple[int, ...]
    w: tuple[int, ...]
    y: tuple[int, ...]


def _int64(values: Sequence[int]) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def _activation_layout(spec: tuple[int, ...]) -> tuple[int, ...]:
    """[N, spatial..., C], major to minor, of a (batch, channel, spatial...) spec."""
    return (spec[0], *spec[2:], spec[1])


def _filter_layout(spec: tuple[int, ...]) -> tuple[int, ...]:
    """[spatial..., C/groups, K], major to minor, of an (out, in, spatial...) spec."""
    return (*spec[2:], spec[1], spec[0])


def _steps(axes: Sequence[Axis]) -> dict[str, np.ndarray]:
    return {
        "stride": _int64([axis.stride for axis in axes]),
        "pad_lo": _int64([axis.pad_lo for axis in axes]),
        "filter_dilation": _int64([axis.filter_dilation for axis in axes]),
    }


# A large net has many layers of few kinds.
@functools.lru_cache(4096)
def _conv_attributes(
    backend: Backend, geometry: ConvGeometry, dims: Dims, precision: Precision
) -> dict[str, Any]:
    return {
        **_steps(geometry.axes),
        "input_dilation": _int64([axis.input_dilation for axis in geometry.axes]),
        "groups": np.int64(geometry.groups),
        "x_spec": _int64(dims.x),
        "w_spec": _int64(dims.w),
        "y_spec": _int64(dims.y),
        "kernel": backend.kernel,
        "tf32": allows_tf32(precision),  # which CPU kernels have no use for
    }


def _result(shape: Sequence[int], dtype: DTypeLike) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(tuple(shape), dtype)


@dataclass(frozen=True)
class Lowered:
    """An operand or a result of a call that is written straight into the program that is being lowered.

    It stands where an array would, as far as the functions below look at one.
    """

    ctx: Any
    value: Any
    aval: Any

    @property
    def shape(self) -> tuple[int, ...]:
        """Known sizes only."""
        return self.aval.shape

    @property
    def dtype(self) -> Any:
        """NumPy's."""
        return self.aval.dtype

    @property
    def ndim(self) -> int:
        """Its number of dimensions."""
        return len(self.aval.shape)


def named(location: Any, name: str) -> Any:
    """The location of an operation, which profiles and HLO metadata show, with the name in place of JAX's.

    That is that of a primitive, twice: the second time behind the scopes that it stands in.
    """
    # Where all locations are of one type, those without a name crash when they are asked for it.
    is_a_name = getattr(location, "is_a_name", lambda: hasattr(location, "name_str"))
    if not is_a_name():
        return location
    *scopes, last = location.name_str.split("/")
    full = "/".join((*scopes, f"{name}:" if last.endswith(":") else name))
    return ir.Location.name(full, childLoc=named(location.child_loc, name))


class Written(NamedTuple):
    """A call that stands in a program, without its operands: what it takes to write it into that once more.

    A net has many layers of few kinds, and a call's attributes take most of the time that lowering it takes.
    """

    name: str
    types: Sequence[Any]
    attributes: dict[str, Any]
    places: Sequence[int]
    """Which of its results are wanted."""

    def again(self, operands: Sequence[Any]) -> list[Any]:
        """The results that are wanted of the same call of other operands, of the same types."""
        with named(ir.Location.current, self.name):
            call = ir.Operation.create(
                "stablehlo.custom_call", results=self.types, operands=operands, attributes=self.attributes
            )
        return [call.results[place] for place in self.places]


def written(name: str, results: Sequence[Any], operands: Sequence[Any]) -> Written | None:
    """The call that the results are results of, where it is one and of these operands; ``name`` is its op."""
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


def _ffi_call(
    target: str,
    results: Sequence[jax.ShapeDtypeStruct],
    *,
    input_layouts: Sequence[Sequence[int]] | None = None,
    output_layouts: Sequence[Sequence[int]] | None = None,
) -> Callable[..., Any]:
    """``jax.ffi.ffi_call``, and the same of ``Lowered`` operands without tracing it first."""

    def write(*operands: Lowered, **attributes: Any) -> list[Lowered]:
        avals = [ShapedArray(result.shape, result.dtype) for result in results]
        ctx = operands[0].ctx.replace(avals_in=[operand.aval for operand in operands], avals_out=avals)
        # Minor to major there, as XLA has them.
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


@functools.lru_cache(4096)
def _workspace(
    backend: Backend,
    op: str,
    x: tuple[int, ...],
    y: tuple[int, ...],
    dtype: np.dtype,
    geometry: ConvGeometry,
    dims: Dims,
    precision: Precision,
) -> jax.ShapeDtypeStruct:
    """A second result for the kernel to work in, so that XLA owns and counts it. x and y are shapes."""
    axes = [
        (a.input, a.taps, a.output, a.stride, a.pad_lo, a.input_dilation, a.filter_dilation)
        for a in geometry.axes
    ]
    size = backend.module.conv_workspace_bytes(
        op=op,
        kernel=backend.kernel,
        dtype=dtype.name,
        batch=x[dims.x[0]],
        in_channels=x[dims.x[1]],
        out_channels=y[dims.y[1]],
        groups=geometry.groups,
        axes=axes,
        tf32=allows_tf32(precision),
    )
    return _result((size,), np.uint8)


def fprop(
    platform: str,
    x: jax.Array,
    w: jax.Array,
    shape: tuple[int, ...],
    geometry: ConvGeometry,
    dims: Dims,
    precision: Precision,
    *bias: jax.Array,
    relu: bool = False,
    result_dtype: np.dtype | None = None,
) -> jax.Array:
    """y of the given shape, with a bias added where one is given, and cut off at 0 where ``relu``."""
    backend = backends[platform]
    # The workspace is the filter's alone, so that the batch may be a symbol in an exported program.
    one = tuple(1 if d == dims.x[0] else size for d, size in enumerate(x.shape))
    call = _ffi_call(
        backend.prefix + "fprop",
        (
            _result(shape, result_dtype or x.dtype),
            _workspace(backend, "fprop", one, shape, x.dtype, geometry, dims, precision),
        ),
        input_layouts=[_activation_layout(dims.x), _filter_layout(dims.w), *((0,) for _ in bias)],
        output_layouts=[_activation_layout(dims.y), (0,)],
    )
    return call(x, w, *bias, **_conv_attributes(backend, geometry, dims, precision), relu=relu)[0]


def dgrad(
    platform: str,
    dy: jax.Array,
    w: jax.Array,
    shape: tuple[int, ...],
    geometry: ConvGeometry,
    dims: Dims,
    precision: Precision,
    result_dtype: np.dtype | None = None,
) -> jax.Array:
    """dx of the given shape."""
    backend = backends[platform]
    one = tuple(1 if d == dims.x[0] else size for d, size in enumerate(shape))
    call = _ffi_call(
        backend.prefix + "dgrad",
        (
            _result(shape, result_dtype or dy.dtype),
            _workspace(backend, "dgrad", one, dy.shape, dy.dtype, geometry, dims, precision),
        ),
        input_layouts=[_activation_layout(dims.y), _filter_layout(dims.w)],
        output_layouts=[_activation_layout(dims.x), (0,)],
    )
    return call(dy, w, **_conv_attributes(backend, geometry, dims, precision))[0]


def wgrad(
    platform: str,
    x: jax.Array,
    dy: jax.Array,
    shape: tuple[int, ...],
    geometry: ConvGeometry,
    dims: Dims,
    precision: Precision,
    result_dtype: np.dtype | None = None,
) -> jax.Array:
    """dw of the given shape."""
    backend = backends[platform]
    call = _ffi_call(
        backend.prefix + "wgrad",
        (
            _result(shape, result_dtype or x.dtype),
            _workspace(backend, "wgrad", x.shape, dy.shape, x.dtype, geometry, dims, precision),
        ),
        input_layouts=[_activation_layout(dims.x), _activation_layout(dims.y)],
        output_layouts=[_filter_layout(dims.w), (0,)],
    )
    return call(x, dy, **_conv_attributes(backend, geometry, dims, precision))[0]


def sums_filter_and_bias(platform: str) -> bool:
    """Whether the platform's kernels have ``wgrad_bgrad``."""
    return "wgrad_bgrad" in backends[platform].module.registrations()


def wgrad_bgrad(
    platform: str,
    x: jax.Array,
    dy: jax.Array,
    shape: tuple[int, ...],
    geometry: ConvGeometry,
    dims: Dims,
    precision: Precision,
) -> tuple[jax.Array, jax.Array]:
    """dw of the given shape and db, from one pass over dy where the kernel can."""
    backend = backends[platform]
    workspace = _workspace(backend, "wgrad_bgrad", x.shape, dy.shape, x.dtype, geometry, dims, precision)
    call = _ffi_call(
        backend.prefix + "wgrad_bgrad",
        (_result(shape, x.dtype), _result((dy.shape[dims.y[1]],), dy.dtype), workspace),
        input_layouts=[_activation_layout(dims.x), _activation_layout(dims.y)],
        output_layouts=[_filter_layout(dims.w), (0,), (0,)],
    )
    dw, db, _ = call(x, dy, **_conv_attributes(backend, geometry, dims, precision))
    return dw, db


def bgrad(platform: str, dy: jax.Array, channel_axis: int) -> jax.Array:
    """db, one entry a channel."""
    backend = backends[platform]
    channels = dy.shape[channel_axis]
    rows = int(np.prod([size for axis, size in enumerate(dy.shape) if axis != channel_axis], dtype=np.int64))
    workspace = backend.module.bgrad_workspace_bytes(dtype=dy.dtype.name, rows=rows, channels=channels)
    others = tuple(axis for axis in range(dy.ndim) if axis != channel_axis)
    call = _ffi_call(
        backend.prefix + "bgrad",
        (_result((channels,), dy.dtype), _result((workspace,), np.uint8)),
        input_layouts=[(*others, channel_axis)],
        output_layouts=[(0,), (0,)],
    )
    return call(dy, channel_axis=np.int64(channel_axis), kernel=backend.kernel)[0]


def pool(
    platform: str,
    op: str,
    operands: Sequence[jax.Array],
    results: Sequence[tuple[tuple[int, ...], DTypeLike]],
    axes: Sequence[Axis],
    dimensions: tuple[int, ...],
    count_include_pad: bool = True,
    **attributes: bool | str,
) -> Sequence[jax.Array]:
    """One of the pooling targets; ``results`` are shapes and dtypes.

    ``dimensions`` are those of all arrays: (batch, channel, spatial...).
    """
    backend = backends[platform]
    layout = _activation_layout(dimensions)
    call = _ffi_call(
        backend.prefix + op,
        [_result(shape, dtype) for shape, dtype in results],
        input_layouts=[layout for _ in operands],
        output_layouts=[layout for _ in results],
    )
    return call(
        *operands,
        spec=_int64(dimensions),
        window=_int64([axis.taps for axis in axes]),
        count_include_pad=count_include_pad,
        **_steps(axes),
        kernel=backend.kernel,
        **attributes,
    )
