"""The FFI targets, called directly, refuse invalid attributes and buffers with INVALID_ARGUMENT."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from backends import BACKENDS, PLATFORM, cuda_backend

from jax_convgrad.primitives import targets


def int64(*values):
    return np.array(values, np.int64)


F32, F64, I32, U8 = (np.dtype(name) for name in ("float32", "float64", "int32", "uint8"))
X, W, Y = (2, 5, 6, 4), (3, 3, 2, 6), (2, 3, 2, 6)
ROWS, WORKSPACE = 4096, 1 << 16  # enough rows to split the sum and use the workspace

CONV = {
    "stride": int64(2, 3),
    "pad_lo": int64(1, 0),
    "input_dilation": int64(1, 1),
    "filter_dilation": int64(1, 1),
    "groups": np.int64(2),
    "x_spec": int64(0, 3, 1, 2),
    "w_spec": int64(3, 2, 0, 1),
    "y_spec": int64(0, 3, 1, 2),
    "kernel": "auto",
    "below_highest": False,
}
FPROP = CONV | {"relu": False}
BIAS = {"channel_axis": np.int64(1), "kernel": "auto"}
POOL = {
    "window": int64(3, 2),
    "stride": int64(2, 3),
    "pad_lo": int64(1, 0),
    "filter_dilation": int64(1, 1),
    "count_include_pad": True,
    "spec": int64(0, 3, 1, 2),
    "kernel": "auto",
}
ARGMAX = POOL | {"position_rule": "first_maximum"}
AVG_POOL = POOL | {"sum": False}
POOLED = (2, 3, 2, 4)

# target: operands, results, attributes, all of them valid
CALLS = {
    "fprop": ([(X, F32), (W, F32)], [(Y, F32), ((WORKSPACE,), U8)], FPROP),
    "dgrad": ([(Y, F32), (W, F32)], [(X, F32), ((WORKSPACE,), U8)], CONV),
    "wgrad": ([(X, F32), (Y, F32)], [(W, F32), ((WORKSPACE,), U8)], CONV),
    "bgrad": ([((ROWS, 6), F32)], [((6,), F32), ((WORKSPACE,), U8)], BIAS),
    "max_pool": ([(X, F32)], [(POOLED, F32)], POOL),
    "max_pool_argmax": ([(X, F32)], [(POOLED, F32), (POOLED, I32)], ARGMAX),
    "max_pool_grad": ([(POOLED, F32), (POOLED, I32)], [(X, F32)], POOL),
    "max_pool_select": ([(X, F32), (POOLED, I32)], [(POOLED, F32)], POOL),
    "avg_pool": ([(X, F32)], [(POOLED, F32)], AVG_POOL),
    "avg_pool_grad": ([(POOLED, F32)], [(X, F32)], AVG_POOL),
}


# The CPU computes the filter's and the bias's gradients in separate calls.
CUDA_ALONE = {
    "wgrad_bgrad": ([(X, F32), (Y, F32)], [(W, F32), ((6,), F32), ((WORKSPACE,), U8)], CONV),
}
# test_norm_handlers.py calls them.
CPU_ALONE = ("norm_moments", "normalize", "norm_sums", "norm_gradient")


def operand(shape, dtype):
    if dtype.kind == "i":
        return np.zeros(shape, dtype)
    return np.random.default_rng(len(shape)).standard_normal(shape).astype(dtype)


def call(target, operands, results, attributes):
    backend = targets.backends[PLATFORM]
    if attributes.get("kernel") == "auto":
        attributes = {**attributes, "kernel": backend.kernel}
    results = [jax.ShapeDtypeStruct(*result) for result in results]
    made = jax.ffi.ffi_call(backend.prefix + target, results)(*(operand(*o) for o in operands), **attributes)
    return [np.asarray(result) for result in made]


def exact(target, operands):
    """The expected results of the target, from the reference."""
    axes = [reference.Axis(5, 3, 2, 1, 1), reference.Axis(6, 3, 3)]
    pool = [reference.Axis(5, 3, 2, 1, 1), reference.Axis(6, 2, 3)]
    arrays = [operand(*o) for o in operands]
    if target in ("fprop", "dgrad", "wgrad"):
        return getattr(reference, target)(*arrays, axes, 2)
    if target == "max_pool_select":
        return np.broadcast_to(arrays[0][:, :1, :1], POOLED)
    if target == "max_pool_argmax":
        return reference.max_pool(arrays[0], pool)[0]
    if target == "max_pool":
        return reference.max_pool(arrays[0], pool)[0]
    if target == "max_pool_grad":
        # Only windows over position 0 contain it: a handler sums over the relation, not over all of dy.
        dx = np.zeros(X)
        dx[:, 0, 0] = arrays[0][:, 0, 0]
        return dx
    return getattr(reference, target)(*arrays, *([pool] if target != "bgrad" else []))


@pytest.mark.small_groups
@pytest.mark.parametrize("target", CALLS)
def test_the_calls_below_do_fit(backend, target):
    """The calls are valid, so that a row's change causes the refusal below."""
    operands, results, attributes = CALLS[target]
    actual = call(target, operands, results, attributes)[0]
    np.testing.assert_allclose(actual, exact(target, operands), rtol=1e-4, atol=1e-4)


