"""Mesh axes in the types of arrays: explicit axes, and the manual axes of shard_map and pmap."""

from functools import cache

import jax
import jax.numpy as jnp
import meshes
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import jax_convgrad as jc

NHWC = ("NHWC", "HWIO", "NHWC")
RANDOM = np.random.default_rng(5)
X = RANDOM.standard_normal((16, 7, 8, 8))
W = RANDOM.standard_normal((3, 3, 8, 16))
B = RANDOM.standard_normal(16)
DEPTHWISE = RANDOM.standard_normal((3, 3, 1, 8))


def layer(x, w, b):
    y = jc.conv(x, w, b, stride=(1, 2), padding="SAME", groups=8 // w.shape[2], activation="relu")
    return jc.avg_pool(jc.max_pool(y, (2, 2)), (2, 1))


def loss(x, w, b):
    return jnp.sum(jnp.sin(layer(x, w, b)))


gradients = jax.value_and_grad(loss, (0, 1, 2))
ARRAYS = {"dense": (X, W, B), "depthwise": (X, DEPTHWISE, B[:8])}


@cache
def unsharded(name):
    return meshes.unsharded(gradients, *ARRAYS[name])


# ------------------------------------------------------------------------------------------- explicit axes

# The splits of x, w, b and the result, and the all-reduces: those of test_sharding.py and that of the loss.
EXPLICIT = {
    "batch": ((("a",), (), ()), P("a", None, None, None), 2),
    "batch_over_all": (((("a", "b"),), (), ()), P(("a", "b"), None, None, None), 2),
    "batch_and_out_channels": (
        (("a",), (None, None, None, "b"), ("b",)),
        P("a", None, None, "b"),
        3,
    ),
    "in_channels": (((None, None, None, "a"), (None, None, "a"), ()), P(None, None, None, None), 1),
}


@pytest.fixture
def explicit_mesh():
    mesh = meshes.make("4x2", AxisType.Explicit)
    with jax.set_mesh(mesh):
        yield mesh


@pytest.mark.parametrize("name", EXPLICIT)
@pytest.mark.parametrize("mode", ["jit", "eager"])
def test_explicit_axes(explicit_mesh, name, mode):
    split, result, _ = EXPLICIT[name]
    arrays = meshes.place(explicit_mesh, (X, W, B), split)
    assert jax.typeof(layer(*arrays)).sharding.spec == result
    f = jax.jit(gradients) if mode == "jit" else gradients
    value_and_grads = f(*arrays)
    meshes.assert_equal_to_rounding(value_and_grads, unsharded("dense"))
    for gradient, array in zip(value_and_grads[1], arrays, strict=True):
        assert gradient.sharding.is_equivalent_to(array.sharding, array.ndim)


@pytest.mark.parametrize("name", EXPLICIT)
def test_explicit_axes_gather_nothing(explicit_mesh, name):
    split, _, reductions = EXPLICIT[name]
    arrays = meshes.place(explicit_mesh, (X, W, B), split)
    found = meshes.collectives(jax.jit(gradients).lower(*arrays).compile())
    assert set(found) == {"all-reduce"}
    assert found["all-reduce"] <= reductions  # XLA may merge two of them


def test_explicit_spatial_axis_is_gathered(explicit_mesh):
    arrays = meshes.place(explicit_mesh, (X, W, B), ((None, None, "a"), (), ()))
    assert jax.typeof(layer(*arrays)).sharding.spec == P(None, None, None, None)
    meshes.assert_equal_to_rounding(jax.jit(gradients)(*arrays), unsharded("dense"))


def test_explicit_depthwise(explicit_mesh):
    split = (("a", None, None, "b"), (None, None, None, "b"), ("b",))
    arrays = meshes.place(explicit_mesh, ARRAYS["depthwise"], split)
    assert jax.typeof(layer(*arrays)).sharding.spec == P("a", None, None, "b")
    meshes.assert_equal_to_rounding(jax.jit(gradients)(*arrays), unsharded("depthwise"))


def test_arrays_of_one_device_in_an_explicit_context(explicit_mesh):
    meshes.assert_equal_to_rounding(gradients(*map(jnp.asarray, (X, W, B))), unsharded("dense"))


def lax_arguments(out_sharding):
    return {
        "window_strides": (1, 1),
        "padding": "SAME",
        "dimension_numbers": NHWC,
        "out_sharding": out_sharding,
    }


@pytest.mark.parametrize("spec", [P("a"), P(("a", "b")), P("b", None, None, "a"), P(), P(None, None, "a")])
def test_out_sharding(explicit_mesh, spec):
    def f(x, w, out_sharding=None):
        return jnp.sum(jnp.sin(jc.conv_general_dilated(x, w, **lax_arguments(out_sharding))))

    arrays = meshes.place(explicit_mesh, (X, W), (("a",), ()))
    y = jc.conv_general_dilated(*arrays, **lax_arguments(spec))
    assert jax.typeof(y).sharding.spec == P(*spec, *(None,) * (4 - len(spec)))
    named = NamedSharding(explicit_mesh, spec)
    of_named = jc.conv_general_dilated(*arrays, **lax_arguments(named))
    assert of_named.sharding.is_equivalent_to(y.sharding, 4)
    ours = jax.jit(jax.value_and_grad(lambda x, w: f(x, w, spec), (0, 1)))(*arrays)
    expected = meshes.unsharded(jax.value_and_grad(f, (0, 1)), X, W)
    meshes.assert_equal_to_rounding(ours, expected)


def test_out_sharding_that_names_nothing_explicit():
    with pytest.raises(ValueError, match="PartitionSpec"):
        jc.conv_general_dilated(X, W, **lax_arguments(P("a")))
    with (
        jax.set_mesh(meshes.make("4x2")),
        pytest.raises(ValueError, match=r"cannot contain axis names that are of type Auto"),
    ):
        jc.conv_general_dilated(X, W, **lax_arguments(P("a")))


def test_batch_groups_of_a_split_batch(explicit_mesh):
    def f(x, w):
        y = jc.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=NHWC, batch_group_count=2)
        return jnp.sum(jnp.sin(y))

    arrays = meshes.place(explicit_mesh, (X, W), (("a",), ()))
    ours = jax.jit(jax.value_and_grad(f, (0, 1)))(*arrays)
    expected = meshes.unsharded(jax.value_and_grad(f, (0, 1)), X, W)
    meshes.assert_equal_to_rounding(ours, expected)


