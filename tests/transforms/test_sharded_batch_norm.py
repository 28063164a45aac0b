"""``batch_norm`` of an x that is split over 8 devices: the unsplit run; which collectives the program has."""

import jax
import jax.numpy as jnp
import meshes
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

import jax_convgrad as jc


def step(x, scale, bias, dy, **options):
    def loss(x, scale, bias):
        y, statistics = jc.batch_norm(x, scale, bias, activation="relu", **options)
        return jnp.sum(y * dy), (y, statistics)

    return jax.grad(loss, (0, 1, 2), has_aux=True)(x, scale, bias)


def problem(dtype="float64", mean=3.0, batch=8):
    random = np.random.default_rng(0)
    x, dy = (jnp.asarray(random.standard_normal((batch, 4, 6, 16)) + m, dtype) for m in (mean, 0))
    scale, bias = (jnp.asarray(random.standard_normal(16), "float64") for _ in range(2))
    return x, scale, bias, dy


SPECS = {
    "batch": ("8", P("a")),
    "batch_over_two_axes": ("4x2", P(("a", "b"))),
    "batch_and_channels": ("4x2", P("a", None, None, "b")),
    "batch_and_rows": ("4x2", P("a", "b")),
    "channels": ("8", P(None, None, None, "a")),
    "rows_that_do_not_divide": ("8", P(None, None, "a")),
}


@pytest.mark.parametrize("name", SPECS)
def test_a_split_x_has_the_statistics_of_the_whole(name):
    mesh_name, spec = SPECS[name]
    if name == "rows_that_do_not_divide":
        mesh_name, spec = "4x2", P(None, None, "b")
    arrays, mesh = problem(), meshes.make(mesh_name)
    placed = meshes.place(mesh, arrays, [spec, P(), P(), spec])
    compiled = jax.jit(step).lower(*placed).compile()
    meshes.assert_equal_to_rounding(compiled(*placed), meshes.unsharded(step, *arrays), 1e-11)
    counts = meshes.collectives(compiled)
    assert not set(counts) - {"all-reduce"}, counts
    assert (name == "channels") == (counts["all-reduce"] == 0)


def test_a_batch_that_does_not_divide_is_right():
    arrays, mesh = problem(batch=6), meshes.make("4x2")
    placed = meshes.place(mesh, arrays, [P(None, "a"), P(), P(), P("b")])
    meshes.assert_equal_to_rounding(jax.jit(step)(*placed), meshes.unsharded(step, *arrays), 1e-11)


def test_the_variance_keeps_its_digits_over_devices():
    x, *_ = problem("float32", mean=1e3)
    (placed,) = meshes.place(meshes.make("8"), [x], [P("a")])
    var = jax.jit(lambda x: jc.batch_norm(x)[1].var)(placed)
    np.testing.assert_allclose(var, np.var(np.asarray(x, np.float64), (0, 1, 2)), rtol=1e-4)


def test_shard_map_joins_the_statistics_over_the_named_axis():
    arrays, mesh = problem(), meshes.make("8")
    specs = (P("a"), P(), P(), P("a"))
    results = ((P("a"), P(), P()), (P("a"), P()))
    joined = jax.jit(
        jax.shard_map(lambda *a: step(*a, axis_name="a"), mesh=mesh, in_specs=specs, out_specs=results)
    )(*arrays)
    # The gradients of what is replicated are already added up over the devices.
    meshes.assert_equal_to_rounding(joined, meshes.unsharded(step, *arrays), 1e-11)


def test_shard_map_without_a_name_keeps_each_device_s_statistics():
    (x, scale, bias, _), mesh = problem(), meshes.make("8")
    y = jax.jit(
        jax.shard_map(
            lambda x: jc.batch_norm(x, scale, bias)[0], mesh=mesh, in_specs=P("a"), out_specs=P("a")
        )
    )(x)
    for image in range(8):
        expected = jc.batch_norm(x[image : image + 1], scale, bias)[0]
        np.testing.assert_allclose(y[image : image + 1], expected, rtol=1e-11, atol=1e-11)


def test_pmap_joins_groups_of_devices():
    x, scale, bias, dy = problem()
    groups = [[0, 1, 2, 3], [4, 5, 6, 7]]

    def of_device(x, dy):
        (dx, _, _), (y, statistics) = step(x, scale, bias, dy, axis_name="d", axis_index_groups=groups)
        return dx, y, statistics

    dx, y, statistics = jax.pmap(of_device, axis_name="d")(x[:, None], dy[:, None])
    for half in (slice(0, 4), slice(4, 8)):
        (expected, _, _), (of_half, whole) = meshes.unsharded(step, x[half], scale, bias, dy[half])
        np.testing.assert_allclose(dx[half, 0], expected, rtol=1e-10, atol=1e-11)
        np.testing.assert_allclose(y[half, 0], of_half, rtol=1e-10, atol=1e-11)
        np.testing.assert_allclose(statistics.var[half], np.broadcast_to(whole.var, (4, 16)), rtol=1e-12)


def test_explicit_axes():
    arrays, mesh = problem(), meshes.make("8", AxisType.Explicit)
    with jax.set_mesh(mesh):
        placed = meshes.place(mesh, arrays, [P("a"), P(), P(), P("a")])
        (dx, dscale, _), (y, statistics) = jax.jit(step)(*placed)
        assert jax.typeof(y).sharding.spec == P("a", None, None, None)
        assert jax.typeof(statistics.mean).sharding.spec == P(None)
    (expected, expected_scale, _), (expected_y, _) = meshes.unsharded(step, *arrays)
    meshes.assert_equal_to_rounding((dx, dscale, y), (expected, expected_scale, expected_y), 1e-11)
