"""Rows split over 8 devices give the numbers of one device; halos are exchanged and nothing is gathered."""

import jax
import jax.numpy as jnp
import meshes
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import jax_convgrad as jc
from jax_convgrad.geometry import axis_of
from jax_convgrad.primitives import pool_primitives
from jax_convgrad.primitives.pool_spec import PoolSpec

RANDOM = np.random.default_rng(11)


def inputs(x, w):
    return [RANDOM.standard_normal(shape) for shape in (x, w, w[-1:])]


def loss(y):
    """A loss that is not linear; its sum avoids a program result that is split unevenly."""
    return jnp.sum(jnp.sin(y))


def conv_gradients(**arguments):
    return jax.value_and_grad(lambda x, w, b: loss(jc.conv(x, w, b, **arguments)), (0, 1, 2))


def check(f, arrays, mesh, split, *, exchanges=True, eps=1e-11):
    """Asserts that f split over the mesh has the results of one device, without a gather.

    ``exchanges`` says whether there are halos; None allows both.
    """
    shardings = tuple(NamedSharding(mesh, P(*spec)) for spec in split)
    # Gradients have the shardings of their arrays.
    program = jax.jit(f, in_shardings=shardings).lower(*arrays).compile()
    results = program(*meshes.place(mesh, arrays, split))
    meshes.assert_equal_to_rounding(results, jax.jit(f)(*arrays), eps)
    counts = meshes.collectives(program)
    if jax.__version_info__ < (0, 9, 2):
        return program  # rows that the devices do not divide are gathered, as docs/support.md says
    assert not counts["all-gather"], counts
    assert not counts["all-to-all"], counts
    assert exchanges is None or bool(counts["collective-permute"]) == exchanges, counts
    return program


LAYERS = {
    "same": ((2, 64, 6, 3), (3, 3, 3, 4), {"padding": "SAME"}),
    "valid_uneven": ((2, 64, 6, 3), (3, 3, 3, 4), {"padding": "VALID"}),
    "stride_2": ((2, 64, 6, 3), (3, 3, 3, 4), {"padding": "SAME", "stride": 2}),
    "stride_3_uneven": ((2, 64, 6, 3), (5, 3, 3, 4), {"padding": "SAME", "stride": (3, 1)}),
    "dilation": ((2, 64, 6, 3), (3, 3, 3, 4), {"padding": "SAME", "dilation": (5, 2)}),
    "several_neighbours": ((2, 16, 6, 3), (13, 3, 3, 4), {"padding": "SAME"}),
    "asymmetric": ((2, 32, 6, 3), (4, 3, 3, 4), {"padding": ((5, 1), (0, 2)), "stride": (2, 1)}),
    "negative_pads": ((2, 64, 6, 3), (3, 3, 3, 4), {"padding": ((-3, -9), (1, 1))}),
    "a_row_each": ((2, 8, 6, 3), (3, 3, 3, 4), {"padding": "SAME"}),
    "fewer_results_than_devices": ((2, 16, 6, 3), (3, 3, 3, 4), {"padding": "SAME", "stride": (5, 1)}),
    "stride_past_the_taps": ((2, 64, 6, 3), (2, 3, 3, 4), {"padding": "VALID", "stride": (7, 1)}),
    "1d": ((2, 64, 3), (5, 3, 4), {"padding": "SAME"}),
    "3d": ((1, 16, 4, 3, 2), (3, 3, 3, 2, 4), {"padding": "SAME", "stride": (2, 1, 1)}),
    "groups": ((2, 64, 6, 4), (3, 3, 2, 8), {"padding": "SAME", "groups": 2}),
    "depthwise": ((2, 64, 6, 8), (3, 3, 1, 8), {"padding": "SAME", "groups": 8, "stride": (2, 1)}),
}


@pytest.mark.parametrize("name", LAYERS)
def test_rows_of_a_layer(name):
    x, w, arguments = LAYERS[name]
    arguments = {**arguments, "activation": "relu"}
    check(conv_gradients(**arguments), inputs(x, w), meshes.make("8"), ((None, "a"), (), ()))