@pytest.mark.small_groups
@pytest.mark.parametrize("relu", [False, True])
def test_a_bias_fits(backend, relu):
    operands, results, _ = CALLS["fprop"]
    b = ((6,), F32)
    actual = call("fprop", [*operands, b], results, FPROP | {"relu": relu})[0]
    z = exact("fprop", operands) + operand(*b)
    np.testing.assert_allclose(actual, np.maximum(z, 0) if relu else z, rtol=1e-4, atol=1e-4)


def test_every_target_is_called(backend):
    expected = {*CALLS, *(CPU_ALONE if backend == "cpu" else CUDA_ALONE)}
    assert set(targets.backends[PLATFORM].module.registrations()) == expected


def changed(target, *, operands=(), results=(), attributes=(), drop=()):
    old_operands, old_results, old_attributes = CALLS[target]
    new_operands, new_results = list(old_operands), list(old_results)
    for at, value in dict(operands).items():
        new_operands[at] = value
    for at, value in dict(results).items():
        new_results[at] = value
    new_attributes = {k: v for k, v in {**old_attributes, **dict(attributes)}.items() if k not in drop}
    return target, new_operands, new_results, new_attributes


def conv_rows():
    # XLA packs two of these into a byte.
    yield "workspace of int4", changed("bgrad", results={1: ((WORKSPACE,), jnp.int4)})
    yield "workspace of float32", changed("bgrad", results={1: ((WORKSPACE,), F32)})
    wrong_attributes = {
        "stride": [int64(2), int64(2, 3, 1), int64(), int64(0, 1), int64(1, -1), int64(1, 2**62)],
        "pad_lo": [int64(1), int64(0, 0, 0), int64(2**62, 0), int64(-(2**63), 0)],
        "input_dilation": [int64(1), int64(0, 1), int64(1, -2), int64(2**31, 1)],
        "filter_dilation": [int64(1), int64(0, 1), int64(1, -2), int64(1, 2**40)],
        "below_highest": ["yes", np.int64(1)],
        "relu": ["yes", np.int64(1)],
        "groups": [np.int64(0), np.int64(-2), np.int64(3), np.int64(1), np.int64(4), "two"],
        "x_spec": [
            int64(0, 3, 1),
            int64(0, 3, 1, 1),
            int64(0, 3, 1, 4),
            int64(0, -1, 1, 2),
            int64(0, 1, 2, 3),
        ],
        "w_spec": [int64(3, 2, 0), int64(3, 3, 0, 1), int64(2, 3, 0, 1)],
        "y_spec": [int64(0, 3, 1, 2, 4), int64(0, 0, 1, 2), int64(1, 3, 0, 2), int64(0, 1, 2, 3)],
        "kernel": ["", "fastest", np.int64(0)],
    }
    for name, values in wrong_attributes.items():
        for value in values:
            yield f"{name}={value!r}", changed("fprop", attributes={name: value})
        yield f"no {name}", changed("fprop", drop=[name])
    yield "int32 stride", changed("fprop", attributes={"stride": np.array([2, 3], np.int32)})
    yield "x of rank 3", changed("fprop", operands={0: ((2, 5, 6), F32)})
    yield "all of rank 6", ("fprop", [((1,) * 6, F32)] * 2, [((1,) * 6, F32)], FPROP)
    yield "w of float64", changed("fprop", operands={1: (W, F64)})
    yield "y of float64", changed("fprop", results={0: (Y, F64)})
    yield "all of int32", ("fprop", [(X, I32), (W, I32)], [(Y, I32)], FPROP)
    yield "w's channels", changed("fprop", operands={1: ((3, 3, 3, 6), F32)})
    yield "y's channels", changed("fprop", results={0: ((2, 3, 2, 4), F32)})
    yield "y's batch", changed("fprop", results={0: ((1, 3, 2, 6), F32)})
    both = CALLS["fprop"][1]
    yield "no w", ("fprop", [(X, F32)], both, FPROP)
    for name, b in {
        "b's size": ((7,), F32),
        "b of a group": ((3,), F32),
        "b's rank": ((1, 6), F32),
        "b a scalar": ((), F32),
        "empty b": ((0,), F32),
        "b of float64": ((6,), F64),
        "b of int32": ((6,), I32),
    }.items():
        yield name, ("fprop", [(X, F32), (W, F32), b], both, FPROP)
    bias = ((6,), F32)
    yield "two biases", ("fprop", [(X, F32), (W, F32), bias, bias], both, FPROP)
    yield "dgrad with a bias", ("dgrad", [(Y, F32), (W, F32), ((4,), F32)], [(X, F32), both[1]], CONV)
    yield "one result", ("fprop", [(X, F32), (W, F32)], [(Y, F32)], FPROP)
    yield "workspace of y's dtype", ("fprop", [(X, F32), (W, F32)], [(Y, F32), (Y, F32)], FPROP)

    yield "dx's batch", changed("dgrad", results={0: ((3, 5, 6, 4), F32)})
    yield "dx's channels", changed("dgrad", results={0: ((2, 5, 6, 6), F32)})
    yield "dgrad groups", changed("dgrad", attributes={"groups": np.int64(3)})
    yield "dgrad stride", changed("dgrad", attributes={"stride": int64(0, 3)})
    yield "dw's channels", changed("wgrad", results={0: ((3, 3, 4, 6), F32)})
    yield "dw's features", changed("wgrad", results={0: ((3, 3, 2, 4), F32)})
    yield "dy's batch", changed("wgrad", operands={1: ((1, 3, 2, 6), F32)})
    yield "wgrad dilation", changed("wgrad", attributes={"filter_dilation": int64(1, 0)})
    yield "wgrad without workspace", ("wgrad", *CALLS["wgrad"][:1], [(W, F32)], CONV)


