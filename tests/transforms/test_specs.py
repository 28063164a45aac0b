"""``ConvSpec`` and ``PoolSpec``: shapes as ``jax.lax`` has them, and one hashable value for each layer."""

import copy
import pickle
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conv_cases import BY_NAME, CASES, GROUPS
from jax import lax

import jax_convgrad as jc
from jax_convgrad.geometry import Axis, ConvGeometry, axis_of
from jax_convgrad.layers.convolution import layer_spec
from jax_convgrad.primitives import contractions, define, ffi
from jax_convgrad.primitives.conv_spec import ConvSpec, Dims
from jax_convgrad.primitives.number_types import FLOAT32
from jax_convgrad.primitives.pool_spec import PoolSpec


def spec_of(case, precision=None):
    return layer_spec(
        case.x, case.w, ("x", "w"), case.stride, case.padding, case.input_dilation, case.filter_dilation,
        case.groups, case.specs, precision,
    )[0]  # fmt: skip


def one_axis():
    geometry = ConvGeometry((Axis(10, 3, 5, stride=2, pad_lo=1),), 2)
    return ConvSpec(geometry, Dims((0, 1, 2), (0, 1, 2), (0, 1, 2)), lax.Precision.HIGHEST, FLOAT32)


@pytest.mark.parametrize(
    "case", [c for c in (*CASES, *GROUPS) if c.batch_groups == 1], ids=lambda case: case.name
)
def test_each_array_has_lax_s_shape(case):
    spec = spec_of(case)
    x, w = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in (case.x, case.w))
    arguments = {**case.lax_arguments, "dimension_numbers": case.specs}
    y = jax.eval_shape(lambda x, w: lax.conv_general_dilated(x, w, **arguments), x, w).shape
    assert spec.y_shape(case.x, case.w) == y
    assert spec.x_shape(y, case.w) == case.x
    assert spec.w_shape(case.x, y) == case.w


@pytest.mark.parametrize("name", ["1d", "2d_stride2_same", "2d_both_dilations", "2d_channels_last"])
def test_transpose_is_the_convolution_undone(name):
    """Its dgrad, by a filter with reversed taps and swapped channels, is this one's fprop."""
    case = BY_NAME[name]
    spec = spec_of(case, lax.Precision.HIGHEST)
    x, w, _ = map(jnp.asarray, case.arrays("float32"))
    w_out, w_in, *spatial = spec.dimensions.w
    turned = jnp.swapaxes(jnp.flip(w, spatial), w_out, w_in)
    y = contractions.fprop(x, w, spec)
    np.testing.assert_allclose(contractions.dgrad(x, turned, spec.transpose()), y, rtol=1e-5, atol=1e-5)
    again = spec.transpose().transpose()
    assert again == spec and hash(again) == hash(spec)


def test_pool_shapes_are_lax_s_in_any_order():
    x = (2, 9, 5, 8)  # N, H, C, W
    axes = tuple(
        axis_of(x[d], taps, stride=step, pads=(1, 0), input_dilation=1, filter_dilation=1)
        for d, taps, step in ((1, 3, 2), (3, 2, 1))
    )
    spec = PoolSpec(axes, (0, 2, 1, 3))
    y = jax.eval_shape(
        lambda x: lax.reduce_window(
            x, -jnp.inf, lax.max, (1, 3, 1, 2), (1, 2, 1, 1), ((0, 0), (1, 0), (0, 0), (1, 0))
        ),
        jax.ShapeDtypeStruct(x, jnp.float32),
    ).shape
    assert spec.pooled(x) == y
    assert spec.unpooled(y) == x
    assert (spec.batch, spec.channel, spec.spatial) == (0, 2, (1, 3))


@pytest.mark.parametrize("spec", [one_axis(), PoolSpec.channels_last(one_axis().axes)], ids=["conv", "pool"])
def test_a_copy_is_equal_and_finds_the_same_entry(spec):
    for again in (copy.copy(spec), copy.deepcopy(spec), pickle.loads(pickle.dumps(spec))):
        assert again == spec
        assert {spec: "found"}[again] == "found"
    assert spec != spec.with_axes([Axis(10, 3, 5, stride=2, pad_lo=2)])


def test_a_spec_from_another_process_finds_the_same_entry():
    """Hashes of strings differ between processes, so none may travel with a spec."""
    program = (
        "import pickle, sys\n"
        "spec = pickle.loads(bytes.fromhex(sys.argv[1]))\n"
        "geometry, dims = spec.geometry, spec.dimensions\n"
        "again = type(spec)(type(geometry)(tuple(geometry.axes), geometry.groups), type(dims)(*dims), "
        "spec.precision, spec.result_dtype)\n"
        "print({again: 'found'}[spec])"
    )
    spec = one_axis()
    hash(spec)
    done = subprocess.run(
        [sys.executable, "-c", program, pickle.dumps(spec).hex()], capture_output=True, text=True, timeout=120
    )
    assert done.stdout.strip() == "found", done.stderr


def test_equal_layers_are_traced_and_lowered_to_one_call():
    """Each call makes a spec of its own, and JAX's caches find the equal one."""
    x, w = jnp.ones((1, 6, 6, 4)), jnp.ones((3, 3, 4, 4))
    calls = []
    fprop = ffi.fprop

    def counted(*args, **how):
        calls.append(args)
        return fprop(*args, **how)

    def net(x, w):
        for _ in range(3):
            x = jc.conv(x, w, padding="SAME", activation="relu")
        return x

    patch = pytest.MonkeyPatch()
    patch.setattr(ffi, "fprop", counted)
    try:
        jax.clear_caches()
        text = jax.jit(net).lower(x, w).as_text()
    finally:
        patch.undo()
    assert text.count("@jax_convgrad_fprop(") == 3
    assert len(calls) == 1


def test_a_jaxpr_shows_one_parameter():
    x, w, b = jnp.ones((1, 6, 6, 4)), jnp.ones((3, 3, 4, 4)), jnp.ones(4)
    jaxpr = jax.make_jaxpr(jax.grad(lambda *a: jc.conv(*a, padding="SAME").sum(), (0, 1, 2)))(x, w, b)
    ours = [eqn for eqn in jaxpr.eqns if eqn.primitive in define.lax_forms]
    assert [eqn.primitive.name.removeprefix("jax_convgrad_") for eqn in ours] == [
        "fprop_epilogue", "dgrad", "wgrad_bgrad",
    ]  # fmt: skip
    assert len({eqn.params["spec"] for eqn in ours}) == 1
    assert str(jaxpr).count("spec=ConvSpec(") == 3


def test_an_axis_is_printed_without_its_defaults():
    assert repr(Axis(5, 3, 3)) == "Axis(input=5, taps=3, output=3)"
    assert repr(Axis(5, 3, 2, 1, -1)) == "Axis(input=5, taps=3, output=2, pad_lo=-1)"
    for axis in (
        Axis(9, 3, 4, 2),
        Axis(9, 3, 20, 1, 2, 2),
        Axis(9, 3, 5, 1, 0, 1, 2),
        Axis(1, 2, 3, 4, 5, 6, 7, 8),
    ):
        assert eval(repr(axis)) == axis
    (n,) = jax.export.symbolic_shape("n")
    assert repr(Axis(n, 3, n, pad_lo=1, pad_hi=1)) == "Axis(input=n, taps=3, output=n, pad_lo=1, pad_hi=1)"