def test_patches_exchange_nothing():
    arrays = inputs((2, 64, 8, 3), (4, 4, 3, 5))
    check(conv_gradients(stride=4), arrays, meshes.make("8"), ((None, "a"), (), ()), exchanges=False)


SPLITS = {
    "rows_and_columns": ((None, "a", "b"), (), ()),
    "both_axes_on_rows": ((None, ("a", "b")), (), ()),
    "batch_and_rows": (("b", "a"), (), ()),
    "rows_and_channels_in": ((None, "a", None, "b"), (None, None, "b"), ()),
    "rows_and_channels_out": ((None, "a"), (None, None, None, "b"), ("b",)),
}


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("name", ["same", "stride_2"])
def test_rows_beside_other_dimensions(name, split):
    _, _, arguments = LAYERS[name]
    arrays = inputs((4, 32, 8, 4), (3, 3, 4, 6))
    f = conv_gradients(**arguments, activation="relu")
    check(f, arrays, meshes.make("4x2"), SPLITS[split])


def test_batch_rows_and_channels_at_once():
    mesh = jax.make_mesh((2, 2, 2), ("n", "h", "c"), axis_types=(AxisType.Auto,) * 3)
    arrays = inputs((4, 16, 6, 4), (3, 3, 4, 6))
    f = conv_gradients(padding="SAME", activation="relu")
    check(f, arrays, mesh, (("n", "h", None, "c"), (None, None, "c"), ()))
    check(f, arrays, mesh, (("n", "h"), (None, None, None, "c"), ("c",)))


def test_groups_and_rows_at_once():
    arrays = inputs((4, 16, 6, 8), (3, 3, 1, 8))
    f = conv_gradients(padding="SAME", groups=8)
    check(f, arrays, meshes.make("4x2"), ((None, "a", None, "b"), (None, None, None, "b"), ("b",)))


@pytest.mark.parametrize("stride", [(2, 1), (3, 2), (5, 1)], ids=str)
def test_a_transposed_convolution(stride):
    """A stride that does not divide the parts of the result makes them begin in different phases."""
    x, w = RANDOM.standard_normal((2, 16, 5, 3)), RANDOM.standard_normal((4, 3, 3, 4))
    f = jax.value_and_grad(lambda x, w: loss(jc.conv_transpose(x, w, stride, "SAME")), (0, 1))
    exchanges = stride[0] < w.shape[0]  # otherwise no two rows of x are tied to the same row
    check(f, (x, w), meshes.make("8"), ((None, "a"), ()), exchanges=exchanges)


@pytest.mark.parametrize(("stride", "dilation"), [(2, 3), (3, 2), (4, 6)], ids=str)
def test_stride_and_input_dilation_together(stride, dilation):
    x, w = RANDOM.standard_normal((2, 16, 5, 3)), RANDOM.standard_normal((4, 3, 3, 4))

    def f(x, w):
        order = ("NHWC", "HWIO", "NHWC")
        return loss(
            jc.conv_general_dilated(
                x, w, (stride, 1), ((3, 2), (1, 1)), (dilation, 1), dimension_numbers=order
            )
        )

    check(jax.value_and_grad(f, (0, 1)), (x, w), meshes.make("8"), ((None, "a"), ()), exchanges=None)


def test_second_derivatives():
    arrays = inputs((2, 32, 6, 3), (3, 3, 3, 4))

    def f(x, w, b):
        y = jc.conv(x, w, b, padding="SAME", stride=(2, 1))
        y = jc.avg_pool(jc.max_pool(y, (3, 3), (1, 1), "SAME"), (2, 2), (1, 1), "SAME", False)
        return loss(y)

    first = jax.grad(f, (0, 1, 2))
    second = jax.grad(lambda *a: sum(jnp.sum(jnp.cos(g)) for g in first(*a)), (0, 1, 2))
    check(second, arrays, meshes.make("8"), ((None, "a"), (), ()))