def test_pooling_over_two_split_leading_dimensions(explicit_mesh):
    x = X.reshape(4, 4, *X.shape[1:])
    (placed,) = meshes.place(explicit_mesh, (x,), (("a", "b"),))
    y = jax.jit(lambda x: jc.max_pool(x, (2, 2)))(placed)
    assert jax.typeof(y).sharding.spec == P("a", "b", None, None, None)
    np.testing.assert_array_equal(
        y, lax.reduce_window(x, -np.inf, lax.max, (1, 1, 2, 2, 1), (1,) * 5, "VALID")
    )


def test_per_example_and_second_order_under_explicit_axes(explicit_mesh):
    (x, w, b) = meshes.place(explicit_mesh, (X, W, B), (("a",), (), ()))

    def per_example(x, w, b):
        return jax.vmap(jax.grad(lambda w, x: loss(x[None], w, b)), in_axes=(None, 0))(w, x)

    def of_norm(x, w, b):
        return jax.grad(lambda w: jnp.sum(jax.grad(loss, 1)(x, w, b) ** 2))(w)

    ours = jax.jit(per_example)(x, w, b), jax.jit(of_norm)(x, w, b)
    expected = meshes.unsharded(per_example, X, W, B), meshes.unsharded(of_norm, X, W, B)
    meshes.assert_equal_to_rounding(ours, expected, 1e-11)


# --------------------------------------------------------------------------------------------- manual axes


def summed_gradients(check_vma):
    """The whole batch's gradients inside shard_map, from each device's part of the batch."""

    def body(x, w, b):
        value, (dx, dw, db) = gradients(x, w, b)
        if not check_vma:  # JAX does not know that w and b are the same on all devices, and does not sum
            dw, db = lax.psum((dw, db), "a")
        return lax.psum(value, "a"), (dx, dw, db)

    return body


