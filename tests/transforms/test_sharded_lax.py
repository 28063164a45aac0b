"""lax's own convolution on our kernels, split over 8 devices, has the numbers of one device.

lax itself cannot be the reference: if the batch is split over one of two mesh axes, it sums the gradient of a
depthwise filter over both.
"""

import jax
import jax.numpy as jnp
import meshes
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P
from lowered_programs import FOREIGN_HLO

import jax_convgrad as jc

RANDOM = np.random.default_rng(5)
X = RANDOM.standard_normal((8, 5, 6, 4))
FILTERS = {1: RANDOM.standard_normal((3, 3, 4, 6)), 4: RANDOM.standard_normal((3, 3, 1, 4))}


def conv(x, w):
    groups = x.shape[3] // w.shape[2]
    order = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, w, (2, 1), "SAME", dimension_numbers=order, feature_group_count=groups)


def value_and_gradients(f):
    def g(x, w):
        y, pull = jax.vjp(f, x, w)
        return y, *pull(jnp.cos(y))

    return g


def installed(g):
    jc.install()
    return g


@pytest.fixture(autouse=True)
def _uninstalled():
    yield
    jc.uninstall()


@pytest.fixture(params=[1, 4], ids=["dense", "depthwise"])
def arrays_and_results(request):
    arrays = X, FILTERS[request.param]
    return arrays, jax.jit(value_and_gradients(conv))(*arrays)


@pytest.fixture(params=[AxisType.Auto, AxisType.Explicit], ids=["auto", "explicit"])
def mesh(request):
    mesh = meshes.make("4x2", request.param)
    with jax.set_mesh(mesh):
        yield mesh


def assert_on_our_kernels(f, mesh, arrays, results):
    x, w = meshes.place(mesh, arrays, (("a",), ()))
    compiled = jax.jit(f).lower(x, w).compile()
    text = compiled.as_text()
    assert not FOREIGN_HLO.search(text)
    for name in ("fprop", "dgrad", "wgrad"):
        assert f"jax_convgrad_{name}" in text
    assert meshes.collectives(compiled) == {"all-reduce": 1}  # of the parts of dw
    for ours, theirs in zip(compiled(x, w), results, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12 * np.abs(theirs).max())


@pytest.mark.parametrize("way", [jc.replace_convolutions, installed], ids=["replaced", "installed"])
def test_batch_split_by_jit(arrays_and_results, mesh, way):
    arrays, results = arrays_and_results
    assert_on_our_kernels(way(value_and_gradients(conv)), mesh, arrays, results)


@pytest.mark.parametrize("way", ["replaced_inside", "replaced_outside", "installed"])
def test_batch_split_by_shard_map(arrays_and_results, mesh, way):
    arrays, results = arrays_and_results
    inner = jc.replace_convolutions(conv) if way == "replaced_inside" else conv
    split = jax.shard_map(inner, mesh=mesh, in_specs=(P("a"), P()), out_specs=P("a"))
    f = value_and_gradients(split)
    outer = {"replaced_outside": jc.replace_convolutions, "installed": installed}.get(way, lambda f: f)
    assert_on_our_kernels(outer(f), mesh, arrays, results)
