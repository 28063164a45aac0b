#!/usr/bin/env bash
# The filter gradient of a grouped convolution is too large by a factor, where the batch is split over one
# axis of a mesh of two.
#
# Versions: jax and jaxlib 0.12.0.1, Python 3.12, CPU, 8 host devices as a mesh of 4 x 2. The same with
# 0.10.2.
# Guess: sharding an input changes where a gradient is computed, never its value.
# Seen: with feature_group_count > 1 each element of dW is exactly 2 times too large where the batch is split
# over the axis of 4, and 4 times where it is split over the axis of 2: the partial sums are added over all 8
# devices, of which 2 or 4 hold the same part of the batch. Split over both axes it is right, and so it is
# without groups.
set -euo pipefail

python=$(for p in ${PYTHON:-python3 python3.14 python3.13 python3.12 "$HOME"/.pyenv/versions/3.1[234]*/bin/python}; do
    "$p" -c 'import sys; assert sys.version_info >= (3, 12); print(sys.executable)' 2> /dev/null && break
done) || { echo "jax 0.12 needs Python 3.12 or later: PYTHON=... bash $0" >&2; exit 2; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$python" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    jax==0.12.0.1 jaxlib==0.12.0.1 numpy==2.4.6 scipy==1.17.1 ml_dtypes==0.6.0

JAX_PLATFORMS=cpu XLA_FLAGS=--xla_force_host_platform_device_count=8 "$folder/venv/bin/python" -I - <<'PY'
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

mesh = jax.make_mesh((4, 2), ("four", "two"), axis_types=(AxisType.Auto,) * 2)
x = jnp.arange(8 * 6 * 4.0).reshape(8, 6, 4) % 7


def ratio(groups, axes):
    """The sharded gradient over that of one device."""

    def loss(w, x):
        dims = ("NWC", "WIO", "NWC")
        return jax.lax.conv_general_dilated(x, w, (1,), "SAME", dimension_numbers=dims, feature_group_count=groups).sum()

    w = jnp.ones((3, 4 // groups, 4))
    grad = jax.jit(jax.grad(loss))
    split = jax.device_put(x, NamedSharding(mesh, PartitionSpec(axes)))
    return np.unique(np.asarray(grad(w, split)) / np.asarray(grad(w, x))).tolist()


seen = {}
for groups in (1, 2, 4):
    for axes in ("four", "two", ("four", "two")):
        seen[groups, axes] = ratio(groups, axes)
        print(f"groups {groups}, batch split over {axes}: dW is {seen[groups, axes]} times that of one device")
for groups in (2, 4):
    assert seen[groups, "four"] == [2.0]
    assert seen[groups, "two"] == [4.0]
    assert seen[groups, ("four", "two")] == [1.0]
assert all(seen[1, axes] == [1.0] for axes in ("four", "two", ("four", "two")))
PY
echo "as stated"