SPLIT_BATCH = {"in_specs": (P("a"), P(), P()), "out_specs": (P(), (P("a"), P(), P()))}


@pytest.mark.parametrize("name", ["dense", "depthwise"])
@pytest.mark.parametrize("check_vma", [True, False])
@pytest.mark.parametrize("mesh", meshes.MESHES)
def test_gradients_inside_shard_map(mesh, check_vma, name):
    f = jax.shard_map(summed_gradients(check_vma), mesh=meshes.make(mesh), check_vma=check_vma, **SPLIT_BATCH)
    program = jax.jit(f).lower(*ARRAYS[name]).compile()
    meshes.assert_equal_to_rounding(program(*ARRAYS[name]), unsharded(name))
    assert set(meshes.collectives(program)) == {"all-reduce"}


@pytest.mark.parametrize("check_vma", [True, False])
def test_gradients_of_a_shard_map(check_vma):
    f = jax.shard_map(
        lambda x, w, b: lax.psum(loss(x, w, b), "a"),
        mesh=meshes.make("4x2"),
        in_specs=(P("a"), P(), P()),
        out_specs=P(),
        check_vma=check_vma,
    )
    meshes.assert_equal_to_rounding(jax.jit(jax.value_and_grad(f, (0, 1, 2)))(X, W, B), unsharded("dense"))


@pytest.mark.parametrize("check_vma", [True, False])
@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_shard_map_over_one_axis_of_two(kind, check_vma):
    mesh = meshes.make("4x2", kind)
    with jax.set_mesh(mesh):
        f = jax.shard_map(summed_gradients(check_vma), axis_names={"a"}, check_vma=check_vma, **SPLIT_BATCH)
        arrays = meshes.place(mesh, (X, W, B), (("a",), (None, None, None, "b"), ()))
        meshes.assert_equal_to_rounding(jax.jit(f)(*arrays), unsharded("dense"))


def test_gradient_functions_inside_shard_map():
    """The gradient functions accept a replicated filter with a split cotangent."""
    dy = np.cos(np.arange(16 * 7 * 8 * 16.0)).reshape(16, 7, 8, 16)

    def body(x, dy, w):
        dx = jc.conv_input_grad(dy, w, x.shape, padding="SAME")
        dw = jc.conv_filter_grad(x, dy, w.shape, padding="SAME")
        return dx, lax.psum(dw, "a"), lax.psum(jc.conv_bias_grad(dy), "a")

    f = jax.shard_map(
        body, mesh=meshes.make("8"), in_specs=(P("a"), P("a"), P()), out_specs=(P("a"), P(), P())
    )
    _, vjp = jax.vjp(lambda x, w, b: jc.conv(x, w, b, padding="SAME"), X, W, B)
    meshes.assert_equal_to_rounding(jax.jit(f)(X, dy, W), vjp(jnp.asarray(dy)))


def test_forward_mode_inside_shard_map():
    def body(x, w, b, tx, tw, tb):
        with jc.forward_mode():
            return lax.psum(jax.jvp(loss, (x, w, b), (tx, tw, tb))[1], "a")

    specs = (P("a"), P(), P()) * 2
    f = jax.shard_map(body, mesh=meshes.make("8"), in_specs=specs, out_specs=P())
    tangents = np.cos(X), np.cos(W), np.cos(B)
    expected = sum(jnp.sum(g * t) for g, t in zip(unsharded("dense")[1], tangents, strict=True))
    meshes.assert_equal_to_rounding(jax.jit(f)(X, W, B, *tangents), expected)


def test_pmap():
    def one(x, w, b):
        value, (dx, dw, db) = gradients(x, w, b)
        value, dw, db = lax.psum((value, dw, db), "a")
        return value, (dx, dw, db)

    value, (dx, dw, db) = jax.pmap(one, axis_name="a", in_axes=(0, None, None))(
        X.reshape(8, 2, *X.shape[1:]), W, B
    )
    for device in (0, 7):
        ours = value[device], (dx.reshape(X.shape), dw[device], db[device])
        meshes.assert_equal_to_rounding(ours, unsharded("dense"))