def other_rows():
    yield "channel_axis past rank", changed("bgrad", attributes={"channel_axis": np.int64(2)})
    yield "channel_axis below 0", changed("bgrad", attributes={"channel_axis": np.int64(-1)})
    yield "channel_axis of rows", changed("bgrad", attributes={"channel_axis": np.int64(0)})
    yield "no channel_axis", changed("bgrad", drop=["channel_axis"])
    yield "db's size", changed("bgrad", results={0: ((7,), F32)})
    yield "db's rank", changed("bgrad", results={0: ((6, 1), F32)})
    yield "db of float64", changed("bgrad", results={0: ((6,), F64)})
    yield "bgrad of int32", changed("bgrad", operands={0: ((ROWS, 6), I32)}, results={0: ((6,), I32)})
    yield "small workspace", changed("bgrad", results={1: ((1,), U8)})
    yield "no workspace", changed("bgrad", results={1: ((0,), U8)})
    # XLA packs two of these into a byte.
    yield "workspace of int4", changed("bgrad", results={1: ((WORKSPACE,), jnp.int4)})
    yield "workspace of float32", changed("bgrad", results={1: ((WORKSPACE,), F32)})
    wrong_attributes = {
        "window": [int64(3), int64(3, 2, 1), int64(0, 2), int64(3, -1), int64(2**40, 1), int64(2**20, 2**20)],
        "stride": [int64(2), int64(0, 3), int64(2, -3)],
        "pad_lo": [int64(), int64(1, 2**62)],
        "filter_dilation": [int64(1), int64(1, 0)],
        "count_include_pad": ["yes"],
        "spec": [
            int64(0, 3, 1),
            int64(0, 3, 1, 1),
            int64(0, 3, 1, 4),
            int64(0, -1, 1, 2),
            int64(0, 1, 2, 3),
        ],
    }
    for name, values in wrong_attributes.items():
        for value in values:
            for target in ("max_pool", "avg_pool_grad"):
                yield f"{target} {name}={value!r}", changed(target, attributes={name: value})
        yield f"no {name}", changed("avg_pool", drop=[name])
    for rule in ("select", "", 1):
        yield f"position_rule={rule!r}", changed("max_pool_argmax", attributes={"position_rule": rule})
    yield "no position_rule", changed("max_pool_argmax", drop=["position_rule"])
    yield "sum='no'", changed("avg_pool", attributes={"sum": "no"})
    yield "no sum", changed("avg_pool_grad", drop=["sum"])
    for target in ("max_pool", "avg_pool"):
        yield f"{target}: y's batch", changed(target, results={0: ((1, 3, 2, 4), F32)})
        yield f"{target}: y's channels", changed(target, results={0: ((2, 3, 2, 5), F32)})
        yield f"{target}: y's rank", changed(target, results={0: ((2, 3, 8), F32)})
        yield f"{target}: y of float64", changed(target, results={0: (POOLED, F64)})
        yield f"{target}: int32", (target, [(X, I32)], [(POOLED, I32)], POOL)
    yield "argmax: int64 position", changed("max_pool_argmax", results={1: (POOLED, np.dtype("int64"))})
    yield "argmax: position's shape", changed("max_pool_argmax", results={1: ((2, 3, 1, 4), I32)})
    yield "argmax: position's batch", changed("max_pool_argmax", results={1: ((1, 3, 2, 4), I32)})
    yield "argmax without position", ("max_pool_argmax", [(X, F32)], [(POOLED, F32)], ARGMAX)
    for target in ("max_pool_grad", "max_pool_select"):
        yield f"{target}: float position", changed(target, operands={1: (POOLED, F32)})
        yield f"{target}: position's shape", changed(target, operands={1: ((2, 2, 3, 4), I32)})
        yield f"{target}: position's rank", changed(target, operands={1: ((2, 6, 4), I32)})
        yield f"{target}: position a scalar", changed(target, operands={1: ((), I32)})
        yield f"{target}: position's batch", changed(target, operands={1: ((3, 3, 2, 4), I32)})
        yield f"{target}: no positions", changed(target, operands={1: ((0, 3, 2, 4), I32)})
    yield "max_pool_grad: dx's channels", changed("max_pool_grad", results={0: ((2, 5, 6, 3), F32)})
    yield "max_pool_grad: dy's batch", changed("max_pool_grad", operands={0: ((3, 3, 2, 4), F32)})
    yield "max_pool_select: t's batch", changed("max_pool_select", operands={0: ((3, 5, 6, 4), F32)})