# --------------------------------------------------------------------------------------------------- pooling

WINDOWS = {
    "halving": ((2, 2), (2, 2), "VALID", False),
    "overlapping": ((3, 3), (2, 2), "SAME", True),
    "every_row": ((3, 3), (1, 1), "SAME", True),
    "uneven": ((3, 2), (3, 1), ((1, 2), (0, 1)), True),
    "several_neighbours": ((11, 2), (1, 1), ((6, 4), (0, 1)), True),
    "stride_past_the_window": ((2, 2), (5, 3), ((1, 1), (0, 1)), True),
}


def pools(x, window, stride, padding, count_include_pad):
    """Both poolings, their gradients, and the tangent of the maximum, which reads at the positions."""

    def f(x):
        y, pull_max = jax.vjp(lambda x: jc.max_pool(x, window, stride, padding), x)
        z, pull_avg = jax.vjp(lambda x: jc.avg_pool(x, window, stride, padding, count_include_pad), x)
        with jc.forward_mode():
            _, t = jax.jvp(lambda x: jc.max_pool(x, window, stride, padding), (x,), (jnp.sin(3 * x),))
        weights = jnp.cos(jnp.arange(y.shape[1], dtype=x.dtype))[:, None, None]
        sums = [jnp.sum(a * weights, (1, 2)) for a in (jnp.maximum(y, -9), z, t)]
        return *sums, pull_max(weights + 0 * t)[0], pull_avg(weights + 0 * z)[0]

    return f


@pytest.mark.parametrize("name", WINDOWS)
@pytest.mark.parametrize("counted", [True, False], ids=["pads_counted", "pads_left_out"])
@pytest.mark.parametrize("rows", [64, 16])
def test_rows_of_pooling(name, counted, rows):
    window, stride, padding, exchanges = WINDOWS[name]
    x = RANDOM.standard_normal((2, rows, 6, 3))
    f = pools(x, window, stride, padding, counted)
    check(f, (x,), meshes.make("8"), ((None, "a"),), exchanges=exchanges)


@pytest.mark.parametrize(
    "split", [(None, "a", "b"), ("b", "a"), (None, ("a", "b")), (None, "a", None, "b")], ids=str
)
def test_pooling_beside_other_dimensions(split):
    x = RANDOM.standard_normal((4, 32, 8, 4))
    check(pools(x, (3, 3), (2, 2), "SAME", False), (x,), meshes.make("4x2"), (split,))


@pytest.mark.parametrize(
    "split", [(None, None, "a"), ("b", None, "a"), (None, "b", "a"), (None, "b", None, "a")]
)
def test_pooling_of_channels_first(split):
    """Every primitive on [N, C, H, W], with windows that extend over the ends."""
    x = RANDOM.standard_normal((4, 4, 32, 8))
    axes = tuple(
        axis_of(size, 3, stride=2, pads=(1, 1), input_dilation=1, filter_dilation=1) for size in x.shape[2:]
    )
    spec = PoolSpec(axes, (0, 1, 2, 3))

    def f(x):
        y, position = pool_primitives.max_pool_argmax(x, spec)
        z = pool_primitives.avg_pool(x, spec, False)
        weights = jnp.cos(jnp.arange(y.shape[2], dtype=x.dtype))[:, None] + 0 * y
        results = [
            pool_primitives.max_pool(x, spec),
            pool_primitives.sum_pool(x, spec),
            pool_primitives.max_pool_select(jnp.sin(3 * x), position, spec),
        ]
        sums = [jnp.sum(a * weights, (2, 3)) for a in (y, z, *results)]
        return (
            *sums,
            pool_primitives.max_pool_grad(weights, position, spec),
            pool_primitives.avg_pool_grad(weights, spec, False),
            pool_primitives.sum_pool_grad(weights, spec),
        )

    check(f, (x,), meshes.make("4x2"), (split,))


