"""Layers that XLA splits over 8 devices have the numbers of one device and no unnecessary collective."""

from collections import Counter

import jax
import jax.numpy as jnp
import meshes
import numpy as np
import pytest
import reference
from jax import export, lax
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from reference import Axis
from sharded_layers import LAYERS, Layer, compiled, specs

import jax_convgrad as jc
from jax_convgrad.primitives import partitioned_call, targets

NHWC = ("NHWC", "HWIO", "NHWC")


# The number of all-reduces. Batch: one for dw and db. Output channels: one for dx. Input channels: one for y.
# Both axes: one for each. Channels of groups, which are split in x, w and y together, need no all-reduce.
DENSE = {
    "batch": 1,
    "batch_over_all": 1,
    "out_channels": 1,
    "in_channels": 1,
    "batch_and_out_channels": 2,
    "batch_and_in_channels": 2,
}
GROUPED = {"batch": 1, "batch_over_all": 1, "out_channels": 0, "batch_and_out_channels": 1}


def gathered(mesh):
    """Gathers results that are split over a part of a mesh axis, which JAX before 0.9.2 cannot express."""
    return {"out_shardings": NamedSharding(mesh, P())}


def cases():
    for name, layer in LAYERS.items():
        for layout, reductions in (DENSE if layer.groups == 1 else GROUPED).items():
            for mesh, (_, names) in meshes.MESHES.items():
                # On one axis, both are split only if there are two.
                if len(names) == 2 or not layout.startswith("batch_and"):
                    yield pytest.param(layer, layout, mesh, reductions, id=f"{name}-{layout}-{mesh}")


@pytest.mark.parametrize(("layer", "layout", "mesh", "reductions"), list(cases()))
def test_split_layer(layer, layout, mesh, reductions):
    mesh = meshes.make(mesh)
    split = specs(layout, layer.groups > 1, mesh.axis_names)
    program, results = compiled(layer.with_gradients, layer.arrays(), mesh, split)
    meshes.assert_equal_to_rounding(results, layer.unsharded())
    unequal = layer.groups > 1 and layer.channels != layer.features and "channels" in layout
    if unequal and jax.__version_info__ < (0, 9, 2):
        return  # the channels are gathered, as docs/support.md says
    assert meshes.collectives(program) == Counter({"all-reduce": reductions})


