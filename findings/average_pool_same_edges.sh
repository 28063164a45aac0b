#!/usr/bin/env bash
# Average pooling with padding "SAME" is not one function: Flax divides by the whole window at the edges,
# Haiku by the number of elements inside the array.
#
# Versions: flax 0.12.12, dm-haiku 0.0.17, equinox 0.13.8, jax 0.12.0.1, Python 3.12, CPU. The same with flax
# 0.12.8 and jax 0.10.2.
# Guess: avg_pool of ones is ones under "SAME", as in TensorFlow, where the word comes from; a model gives the
# same numbers in each JAX library.
# Seen: for ones and a window of 3, Haiku gives 1, 1, 1. Flax (linen and nnx) gives 2/3, 1, 2/3, unless
# count_include_pad=False is set. Equinox gives 2/3, 1, 2/3, has no such argument, and with use_ceil=True
# also divides a window that reaches past the end by its whole size: 1/2.
set -euo pipefail

python=$(for p in ${PYTHON:-python3 python3.14 python3.13 python3.12 "$HOME"/.pyenv/versions/3.1[234]*/bin/python}; do
    "$p" -c 'import sys; assert sys.version_info >= (3, 12); print(sys.executable)' 2> /dev/null && break
done) || { echo "jax 0.12 needs Python 3.12 or later: PYTHON=... bash $0" >&2; exit 2; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$python" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    flax==0.12.12 dm-haiku==0.0.17 equinox==0.13.8 jax==0.12.0.1 jaxlib==0.12.0.1 numpy==2.4.6 scipy==1.17.1 ml_dtypes==0.6.0

JAX_PLATFORMS=cpu "$folder/venv/bin/python" -I - <<'PY'
import equinox
import flax.linen
import haiku
import jax.numpy as jnp
import numpy as np
from flax import nnx

row = jnp.ones((1, 3, 1))
seen = {
    "haiku": haiku.avg_pool(row, (3, 1), (1, 1), "SAME"),
    "linen": flax.linen.avg_pool(row, (3,), padding="SAME"),
    "nnx": nnx.avg_pool(row, (3,), padding="SAME"),
    "linen, told": flax.linen.avg_pool(row, (3,), padding="SAME", count_include_pad=False),
    "equinox": equinox.nn.AvgPool1d(3, 1, padding=1)(jnp.ones((1, 3))),
    "equinox, 5 numbers, window 2, use_ceil": equinox.nn.AvgPool1d(2, 2, use_ceil=True)(jnp.ones((1, 5))),
}
for name, y in seen.items():
    print(f"{name}: {y.ravel()}")
np.testing.assert_array_equal(seen["haiku"].ravel(), [1, 1, 1])
np.testing.assert_array_equal(seen["linen, told"].ravel(), [1, 1, 1])
for name in ("linen", "nnx", "equinox"):
    np.testing.assert_allclose(seen[name].ravel(), [2 / 3, 1, 2 / 3], rtol=1e-6)
np.testing.assert_array_equal(seen["equinox, 5 numbers, window 2, use_ceil"].ravel(), [1, 1, 0.5])
PY
echo "as stated"
