#!/usr/bin/env bash
# jnp.convolve of integers is computed in float32, and rounds them.
#
# Versions: jax and jaxlib 0.12.0.1, numpy 2.4.6, scipy 1.17.1, Python 3.12, CPU. The same with jax 0.10.2.
# Guess: as np.convolve, jnp.convolve of int32 arrays gives int32, exact up to overflow.
# Seen: it gives float32: [2^24 + 1] convolved with [1] is 2^24. So do jnp.correlate and
# jax.scipy.signal.convolve, of uint8 too, where NumPy and SciPy keep the dtype (and wrap).
# jax.lax.conv_general_dilated and jnp.dot of the same int32 arrays are exact int32.
set -euo pipefail

python=$(for p in ${PYTHON:-python3 python3.14 python3.13 python3.12 "$HOME"/.pyenv/versions/3.1[234]*/bin/python}; do
    "$p" -c 'import sys; assert sys.version_info >= (3, 12); print(sys.executable)' 2> /dev/null && break
done) || { echo "jax 0.12 needs Python 3.12 or later: PYTHON=... bash $0" >&2; exit 2; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$python" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    jax==0.12.0.1 jaxlib==0.12.0.1 numpy==2.4.6 scipy==1.17.1 ml_dtypes==0.6.0

JAX_PLATFORMS=cpu "$folder/venv/bin/python" -I - <<'PY'
import jax
import jax.numpy as jnp
import numpy as np
import scipy.signal

x, one = np.array([2**24 + 1], np.int32), np.array([1], np.int32)
seen = {}
for name, f in {
    "np.convolve": np.convolve,
    "scipy.signal.convolve": scipy.signal.convolve,
    "jnp.convolve": jnp.convolve,
    "jnp.correlate": jnp.correlate,
    "jax.scipy.signal.convolve": jax.scipy.signal.convolve,
    "jnp.dot": jnp.dot,
    "lax": lambda x, w: jax.lax.conv(jnp.array(x)[None, None], jnp.array(w)[None, None], (1,), "VALID"),
}.items():
    y = f(x, one)
    seen[name] = str(y.dtype), int(y.item())
    print(f"{name} of {x} and {one}: {seen[name]}")
exact, rounded = ("int32", 2**24 + 1), ("float32", 2**24)
for name in ("np.convolve", "scipy.signal.convolve", "jnp.dot", "lax"):
    assert seen[name] == exact
for name in ("jnp.convolve", "jnp.correlate", "jax.scipy.signal.convolve"):
    assert seen[name] == rounded

pixels = np.full(2, 200, np.uint8)
both = np.convolve(pixels, np.ones(2, np.uint8)), jnp.convolve(pixels, jnp.ones(2, jnp.uint8))
print(f"{pixels} with ones: {[(str(y.dtype), y.tolist()) for y in both]}")
assert both[0].dtype == np.uint8 and both[0].tolist() == [200, 144, 200]
assert both[1].dtype == jnp.float32 and both[1].tolist() == [200, 400, 200]
PY
echo "as stated"
