#!/usr/bin/env bash
# kfac-jax finds no layer behind jax.jit or jax.checkpoint, in a grouped or 1-D convolution, or under a cast,
# and says nothing: it falls back to a diagonal.
#
# Versions: kfac-jax 0.0.8, jax and jaxlib 0.10.2, Python 3.11, CPU.
# Guess: jax.jit and jax.checkpoint change no number, so a layer inside them gets the same
# Kronecker-factored curvature as without them; if a layer is not known, a warning says so.
# Seen: BlockDiagonalCurvature uses Conv2DTwoKroneckerFactored for a convolution, but NaiveDiagonal, another
# optimizer, if it is under jax.jit or jax.checkpoint, has feature groups, or has one dimension, and for a
# dense layer in bfloat16 with float32 parameters or as w.T @ x.T. There is no warning and no log. It finds a
# dilated convolution, and jax.vmap of a dense layer too.
set -euo pipefail

python=${PYTHON:-python3}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$python" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    kfac-jax==0.0.8 jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6 scipy==1.17.1 ml_dtypes==0.6.0

JAX_PLATFORMS=cpu "$folder/venv/bin/python" -I - <<'PY'
import logging
import warnings

import jax
import jax.numpy as jnp
import kfac_jax

warnings.simplefilter("error")
warnings.simplefilter("ignore", DeprecationWarning)
records = []
logging.getLogger().addHandler(type("Kept", (logging.Handler,), {"emit": lambda self, record: records.append(record)})())
logging.getLogger().setLevel(logging.WARNING)


def block(layer, x, w):
    """The kind of curvature block that the layer's filter gets."""

    def loss(params, x):
        y = layer(x, params["w"])
        kfac_jax.register_normal_predictive_distribution(y.reshape(len(y), -1))
        return (y**2).mean()

    estimator = kfac_jax.BlockDiagonalCurvature(func=loss, params_index=0)
    estimator.finalize(({"w": w}, x))
    (only,) = estimator.blocks
    return type(only).__name__


def conv(x, w, **settings):
    return jax.lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), **settings)


def conv_1d(x, w):
    return jax.lax.conv_general_dilated(x, w, (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC"))


def in_bfloat16(x, w):
    return (x.astype(jnp.bfloat16) @ w.astype(jnp.bfloat16)).astype(jnp.float32)


images, w = jnp.ones((2, 8, 8, 3)), jnp.ones((3, 3, 3, 4))
rows, matrix = jnp.ones((2, 3)), jnp.ones((3, 4))
seen = {
    "convolution": block(conv, images, w),
    "dilated": block(lambda x, w: conv(x, w, rhs_dilation=(2, 2)), images, w),
    "under jit": block(jax.jit(conv), images, w),
    "under checkpoint": block(jax.checkpoint(conv), images, w),
    "depthwise": block(lambda x, w: conv(x, w, feature_group_count=3), images, jnp.ones((3, 3, 1, 3))),
    "1-D": block(conv_1d, jnp.ones((2, 8, 3)), jnp.ones((3, 3, 4))),
    "dense": block(lambda x, w: x @ w, rows, matrix),
    "dense under vmap": block(lambda x, w: jax.vmap(lambda row: row @ w)(x), rows, matrix),
    "dense in bfloat16": block(in_bfloat16, rows, matrix),
    "dense as w.T @ x.T": block(lambda x, w: (w.T @ x.T).T, rows, matrix),
}
for name, kind in seen.items():
    print(f"{name}: {kind}")
assert {seen[name] for name in ("convolution", "dilated")} == {"Conv2DTwoKroneckerFactored"}
assert {seen[name] for name in ("dense", "dense under vmap")} == {"DenseTwoKroneckerFactored"}
diagonal = ("under jit", "under checkpoint", "depthwise", "1-D", "dense in bfloat16", "dense as w.T @ x.T")
assert {seen[name] for name in diagonal} == {"NaiveDiagonal"}
assert records == []
PY
echo "as stated"