def test_the_first_of_equal_maxima_is_no_padding():
    """If all numbers in a window are as low as padding, the gradient goes to the first one on the input."""
    x = np.where(RANDOM.random((2, 32, 8, 4)) < 0.8, -np.inf, RANDOM.standard_normal((2, 32, 8, 4)))
    dy = RANDOM.standard_normal((2, 32, 8, 4))

    def f(x, dy):
        return jax.vjp(lambda x: jc.max_pool(x, (3, 3), (1, 1), "SAME"), x)[1](dy)[0]

    for split in ((None, "a"), (None, None, "a")):
        check(f, (x, dy), meshes.make("8"), (split, split))
    check(f, (x, dy), meshes.make("4x2"), ((None, "a", "b"),) * 2)


def test_a_nan_in_a_neighbour_s_part():
    x = RANDOM.standard_normal((1, 16, 4, 2))
    x[0, 7, 1, 0] = np.nan
    f = jax.jit(lambda x: jc.max_pool(x, (3, 3), (1, 1), "SAME"))
    (placed,) = meshes.place(meshes.make("8"), (x,), ((None, "a"),))
    np.testing.assert_array_equal(f(placed), f(x))


# --------------------------------------------------------------------- 16 bits, memory, other transformations


def test_sums_of_bfloat16_parts_are_added_in_float32():
    """The filter's gradient has partial sums that bfloat16 would round at each addition."""
    x, dy = (RANDOM.standard_normal(shape).astype(jnp.bfloat16) for shape in ((1, 64, 8, 4), (1, 64, 8, 6)))
    f = jax.jit(lambda x, dy: jc.conv_filter_grad(x, dy, (3, 3, 4, 6), padding="SAME"))
    exact = np.asarray(f(x.astype(np.float64), dy.astype(np.float64)))
    placed = meshes.place(meshes.make("8"), (x, dy), ((None, "a"),) * 2)
    program = f.lower(*placed).compile()
    assert meshes.collectives(program)["all-reduce"] == 1
    reductions = [line for line in program.as_text().splitlines() if " all-reduce(" in line]
    assert all("f32[" in line.split("all-reduce(")[0] for line in reductions)
    # Each part is rounded once and their sum once: half a unit each, of numbers below the largest.
    error = np.abs(np.asarray(f(*placed), np.float64) - exact).max()
    parts = [
        f(x[:, j : j + 8].astype(np.float64), dy[:, j : j + 8].astype(np.float64)) for j in range(0, 64, 8)
    ]
    bound = sum(np.abs(part).max() for part in (*parts, exact)) * 2.0**-9 * 1.5
    assert error < bound


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_narrow_types(dtype):
    arrays = [a.astype(dtype) for a in inputs((2, 32, 6, 4), (3, 3, 4, 4))]

    def f(x, w, b):
        y = jc.conv(x, w, b, padding="SAME", stride=(2, 1))
        return jc.avg_pool(jc.max_pool(y, (2, 2)), (3, 3), (1, 1), "SAME", False).astype(jnp.float32)

    (placed, w, b) = meshes.place(meshes.make("8"), arrays, ((None, "a"), (), ()))
    split, whole = jax.jit(f)(placed, w, b), jax.jit(f)(*arrays)
    eps = float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(split, whole, rtol=eps, atol=eps * float(np.abs(whole).max()))


def test_memory_a_device_falls():
    x, w = jax.ShapeDtypeStruct((1, 512, 64, 8), np.float32), jax.ShapeDtypeStruct((3, 3, 8, 8), np.float32)

    def f(x, w):
        y = jc.max_pool(jc.conv(x, w, padding="SAME", activation="relu"), (2, 2), (2, 2))
        return loss(jc.conv(y, w, padding="SAME"))

    def memory(devices):
        mesh = jax.make_mesh((devices,), ("a",), devices=jax.devices()[:devices], axis_types=(AxisType.Auto,))
        shardings = NamedSharding(mesh, P(None, "a")), NamedSharding(mesh, P())
        stats = jax.jit(jax.grad(f, (0, 1)), in_shardings=shardings).lower(x, w).compile().memory_analysis()
        return stats.temp_size_in_bytes + stats.argument_size_in_bytes + stats.output_size_in_bytes

    one, two, eight = memory(1), memory(2), memory(8)
    assert two < 0.7 * one, (one, two)
    assert eight < 0.25 * one, (one, eight)