@pytest.mark.parametrize(
    "row", [pytest.param(row, id=f"{row[0]}: {name}") for name, row in [*conv_rows(), *other_rows()]]
)
def test_refused(backend, row):
    with pytest.raises(jax.errors.JaxRuntimeError, match="INVALID_ARGUMENT"):
        call(*row)


def both_rows():
    operands, (dw, db, workspace), _ = CUDA_ALONE["wgrad_bgrad"]
    yield "no db", (operands, [dw, workspace], CONV)
    yield "db's size", (operands, [dw, ((7,), F32), workspace], CONV)
    yield "db's rank", (operands, [dw, ((6, 1), F32), workspace], CONV)
    yield "db of float64", (operands, [dw, ((6,), F64), workspace], CONV)
    yield "dw's features", (operands, [((3, 3, 2, 4), F32), db, workspace], CONV)
    yield "dy's batch", ([operands[0], ((1, *Y[1:]), F32)], [dw, db, workspace], CONV)
    yield "workspace of float32", (operands, [dw, db, ((WORKSPACE,), F32)], CONV)
    yield (
        "no below_highest",
        (operands, [dw, db, workspace], {k: v for k, v in CONV.items() if k != "below_highest"}),
    )


on_cuda = pytest.mark.parametrize("backend", [b for b in BACKENDS if b != "cpu"], indirect=True)


