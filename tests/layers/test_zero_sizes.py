"""Empty arrays are no error, and a filter's gradient over nothing is zeros."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jax_convgrad as jc

# x [N, C, spatial...], w [K, C, spatial...], padding
SHAPES = {
    "batch": ((0, 3, 5), (4, 3, 2), "SAME"),
    "input_channels": ((2, 0, 5), (4, 0, 2), "SAME"),
    "output_channels": ((2, 3, 5), (0, 3, 2), "SAME"),
    "space": ((2, 3, 0), (4, 3, 2), "SAME"),
    "space_but_for_padding": ((2, 3, 0), (4, 3, 2), ((2, 2),)),
    "output_space": ((2, 3, 2), (4, 3, 5), "VALID"),
    "no_spatial_dimension": ((2, 3), (4, 3), "VALID"),
}


def assert_same(x, w, arguments):
    """y, dx and dw are lax's."""

    @jax.jit
    def run(x, w):
        made = []
        for library in (jc, lax):
            y, vjp = jax.vjp(lambda x, w, f=library: f.conv_general_dilated(x, w, **arguments), x, w)
            made.append((y, *vjp(jnp.full(y.shape, 2.0))))
        return made

    for ours, theirs in zip(*run(x, w), strict=True):
        assert ours.shape == theirs.shape
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("name", SHAPES)
def test_convolution(backend, name):
    x_shape, w_shape, padding = SHAPES[name]
    # Every result has to be written, so these numbers differ from those of new memory.
    x, w = jnp.full(x_shape, 3.0), jnp.full(w_shape, 5.0)
    stride = (1,) * (x.ndim - 2)
    assert_same(x, w, {"window_strides": stride, "padding": padding})


# x [N, spatial..., C], w [spatial..., 1, C], padding
DEPTHWISE = {
    "batch": ((0, 5, 4), (3, 1, 4), "SAME"),
    "space": ((2, 0, 4), (3, 1, 4), "SAME"),
    "space_but_for_padding": ((2, 0, 3), (2, 1, 3), ((2, 2),)),
    "output_space": ((2, 4, 3, 8), (5, 3, 1, 8), "VALID"),
}


@pytest.mark.small_groups
@pytest.mark.parametrize("name", DEPTHWISE)
def test_depthwise(backend, name):
    x_shape, w_shape, padding = DEPTHWISE[name]
    x, w = jnp.full(x_shape, 3.0), jnp.full(w_shape, 5.0)
    same = {"window_strides": (1,) * (x.ndim - 2), "padding": padding, "feature_group_count": x.shape[-1]}
    same["dimension_numbers"] = ("NWC", "WIO", "NWC") if x.ndim == 3 else ("NHWC", "HWIO", "NHWC")
    assert_same(x, w, same)


def test_bias_gradient_of_an_empty_batch(backend):
    np.testing.assert_array_equal(jc.conv_bias_grad(jnp.ones((0, 4, 3))), jnp.zeros(3))


@pytest.mark.parametrize("shape", [(0, 4, 3), (2, 4, 0), (2, 0, 3)])
@pytest.mark.parametrize("pool", [jc.max_pool, jc.avg_pool])
def test_pooling(backend, pool, shape):
    x = jnp.ones(shape)
    y, vjp = jax.vjp(lambda x: pool(x, (2,), (2,)), x)
    assert y.shape == (shape[0], shape[1] // 2, shape[2])
    assert vjp(y)[0].shape == shape