@pytest.mark.parametrize("split", [(None, "a"), (None, "a", "b"), ("b", "a"), (None, ("a", "b"))], ids=str)
def test_explicit_axes(split):
    """Rows stay split through a net whose sizes the devices divide, and the types say so."""
    x, w, b = inputs((4, 32, 16, 4), (3, 3, 4, 4))

    def net(x, w, b):
        y = jc.conv(x, w, b, padding="SAME", stride=(2, 1), activation="relu")
        y = jc.conv_transpose(y, w, (2, 1), "SAME")
        return jc.avg_pool(jc.max_pool(y, (2, 2), (2, 2)), (3, 3), (1, 1), "SAME", False)

    f = jax.value_and_grad(lambda *arrays: loss(net(*arrays)), (0, 1, 2))
    mesh = meshes.make("4x2", AxisType.Explicit)
    with jax.set_mesh(mesh):
        arrays = meshes.place(mesh, (x, w, b), (split, (), ()))
        assert jax.typeof(net(*arrays)).sharding.spec == P(*split, *(None,) * (4 - len(split)))
        program = jax.jit(f).lower(*arrays).compile()
        results = program(*arrays)
    assert results[1][0].sharding.is_equivalent_to(arrays[0].sharding, 4)
    meshes.assert_equal_to_rounding(results, meshes.unsharded(f, x, w, b), 1e-11)
    counts = meshes.collectives(program)
    assert not counts["all-gather"], counts
    assert counts["collective-permute"], counts


def test_explicit_rows_that_do_not_divide_are_gathered_at_the_layer():
    x, w, b = inputs((4, 32, 16, 4), (3, 3, 4, 4))
    mesh = meshes.make("4x2", AxisType.Explicit)
    with jax.set_mesh(mesh):
        arrays = meshes.place(mesh, (x, w, b), ((None, ("a", "b")), (), ()))
        y = jc.conv(*arrays, padding=((0, 2), (1, 1)), stride=(8, 1))  # 4 rows, of 8
        assert jax.typeof(y).sharding.spec[1] in ("a", ("a",))
        y = jc.conv(*arrays)  # 30
        assert jax.typeof(y).sharding.spec == P(None, None, None, None)
    meshes.assert_equal_to_rounding(y, meshes.unsharded(jc.conv, x, w, b), 1e-11)


def test_shard_map_exchanges_nothing_by_itself():
    """Inside shard_map a device's rows are a whole array, as in lax; the program has to exchange halos."""
    x, w, _ = inputs((2, 32, 6, 3), (3, 3, 3, 4))
    mesh = meshes.make("8")
    order = ("NHWC", "HWIO", "NHWC")

    def rows(conv):
        f = jax.shard_map(
            lambda x, w: conv(x, w, (1, 1), "SAME", dimension_numbers=order),
            mesh=mesh,
            in_specs=(P(None, "a"), P()),
            out_specs=P(None, "a"),
        )
        return jax.jit(jax.value_and_grad(lambda x, w: loss(f(x, w)), (0, 1)))

    ours = rows(jc.conv_general_dilated)
    meshes.assert_equal_to_rounding(ours(x, w), rows(lax.conv_general_dilated)(x, w), 1e-11)
    assert not meshes.collectives(ours.lower(x, w).compile())["collective-permute"]


