"""dw and db from one pass over dy: the float64 sums, only the results that are used, every transformation."""

import functools
import re

import conv_cases
import gemm_cases
import jax
import jax.numpy as jnp
import meshes
import numpy as np
import pytest
import reference
from backends import PLATFORM, cuda_backend
from biased_layer import HIGHEST, B, W, X, by_lax, close, layer, mapped, of_all
from cpu_by_name import spec_of
from emulated_counters import counting
from lax_answers import exact_conv
from sharded_layers import LAYERS, compiled, specs
from tolerance import assert_within, sum_bound
from vmap_loop import loop

import jax_convgrad as jc
from jax_convgrad.primitives import contractions, targets
from jax_convgrad.primitives.filter_and_bias import wgrad_bgrad

DTYPES = ("float32", "float64", "bfloat16", "float16")
FEW = tuple(case for case in conv_cases.FEW if case.batch_groups == 1)
CUDA = [cuda_backend(kernel) for kernel in ("gemm", "tiled", "reference")]
on_cuda = pytest.mark.parametrize("backend", CUDA, indirect=True)
on_gemm = pytest.mark.parametrize("backend", [cuda_backend("gemm")], indirect=True)


def check(case, dtypes, precision=HIGHEST):

    @jax.jit
    def run(arrays):
        return {dtype: wgrad_bgrad(x, dy, spec_of(case, precision)) for dtype, (x, dy) in arrays.items()}

    arrays = {dtype: case.arrays(dtype)[::2] for dtype in dtypes}
    for dtype, (dw, db) in run(arrays).items():
        assert dw.dtype == dtype and db.dtype == dtype
        exact, magnitude = (sums["dw"] for sums in exact_conv(case, dtype))
        if precision is HIGHEST:
            assert_within(
                dw, exact, sum_bound(dtype, case.sum_lengths["dw"], magnitude, exact), f"dw {dtype}"
            )
        rows = np.asarray(arrays[dtype][1], np.float64).transpose(case.to_canonical[2])
        exact, magnitude = reference.bgrad(rows), reference.bgrad(np.abs(rows))
        bound = sum_bound(dtype, rows.size // max(len(exact), 1), magnitude, exact)
        assert_within(db, exact, bound, f"db {dtype}")


@pytest.mark.parametrize("case", FEW, ids=lambda case: case.name)
def test_sums(backend, case):
    check(case, DTYPES)


# More positions than one part of the sum, several tiles of channels, and tails of both.
IN_PARTS = (
    conv_cases.ConvCase("parts", (2, 40, 33, 8), (2, 1, 8, 72), 1, "SAME", order=conv_cases.NHWC),
    conv_cases.ConvCase("parts of groups", (3, 40, 33, 16), (1, 2, 8, 48), 1, "SAME", groups=2,
                        order=conv_cases.NHWC),
    conv_cases.ConvCase("parts of odd channels", (2, 40, 33, 3), (1, 1, 3, 67), 1, order=conv_cases.NHWC),
)  # fmt: skip


@on_gemm
@pytest.mark.parametrize("case", (*gemm_cases.CASES, *IN_PARTS), ids=lambda case: case.name)
def test_gemm_tiles(backend, case):
    check(case, DTYPES if case not in IN_PARTS else ("float32", "bfloat16"))


@on_gemm
def test_parts_are_parts(backend):
    """The workspace contains partial sums of dw and of db, so the cases above test sums in parts."""
    for case in IN_PARTS:
        x_order, _, y_order = case.to_canonical
        sizes = {
            "batch": case.x[x_order[0]],
            "in_channels": case.x[x_order[-1]],
            "out_channels": case.y[y_order[-1]],
            "groups": case.groups,
            "axes": [(a.input, a.taps, a.output, a.stride, a.pad_lo, a.input_dilation, a.filter_dilation)
                     for a in case.axes],
        }  # fmt: skip
        asked = {"kernel": "gemm", "dtype": "float32", **sizes}
        module = targets.backends[PLATFORM].module
        alone = module.conv_workspace_bytes(op="wgrad", **asked)
        both = module.conv_workspace_bytes(op="wgrad_bgrad", **asked)
        parts = alone // (4 * np.prod(case.w))
        assert parts > 1
        assert both >= alone + parts * 4 * sizes["out_channels"]


@on_gemm
def test_tf32_leaves_the_bias_gradient_whole(backend):
    check(gemm_cases.DENSE, ["float32"], None)


@on_gemm
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_same_bits(backend, dtype):
    case = IN_PARTS[1]
    run = jax.jit(lambda x, dy: wgrad_bgrad(x, dy, spec_of(case, HIGHEST)))
    x, _, dy = case.arrays(dtype)
    for first, second in zip(run(x, dy), run(x, dy), strict=True):
        np.testing.assert_array_equal(first, second)


@on_gemm
@pytest.mark.emulator
def test_dy_is_read_once(backend):
    """db adds no copies and no loads to wgrad, and no bank conflicts."""
    case = gemm_cases.DENSE
    for dtype in DTYPES:
        x, _, dy = case.arrays(dtype)
        both = jax.jit(lambda x, dy: wgrad_bgrad(x, dy, spec_of(case, HIGHEST)))
        alone = jax.jit(lambda x, dy: contractions.wgrad(x, dy, spec_of(case, HIGHEST)))
        counts = []
        for run in (both, alone):
            jax.block_until_ready(run(x, dy))
            with counting() as counted:
                jax.block_until_ready(run(x, dy))
            counts.append({name: counted[name] for name in ("cp_async_global", "load_global", "load_shared")})
        with_bias, without = counts
        assert with_bias["cp_async_global"] == without["cp_async_global"]
        assert with_bias["load_global"] == without["load_global"]
        assert with_bias["load_shared"]["excess"] == 0


# ------------------------------------------------------------------------- only the results that are used


def targets_of(f, *args):
    text = jax.jit(f).lower(*args).as_text()
    return sorted(name.rpartition("emulated_")[2] for name in re.findall(r"@jax_convgrad_(\w+)\(", text))


def loss(x, w, b):
    return jnp.sum(jnp.sin(layer(x, w, b)))


@on_cuda
def test_one_call_or_the_one_that_is_wanted(backend):
    both, dw, db = (jax.grad(loss, of) for of in ((1, 2), 1, 2))
    assert targets_of(both, X, W, B) == ["fprop", "wgrad_bgrad"]
    assert targets_of(dw, X, W, B) == ["fprop", "wgrad"]
    assert targets_of(db, X, W, B) == ["bgrad", "fprop"]
    assert targets_of(jax.grad(loss), X, W, B) == ["dgrad", "fprop"]


@on_cuda
def test_wanted_within(backend):
    """Unused results are removed inside jit, scan, cond and checkpoint, also if computed and not returned."""

    def only_db(*args):
        return jax.grad(loss, (0, 1, 2))(*args)[2]

    wrapped = {
        "jit": jax.jit(only_db),
        "scan": lambda *args: jax.lax.scan(lambda c, _: (c + only_db(*args), None), jnp.zeros(6), length=2)[
            0
        ],
        "cond": lambda *args: jax.lax.cond(args[0][0, 0, 0, 0] > 0, only_db, lambda *_: jnp.zeros(6), *args),
        "checkpoint": lambda *args: jax.grad(jax.checkpoint(loss), 2)(*args),
        "vmap": lambda x, w, b: jax.vmap(only_db, (0, None, None))(x[:, None], w, b),
    }
    for name, f in wrapped.items():
        assert "wgrad" not in " ".join(targets_of(f, X, W, B)), name


def test_the_cpu_sums_apart():
    """The CPU gains nothing from one call, which XLA could not split again."""
    assert targets_of(jax.grad(loss, (1, 2)), X, W, B) == ["bgrad", "fprop", "wgrad"]


# --------------------------------------------------------------------------------------- transformations


@on_cuda
def test_no_input_channels(backend):
    """dw is empty, and db is still a sum."""
    x, w, b = np.ones((2, 5, 5, 0)), np.ones((3, 3, 0, 4)), np.zeros(4)
    dw, db = jax.jit(jax.grad(lambda w, b: jnp.sum(jc.conv(x, w, b)), (0, 1)))(w, b)
    assert dw.shape == w.shape
    np.testing.assert_array_equal(db, np.full(4, 18.0))


@on_cuda
def test_complex(backend):
    x, w, b = (a + 1j * np.cos(a) for a in (X, W, B))

    def f(by):
        return jax.grad(lambda w, b: jnp.sum(jnp.abs(by(x, w, b, None)) ** 2), (0, 1))

    close(jax.jit(f(layer))(w, b), jax.jit(f(by_lax))(w, b))


HIGHER = {
    "grad": lambda f: jax.grad(of_all(f), (0, 1, 2)),
    "forward over reverse": lambda f: (
        lambda *args: jax.jvp(jax.grad(of_all(f), (0, 1, 2)), args, tuple(jnp.cos(a) for a in args))
    ),
    "reverse over reverse": lambda f: jax.grad(
        lambda *args: sum(jnp.sum(a**3) for a in jax.grad(of_all(f), (0, 1, 2))(*args)), (0, 1, 2)
    ),
    "of dw alone": lambda f: jax.grad(
        lambda x, w, b: jnp.sum(jax.grad(of_all(f), 1)(x, w, b) ** 2), (0, 1, 2)
    ),
    "of db alone": lambda f: jax.grad(
        lambda x, w, b: jnp.sum(jax.grad(of_all(f), 2)(x, w, b) ** 2), (0, 1, 2)
    ),
    "hessian": lambda f: lambda x, w, b: jax.hessian(lambda b: of_all(f)(x, w, b))(b),
}


@on_cuda
@pytest.mark.parametrize("order", HIGHER)
def test_orders(backend, order):
    close(jax.jit(HIGHER[order](layer))(X, W, B), jax.jit(HIGHER[order](by_lax))(X, W, B))


@on_gemm
@pytest.mark.parametrize("of", ["dw", "db", "both"])
def test_transposed_backward_pass(backend, of):
    """The backward pass is linear in dy, and its transpose is the layer's own linear part."""
    y, ours = jax.vjp(lambda w, b: layer(X, w, b, None), W, B)
    _, laxs = jax.vjp(lambda w, b: by_lax(X, w, b, None), W, B)
    t = np.cos(W), np.sin(B)

    def transposed(vjp):
        def backward(dy):
            dw, db = vjp(dy)
            return {"dw": dw, "db": db, "both": (dw, db)}[of]

        return jax.linear_transpose(backward, y)({"dw": t[0], "db": t[1], "both": t}[of])

    close(transposed(ours), transposed(laxs))


@on_gemm
@pytest.mark.parametrize("in_axes", [(0, None), (None, 0), (-1, 1)], ids=str)
@pytest.mark.parametrize("groups", [1, 2])
def test_vmap(backend, in_axes, groups):
    w = np.random.default_rng(6).standard_normal((3, 3, 4 // groups, 6))
    dy = np.random.default_rng(7).standard_normal((2, 6, 7, 6))

    def f(x, dy):
        return jax.vjp(lambda w, b: layer(x, w, b, None, groups), w, B)[1](dy)

    args = mapped((X, dy), in_axes)
    close(jax.jit(jax.vmap(f, in_axes))(*args), loop(f, args, in_axes))
    assert targets_of(jax.vmap(f, in_axes), *args) == ["wgrad_bgrad"]


@on_gemm
def test_vmap_over_nothing(backend):
    f = jax.vmap(jax.grad(loss, (1, 2)), (0, None, None))
    dw, db = f(np.zeros((0, *X.shape)), W, B)
    assert (dw.shape, db.shape) == ((0, *W.shape), (0, *B.shape))


@on_gemm
def test_rows_split_over_devices(backend):
    """dw uses windows with halos and db a device's own rows; the last device has fewer rows."""
    mesh = meshes.make("4x2")
    x, w, b = LAYERS["dense"].arrays()
    x = np.concatenate([x[:2], x[2:4]], 1)[:, :8]

    def f(x, w, b):
        y, pull = jax.vjp(lambda w, b: jc.conv(x, w, b, stride=(1, 2)), w, b)
        return pull(jnp.cos(y))

    program, results = compiled(f, (x, w, b), mesh, ((None, "a"), (), ()))
    close(results, f(x, w, b))
    assert "wgrad_bgrad" in program.as_text()
    counts = meshes.collectives(program)
    assert counts["all-reduce"] == 1
    if jax.__version_info__ >= (0, 9, 2):  # an older one gathers y's rows, as docs/support.md says
        assert not counts["all-gather"]


@on_gemm
@pytest.mark.parametrize("layout", ["batch", "batch_over_all", "out_channels", "in_channels"])
@pytest.mark.parametrize("name", ["dense", "groups", "groups_widening"])
def test_split_over_devices(backend, name, layout):
    """A split batch gives partial sums of both; any other split gives the same numbers."""
    split_layer = LAYERS[name]
    if layout == "in_channels" and split_layer.groups > 1:
        return  # channels of groups are split in the same way in x, w and y
    mesh = meshes.make("4x2")
    x, w, b = split_layer.arrays()
    dy = np.random.default_rng(3).standard_normal((*x.shape[:3], split_layer.features))

    def f(x, w, b, dy):
        layer = functools.partial(jc.conv, x, padding="SAME", groups=split_layer.groups)
        return jax.vjp(layer, w, b)[1](dy)

    split = specs(layout, split_layer.groups > 1, mesh.axis_names)
    (batch, *_), channel = (*split[0], None), split[1][-1] if len(split[1]) == 4 else None
    program, results = compiled(f, (x, w, b, dy), mesh, (*split, (batch, None, None, channel)))
    close(results, f(x, w, b, dy))
    assert "wgrad_bgrad" in program.as_text()
    if name == "groups_widening" and layout == "out_channels" and jax.__version_info__ < (0, 9, 2):
        return  # the channels are gathered, as docs/support.md says
    assert meshes.collectives(program) == ({"all-reduce": 1} if layout.startswith("batch") else {})
