"""The border to native code: targets registered per platform, attributes, layouts, workspace.

The one place that says ``ffi_call``. Kernels know one physical layout (channels last); a user's order of
dimensions is kept by telling XLA the layout of each operand and result, which then stores the array that way
from the start where it can, instead of transposing it here.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jaxlib
import numpy as np
from jax.core import ShapedArray
from jax.typing import DTypeLike

from jax_convgrad.arguments import Precision, allows_tf32
from jax_convgrad.geometry import Axis, ConvGeometry
from jax_convgrad.source_folder import OWN_FOLDER, installed_elsewhere
from jax_convgrad.versions import LOWEST_JAX, numbers, text


@dataclass(frozen=True)
class Backend:
    """A native module, the prefix of its target names, and which of its kernels a call asks for.

    ``kernel`` is "auto" (the plan's choice) or a kernel's name, for tests and measurements.
    """

    module: Any
    prefix: str = "jax_convgrad_"
    kernel: str = "auto"


class Dims(NamedTuple):
    """Which logical dimension plays which part.

    In x and y (batch, channel, spatial...), in w (out, in, spatial...).
    The same numbers as ``jax.lax.ConvDimensionNumbers``.
    """

    x: tuple[int, ...]
    w: tuple[int, ...]
    y: tuple[int, ...]


backends: dict[str, Backend] = {}
"""Platform, in JAX's name for lowering ("cpu", "cuda"), to the kernels that serve it."""


def register(backend: Backend, platform: str) -> None:
    """Registers every target of ``backend`` with XLA, for "cpu" or "CUDA"."""
    for name, handler in backend.module.registrations().items():
        jax.ffi.register_ffi_target(backend.prefix + name, handler, platform=platform)


def _cuda_module() -> ModuleType | None:
    """The CUDA kernels, or None in a package that was built without them."""
    try:
        return importlib.import_module("jax_convgrad._cuda")
    except ModuleNotFoundError as error:
        if error.name != "jax_convgrad._cuda":
            raise
        return None


def _register_modules() -> None:
    if numbers(jaxlib.__version__) < LOWEST_JAX:
        # An older FFI would not refuse these handlers but take the whole backend down with them.
        raise ImportError(
            f"jax_convgrad needs jaxlib >= {text(LOWEST_JAX)}, but jaxlib is {jaxlib.__version__}"
        )
    try:
        backends["cpu"] = Backend(importlib.import_module("jax_convgrad._cpu"))
    except ModuleNotFoundError as error:
        if error.name != "jax_convgrad._cpu":
            raise
        elsewhere = installed_elsewhere()
        found_before = f", and was found before the installed {elsewhere}" if elsewhere else ""
        raise ImportError(
            f"{OWN_FOLDER} is jax_convgrad's source folder, in which nothing is built{found_before}. "
            + ("" if elsewhere else "Install the package (pip install .), and ")
            + "run Python in another folder, or with the option -P."
        ) from None
    register(backends["cpu"], "cpu")
    cuda = _cuda_module()
    if cuda is not None:
        backends["cuda"] = Backend(cuda)
        register(backends["cuda"], "CUDA")


_register_modules()


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


def _ffi_call(
    target: str,
    results: Sequence[jax.ShapeDtypeStruct],
    *,
    input_layouts: Sequence[Sequence[int]] | None = None,
    output_layouts: Sequence[Sequence[int]] | None = None,
) -> Callable[..., Any]:
    """``jax.ffi.ffi_call``, and the same of ``Lowered`` operands without tracing it first."""

    def written(*operands: Lowered, **attributes: Any) -> list[Lowered]:
        avals = [ShapedArray(result.shape, result.dtype) for result in results]
        ctx = operands[0].ctx.replace(avals_in=[operand.aval for operand in operands], avals_out=avals)
        # Minor to major there, as XLA has them.
        rule = jax.ffi.ffi_lowering(
            target,
            operand_layouts=input_layouts and [layout[::-1] for layout in input_layouts],
            result_layouts=output_layouts and [layout[::-1] for layout in output_layouts],
        )
        values = rule(ctx, *(operand.value for operand in operands), **attributes)
        return [Lowered(ctx, value, aval) for value, aval in zip(values, avals, strict=True)]

    def call(*operands: Any, **attributes: Any) -> Any:
        if isinstance(operands[0], Lowered):
            return written(*operands, **attributes)
        of_arrays = jax.ffi.ffi_call(
            target, results, input_layouts=input_layouts, output_layouts=output_layouts
        )
        return of_arrays(*operands, **attributes)

    return call


def _require_known(*shapes: tuple[int, ...]) -> None:
    """Workspace is sized when a program is lowered, so sizes must be numbers by then."""
    for shape in shapes:
        if not all(isinstance(size, int) for size in shape):
            raise ValueError(
                f"jax_convgrad's kernels need known sizes, but a shape is {shape}: export with numbers in "
                "place of symbols (a forward pass may have one for its batch)"
            )


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
    _require_known(one, w.shape)
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
    _require_known(one, w.shape)
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
    _require_known(x.shape, dy.shape)
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
    _require_known(x.shape, dy.shape)
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
    _require_known(dy.shape)
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
    count_include_pad: bool = True,
) -> Sequence[jax.Array]:
    """One of the pooling targets, over arrays [N, spatial..., C]; ``results`` are shapes and dtypes."""
    backend = backends[platform]
    call = _ffi_call(backend.prefix + op, [_result(shape, dtype) for shape, dtype in results])
    return call(
        *operands,
        window=_int64([axis.taps for axis in axes]),
        count_include_pad=count_include_pad,
        **_steps(axes),
        kernel=backend.kernel,
    )