@pytest.mark.parametrize("name", LAYERS)
def test_results_stay_split(name):
    layer = LAYERS[name]
    if layer.groups > 1 and layer.channels != layer.features and jax.__version_info__ < (0, 9, 2):
        pytest.skip("the kernels' channels are gathered there, as docs/support.md says")
    mesh = meshes.make("4x2")
    split = specs("batch_and_out_channels", layer.groups > 1, mesh.axis_names)
    _, (y, dx, dw, db) = compiled(layer.with_gradients, layer.arrays(), mesh, split)
    features = layer.features // 2
    dx_channels = layer.channels // (1 if layer.groups == 1 else 2)
    assert y.sharding.shard_shape(y.shape) == (4, *y.shape[1:3], features)
    assert dx.sharding.shard_shape(dx.shape) == (4, *dx.shape[1:3], dx_channels)
    assert dw.sharding.shard_shape(dw.shape) == (*dw.shape[:3], features)
    assert db.sharding.shard_shape(db.shape) == (features,)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_what_does_not_divide_is_gathered(groups):
    """With 8 devices and 12 channels or fewer groups, whole groups are split, or nothing."""
    layer = Layer(12, 12, groups)
    mesh = meshes.make("8")

    def from_wider(x, w, b):
        x, w, b = x[..., :12], w[:, :, : 12 // groups, :12], b[:12]
        return layer.with_gradients(x * 2, w * 2, b * 2)

    random = np.random.default_rng(3)
    arrays = [random.standard_normal(shape) for shape in ((8, 7, 8, 16), (3, 3, 16, 16), (16,))]
    channels = (None, None, None, "a")
    split = (channels, channels, ("a",))
    _, results = compiled(from_wider, arrays, mesh, split, **gathered(mesh))
    meshes.assert_equal_to_rounding(results, jax.jit(from_wider)(*arrays))


def test_a_part_of_a_mesh_axis():
    """With four images on eight devices, XLA splits over half of the axis after the reshape."""
    layer = Layer(8, 8, batch=32)
    mesh = meshes.make("8")

    def f(x, w, b):
        halves = x.reshape(4, 8, *x.shape[1:])
        return layer.with_gradients(halves[1], w, b), layer.with_gradients(halves[:, 2], w, b)

    _, results = compiled(f, layer.arrays(), mesh, (("a",), (), ()), **gathered(mesh))
    meshes.assert_equal_to_rounding(results, jax.jit(f)(*layer.arrays()))


@pytest.mark.parametrize("grads", [jc.conv_input_grad, jc.conv_filter_grad, jc.conv_bias_grad])
def test_gradient_functions(grads):
    x, w, _ = LAYERS["dense"].arrays()
    dy = np.cos(np.arange(16 * 7 * 8 * 24).reshape(16, 7, 8, 24))
    f, arrays, split, reductions = {
        jc.conv_input_grad: (
            lambda dy, w: grads(dy, w, x.shape, padding="SAME"), (dy, w), (("a",), (None, None, None, "b")), 1
        ),
        jc.conv_filter_grad: (
            lambda x, dy: grads(x, dy, w.shape, padding="SAME"), (x, dy), (("a",), ("a", None, None, "b")), 1
        ),
        jc.conv_bias_grad: (grads, (dy,), (("a", None, "b"),), 1),
    }[grads]  # fmt: skip
    program, result = compiled(f, arrays, meshes.make("4x2"), split)
    meshes.assert_equal_to_rounding(result, jax.jit(f)(*arrays))
    assert meshes.collectives(program) == Counter({"all-reduce": reductions})


def test_second_order():
    layer = LAYERS["dense"]

    def f(x, w, b):
        return jax.grad(lambda *args: sum(jnp.sum(g**2) for g in layer.with_gradients(*args)[1:]), (0, 1, 2))(
            x, w, b
        )

    program, results = compiled(f, layer.arrays(), meshes.make("4x2"), (("a",), (), ()))
    meshes.assert_equal_to_rounding(results, jax.jit(f)(*layer.arrays()), 1e-11)
    assert set(meshes.collectives(program)) == {"all-reduce"}


@pytest.mark.parametrize("layer", [LAYERS["dense"], Layer(1, 24), Layer(16, 1)], ids=str)
def test_per_example_gradients_stay_where_the_examples_are(layer):
    x, w, b = layer.arrays()
    f = jax.vmap(lambda x, w, b: layer.with_gradients(x[None], w, b), in_axes=(0, None, None))
    program, results = compiled(f, (x, w, b), meshes.make("8"), (("a",), (), ()))
    meshes.assert_equal_to_rounding(results, jax.jit(f)(x, w, b))
    if jax.__version_info__ >= (0, 9, 2):
        assert not meshes.collectives(program)


@pytest.mark.parametrize("of", ["arguments", "constraint", "context"])
def test_ways_to_say_it(of):
    layer = LAYERS["dense"]
    x, w, b = layer.arrays()
    mesh = meshes.make("4x2")
    if of == "arguments":  # eager calls, one by one
        results = layer.with_gradients(*meshes.place(mesh, (x, w, b), (("a",), (), ())))
    elif of == "constraint":
        results = jax.jit(
            lambda x, w, b: layer.with_gradients(
                lax.with_sharding_constraint(x, NamedSharding(mesh, P("a"))), w, b
            )
        )(x, w, b)
    else:
        with jax.set_mesh(mesh):
            results = jax.jit(layer.with_gradients, in_shardings=(P("a"), P(), P()))(x, w, b)
    assert len(results[1].sharding.device_set) == 8
    meshes.assert_equal_to_rounding(results, layer.unsharded())


@pytest.mark.parametrize("groups", [4, 16], ids=["groups", "depthwise"])
@pytest.mark.parametrize(("axis", "too_large"), [("a", 2), ("b", 4)])
def test_grouped_filter_gradient_where_lax_is_wrong(groups, axis, too_large):
    """With the batch over one axis of a 4x2 mesh, lax's dw also sums over the other axis, a replication."""
    random = np.random.default_rng(0)
    x = random.standard_normal((8, 6, 6, 16))
    w = random.standard_normal((3, 3, 16 // groups, 16))
    dy = random.standard_normal((8, 6, 6, 16))
    exact = reference.wgrad(x, dy, [Axis(6, 3, 1, 1, 1)] * 2, groups)
    mesh = meshes.make("4x2")

    def gradient(conv):
        def dw(x, w, dy):
            y = lambda w: conv(  # noqa: E731
                x, w, (1, 1), "SAME", dimension_numbers=NHWC, feature_group_count=groups
            )
            return jax.vjp(y, w)[1](dy)[0]

        return compiled(dw, (x, w, dy), mesh, ((axis,), (), (axis,)))

    program, ours = gradient(jc.conv_general_dilated)
    np.testing.assert_allclose(ours, exact, rtol=1e-10, atol=1e-10)
    assert meshes.collectives(program) == Counter({"all-reduce": 1})
    _, of_lax = gradient(lax.conv_general_dilated)
    times = float(np.median(np.asarray(of_lax) / exact))
    if (0, 9, 1) <= jax.__version_info__ <= (0, 12, 0):
        # If this fails, lax is fixed, and README.md, docs/support.md and findings/ are out of date.
        assert times == pytest.approx(too_large, rel=1e-10)


def test_complex_layer():
    random = np.random.default_rng(2)
    x, w = (random.standard_normal((*shape, 2)) @ [1, 1j] for shape in ((8, 5, 6, 8), (3, 3, 8, 8)))

    def f(x, w):
        y, vjp = jax.vjp(lambda x, w: jc.conv(x, w, padding="SAME"), x, w)
        return y, *vjp(jnp.sin(y))

    split = (("a", None, None, "b"), (None, None, "b"))
    program, results = compiled(f, (x, w), meshes.make("4x2"), split)
    meshes.assert_equal_to_rounding(results, jax.jit(f)(x, w))
    assert set(meshes.collectives(program)) == {"all-reduce"}


def test_four_spatial_dimensions_are_split_by_lax():
    random = np.random.default_rng(2)
    x, w = random.standard_normal((8, 3, 3, 3, 3, 2)), random.standard_normal((2, 2, 2, 2, 2, 4))
    f = jax.value_and_grad(lambda x, w: jnp.sum(jnp.sin(jc.conv(x, w))), (0, 1))
    _, results = compiled(f, (x, w), meshes.make("8"), (("a",), ()))
    meshes.assert_equal_to_rounding(results, jax.jit(f)(x, w))


def test_max_pool_of_many_cotangents():
    """With vmap over the cotangent alone, the positions have fewer images than the scattered array."""
    x = LAYERS["dense"].arrays()[0]
    dy = np.random.default_rng(4).standard_normal((3, 16, 3, 4, 16))

    def f(x, dy):
        _, vjp = jax.vjp(lambda x: jc.max_pool(x, (2, 2), (2, 2)), x)
        return jax.vmap(lambda dy: vjp(dy)[0])(dy)

    _, results = compiled(f, (x, dy), meshes.make("8"), (("a",), (None, "a")), **gathered(meshes.make("8")))
    meshes.assert_equal_to_rounding(results, jax.jit(f)(x, dy))


def test_numbers_stay_right_where_nothing_can_be_split(monkeypatch):
    """If JAX's lowering has an unknown context, XLA gathers."""
    monkeypatch.setattr(partitioned_call, "CAN_BE_NAMED", False)
    layer = Layer(16, 24)

    def f(x, w, b):
        return layer.with_gradients(x, w, b)

    program, results = compiled(f, layer.arrays(), meshes.make("8"), (("a",), (), ()))
    meshes.assert_equal_to_rounding(results, layer.unsharded())
    assert "all-gather" in meshes.collectives(program)


def test_an_exported_program_runs_split():
    layer = LAYERS["dense"]
    mesh = meshes.make("4x2")
    shardings = tuple(NamedSharding(mesh, P(*spec)) for spec in (("a",), (), ()))
    f = jax.jit(layer.with_gradients, in_shardings=shardings)
    blob = export.export(f, disabled_checks=jc.export_checks())(*layer.arrays()).serialize()
    again = jax.jit(export.deserialize(bytearray(blob)).call, in_shardings=shardings)
    meshes.assert_equal_to_rounding(again(*layer.arrays()), layer.unsharded())


def test_compiled_with_other_settings_than_it_was_lowered_with():
    """`jax.enable_x64` affects tracing, and a device's float64 part is traced during compilation."""
    layer = LAYERS["dense"]
    shardings = tuple(NamedSharding(meshes.make("8"), P(*spec)) for spec in ((None, "a"), (), ()))
    rows = (layer.batch, 8, 8, layer.channels)
    x, w, b = np.cos(np.arange(np.prod(rows))).reshape(rows), *layer.arrays()[1:]
    lowered = jax.jit(layer.with_gradients, in_shardings=shardings).lower(x, w, b)
    with jax.enable_x64(False):
        program = lowered.compile()
    meshes.assert_equal_to_rounding(program(x, w, b), jax.jit(layer.with_gradients)(x, w, b))


def test_two_meshes_in_one_program():
    """XLA gathers only the array that is split in another way than the others."""
    layer = LAYERS["dense"]
    x, w, b = layer.arrays()
    one, other = meshes.make("8"), meshes.make("4x2")
    (x,) = meshes.place(one, (x,), (("a",),))
    w, b = meshes.place(other, (w, b), ((None, None, None, "b"), ()))
    program = jax.jit(layer.with_gradients).lower(x, w, b).compile()
    meshes.assert_equal_to_rounding(program(x, w, b), layer.unsharded())
    counts = meshes.collectives(program)
    assert counts["all-reduce"] == 1
    assert counts["all-gather"] <= 1


def test_two_layers_on_meshes_of_their_own():
    """Each layer is split over its own mesh, in one program; only the array between them is moved."""
    layer = LAYERS["dense"]
    x, w, b = layer.arrays()
    one = NamedSharding(meshes.make("8"), P("a"))
    other = NamedSharding(meshes.make("4x2"), P("b", None, None, "a"))

    def f(x, w, b):
        y = jc.conv(lax.with_sharding_constraint(x, one), w, b, padding="SAME")
        return jc.conv_input_grad(lax.with_sharding_constraint(y, other), w, x.shape, padding="SAME")

    program = jax.jit(f).lower(x, w, b).compile()
    meshes.assert_equal_to_rounding(program(x, w, b), jax.jit(f)(x, w, b))
    assert "jax_convgrad_fprop" in program.as_text()
    assert "f64[2,7,8,16]" in program.as_text()  # a part of x over all eight


@pytest.mark.parametrize("sizes", [(3, 2), (2, 3), (6,)], ids=str)
@pytest.mark.parametrize("order", ["in_order", "shuffled"])
def test_meshes_of_any_shape_and_order(sizes, order):
    layer = Layer(12, 12, batch=6)
    devices = np.array(jax.devices()[:6])
    if order == "shuffled":
        devices = devices[[3, 1, 4, 0, 5, 2]]
    mesh = Mesh(devices.reshape(sizes), ("a", "b")[: len(sizes)])
    x, w, b = layer.arrays()
    last = mesh.axis_names[-1]
    for split in ((("a",), (), ()), ((last,), (), ()), (("a",), (None, None, None, last), ())):
        if len(sizes) == 1 and split[1]:
            continue
        program, results = compiled(layer.with_gradients, (x, w, b), mesh, split)
        meshes.assert_equal_to_rounding(results, layer.unsharded())
        assert set(meshes.collectives(program)) == {"all-reduce"}


def test_export_for_an_abstract_mesh():
    layer = LAYERS["dense"]
    mesh = AbstractMesh((4, 2), ("a", "b"), axis_types=(AxisType.Auto,) * 2)
    shardings = tuple(NamedSharding(mesh, P(*spec)) for spec in (("a",), (), ()))
    f = jax.jit(layer.with_gradients, in_shardings=shardings)
    arrays = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in layer.arrays()]
    disabled = [
        export.DisabledSafetyCheck.custom_call("jax_convgrad_" + name)
        for name in targets.backends["cpu"].module.registrations()
    ]
    exported = export.export(f, platforms=["cpu"], disabled_checks=disabled)(*arrays)
    split = (("a",), (), ())
    placed = meshes.place(meshes.make("4x2"), layer.arrays(), split)
    meshes.assert_equal_to_rounding(jax.jit(exported.call)(*placed), layer.unsharded())