def test_shard_map_over_batch_with_rows_left_to_xla():
    """If only some axes are manual, XLA gathers the rows, and the numbers are right."""
    x, w, b = inputs((4, 32, 6, 3), (3, 3, 3, 4))
    mesh = meshes.make("4x2")

    def f(x, w, b):
        layer = jax.shard_map(
            lambda x, w, b: jc.conv(x, w, b, padding="SAME"),
            mesh=mesh,
            in_specs=(P("b"), P(), P()),
            out_specs=P("b"),
            axis_names={"b"},
        )
        return loss(layer(x, w, b))

    f = jax.value_and_grad(f, (0, 1, 2))
    placed = meshes.place(mesh, (x, w, b), (("b", "a"), (), ()))
    expected = jax.value_and_grad(lambda *a: loss(jc.conv(*a, padding="SAME")), (0, 1, 2))(x, w, b)
    meshes.assert_equal_to_rounding(jax.jit(f)(*placed), expected, 1e-11)


@pytest.mark.parametrize("rows", [30, 12, 4])
def test_a_result_of_rows_that_the_devices_do_not_divide(rows):
    """The program's result is gathered and right, whatever part of a mesh axis it was split over."""
    x, w, _ = inputs((2, 32, 6, 3), (33 - rows, 3, 3, 4))
    x = x[:, : rows + w.shape[0] - 1]
    f = jax.jit(lambda x, w: jc.conv(jnp.sin(x), w))
    placed = meshes.place(meshes.make("8"), (x, w), ((None, "a"), ()))
    y = f(*placed)
    assert y.shape[1] == rows
    meshes.assert_equal_to_rounding(y, f(x, w), 1e-11)


@pytest.mark.parametrize("way", ["install", "replace"])
@pytest.mark.parametrize("reduction", ["max", "min"])
@pytest.mark.parametrize("split", [(None, "a", "b"), ("b", "a"), (None, ("a", "b"))], ids=str)
def test_lax_windows(way, reduction, split):
    """Values, gradients and tangents are those of one device, also with NaN and -inf at padding."""
    if way == "replace" and split != (None, "a", "b"):
        return  # the same primitives
    low = -np.inf if reduction == "max" else np.inf
    x = RANDOM.choice([np.nan, low, 1.0, 2.0, 3.0], p=[0.15, 0.55, 0.1, 0.1, 0.1], size=(4, 24, 8, 4))
    t = RANDOM.standard_normal(x.shape)
    op = lax.max if reduction == "max" else lax.min

    def windows(x):
        return lax.reduce_window(x, low, op, (1, 4, 3, 1), (1, 2, 1, 1), ((0, 0), (3, 2), (1, 1), (0, 0)))

    def f(x, t):
        y, pull = jax.vjp(windows, x)
        weights = jnp.cos(jnp.arange(y.size, dtype=x.dtype).reshape(y.shape))
        _, tangent = jax.jvp(windows, (x,), (t,))
        # Sums over rows, which would be unevenly split as results of the program.
        return (
            jnp.sum(jnp.where(jnp.isfinite(y), y, 7) * weights, 1),
            jnp.sum(tangent * weights, 1),
            pull(weights),
        )

    try:
        if way == "install":
            jc.install()
        f = jc.replace_convolutions(f) if way == "replace" else f
        program = check(f, (x, t), meshes.make("4x2"), (split, split))
    finally:
        jc.uninstall()
    if program is not None:
        assert program.as_text().count("jax_convgrad_max_pool_argmax") >= 2


@pytest.mark.parametrize("way", ["install", "replace"])
def test_lax_programs(way):
    x, w, _ = inputs((2, 32, 6, 3), (3, 3, 3, 4))

    def net(x, w):
        y = lax.conv_general_dilated(x, w, (2, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        return loss(y)

    f = jax.value_and_grad(net, (0, 1))
    expected = jax.jit(f)(x, w)
    mesh = meshes.make("8")
    split = ((None, "a"), ())
    try:
        if way == "install":
            jc.install()
        f = jc.replace_convolutions(f) if way == "replace" else f
        placed = meshes.place(mesh, (x, w), split)
        program = jax.jit(f).lower(*placed).compile()
        meshes.assert_equal_to_rounding(program(*placed), expected, 1e-11)
    finally:
        jc.uninstall()
    assert "jax_convgrad_fprop" in program.as_text()
    counts = meshes.collectives(program)
    assert not counts["all-gather"]
    assert counts["collective-permute"]
