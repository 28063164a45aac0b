"""Every public layer and gradient function, each with arguments for a call."""

import jax
import jax.numpy as jnp
import numpy as np

import jax_convgrad as jc

X = np.random.default_rng(0).standard_normal((2, 6, 7, 4)).astype(np.float32)
W = np.random.default_rng(1).standard_normal((3, 3, 4, 6)).astype(np.float32)
B = np.ones(6, np.float32)
NHWC = ("NHWC", "HWIO", "NHWC")
DEPTHWISE = np.random.default_rng(2).standard_normal((3, 3, 1, 4)).astype(np.float32)

CALLS = {
    "conv_general_dilated": (
        lambda x, w: jc.conv_general_dilated(
            x, w, (2, 1), "SAME", rhs_dilation=(1, 2), dimension_numbers=NHWC
        ),
        (X, W),
    ),
    "features_first": (
        lambda x, w: jc.conv_general_dilated(x, w, (1, 1), "VALID"),
        (X.transpose(0, 3, 1, 2), W.transpose(3, 2, 0, 1)),
    ),
    "conv_transpose": (lambda x, w: jc.conv_transpose(x, w, (2, 2), "SAME"), (X, W)),
    "depthwise": (lambda x, w: jc.conv(x, w, groups=4), (X, DEPTHWISE)),
    "conv": (lambda x, w, b: jc.conv(x, w, b, padding="SAME", activation="relu"), (X, W, B)),
    "conv_input_grad": (
        lambda dy, w: jc.conv_input_grad(dy, w, X.shape, padding="SAME"),
        (np.ones((2, 6, 7, 6), np.float32), W),
    ),
    "conv_filter_grad": (
        lambda x, dy: jc.conv_filter_grad(x, dy, W.shape, padding="SAME"),
        (X, np.ones((2, 6, 7, 6), np.float32)),
    ),
    "conv_bias_grad": (jc.conv_bias_grad, (X,)),
    "max_pool": (lambda x: jc.max_pool(x, (3, 3), (2, 2), "SAME"), (X,)),
    "avg_pool": (lambda x: jc.avg_pool(x, (2, 3), (1, 2), "SAME", count_include_pad=False), (X,)),
}


def gradient(f):
    def g(*args):
        return jax.grad(lambda args: jnp.sum(jnp.sin(f(*args))))(args)

    return g