@on_cuda
@pytest.mark.small_groups
def test_filter_and_bias_fit(backend):
    dw, db, _ = call("wgrad_bgrad", *CUDA_ALONE["wgrad_bgrad"])
    operands = CUDA_ALONE["wgrad_bgrad"][0]
    np.testing.assert_allclose(dw, exact("wgrad", operands), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(db, operand(*operands[1]).sum((0, 1, 2)), rtol=1e-4, atol=1e-4)


@on_cuda
@pytest.mark.parametrize("row", [pytest.param(row, id=name) for name, row in both_rows()])
def test_filter_and_bias_refused(backend, row):
    with pytest.raises(jax.errors.JaxRuntimeError, match="INVALID_ARGUMENT"):
        call("wgrad_bgrad", *row)


@on_cuda
def test_a_filter_of_nothing_has_a_bias(backend):
    """Without input channels dw is empty, and db is still written."""
    operands = [((*X[:3], 0), F32), (Y, F32)]
    results = [((3, 3, 0, 6), F32), *CUDA_ALONE["wgrad_bgrad"][1][1:]]
    _, db, _ = call("wgrad_bgrad", operands, results, CONV)
    np.testing.assert_allclose(db, operand(Y, F32).sum((0, 1, 2)), rtol=1e-4, atol=1e-4)


@pytest.mark.small_groups
@pytest.mark.parametrize("without", ["batch", "height"])
def test_sums_of_nothing_are_zeros(backend, without):
    """The handlers write zeros even for calls that Python never makes."""
    d = ("batch", "height").index(without)
    x, dy = ([0 if axis == d else size for axis, size in enumerate(shape)] for shape in (X, Y))
    results = [(W, F32), ((WORKSPACE,), U8)]
    dw, _ = call("wgrad", [(tuple(x), F32), (tuple(dy), F32)], results, CONV)
    np.testing.assert_array_equal(dw, np.zeros(W))


def test_positions_out_of_range_select_nothing(backend):
    """Positions are the content of a buffer, not its shape: the kernel checks them when it uses them."""
    t, position = operand(X, F32), np.resize(np.array([3, 30, -7, 2**31 - 1, -(2**31), 29], np.int32), POOLED)
    made = jax.ffi.ffi_call(
        targets.backends[PLATFORM].prefix + "max_pool_select", jax.ShapeDtypeStruct(POOLED, F32)
    )(t, position, **POOL)
    inside = (position >= 0) & (position < 30)
    at = np.where(inside, position, 0).reshape(2, 6, 4)
    expected = np.take_along_axis(t.reshape(2, 30, 4), at, axis=1).reshape(POOLED) * inside
    np.testing.assert_array_equal(made, expected)


def test_small_wgrad_workspace_is_refused(backend):
    """A workspace of one byte less than the plan's is refused, if the plan needs any."""
    chosen = targets.backends[PLATFORM]
    axes = [(64, 1, 64, 1, 0, 1, 1), (64, 1, 64, 1, 0, 1, 1)]
    needed = chosen.module.conv_workspace_bytes(
        op="wgrad",
        kernel=chosen.kernel,
        dtype="float32",
        batch=1,
        in_channels=1,
        out_channels=1,
        groups=1,
        axes=axes,
    )
    x = ((1, 64, 64, 1), F32)
    attributes = CONV | {"stride": int64(1, 1), "pad_lo": int64(0, 0), "groups": np.int64(1)}
    dw = ((1, 1, 1, 1), F32)
    fits = call("wgrad", [x, x], [dw, ((needed,), U8)], attributes)[0]
    np.testing.assert_allclose(fits.item(), np.sum(operand(*x).astype(np.float64) ** 2), rtol=1e-5)
    if needed == 0:
        assert backend != cuda_backend("tiled"), "one tile over 4096 positions is to be split"
        return
    with pytest.raises(jax.errors.JaxRuntimeError, match="INVALID_ARGUMENT"):
        call("wgrad", [x, x], [dw, ((needed - 1,), U8)], attributes)


def test_refused_inside_a_program(backend):
    """The error reaches the caller from inside jit, and the process continues."""
    target, operands, results, attributes = changed("fprop", attributes={"groups": np.int64(3)})

    @jax.jit
    def f(x, w):
        made = jax.ffi.ffi_call(
            targets.backends[PLATFORM].prefix + target, [jax.ShapeDtypeStruct(*r) for r in results]
        )
        return jnp.sum(made(x, w, **attributes)[0])

    with pytest.raises(jax.errors.JaxRuntimeError, match="INVALID_ARGUMENT"):
        f(*(operand(*o) for o in operands)).block_until_ready()
    test_the_calls_below_do_fit(backend, "fprop")
