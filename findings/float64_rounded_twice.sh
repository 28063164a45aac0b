#!/usr/bin/env bash
# float64 to a 16-bit float is rounded twice, by XLA on a CPU and by ml_dtypes, each for other types.
#
# Versions: jax and jaxlib 0.12.0.1, numpy 2.4.6, ml_dtypes 0.6.0, Python 3.12, x86-64 without AVX512-FP16.
# The same with jax 0.10.2.
# Guess: a conversion gives the nearest number, both with NumPy and with JAX.
# Seen: if a float64 is slightly above the middle between two neighbours, the nearest is the upper one. NumPy's
# float16 gives that, XLA's gives the lower one: it first rounds to float32, which loses the excess, and then to
# even. For bfloat16 both do so. For float8_e4m3fn and float8_e5m2 XLA is right, and NumPy (with ml_dtypes)
# converts by way of float32. So neither is a reference for the other.
set -euo pipefail

python=$(for p in ${PYTHON:-python3 python3.14 python3.13 python3.12 "$HOME"/.pyenv/versions/3.1[234]*/bin/python}; do
    "$p" -c 'import sys; assert sys.version_info >= (3, 12); print(sys.executable)' 2> /dev/null && break
done) || { echo "jax 0.12 needs Python 3.12 or later: PYTHON=... bash $0" >&2; exit 2; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$python" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    jax==0.12.0.1 jaxlib==0.12.0.1 numpy==2.4.6 scipy==1.17.1 ml_dtypes==0.6.0

JAX_PLATFORMS=cpu JAX_ENABLE_X64=1 "$folder/venv/bin/python" -I - <<'PY'
import jax.numpy as jnp
import ml_dtypes
import numpy as np

seen = {}
for dtype in (jnp.float16, jnp.bfloat16, jnp.float8_e4m3fn, jnp.float8_e5m2):
    upper = 1 + float(ml_dtypes.finfo(dtype).eps)
    middle = np.array((1 + upper) / 2 + 2.0**-40)
    assert middle.dtype == np.float64 and middle - 1 > upper - middle
    by_numpy, by_jax = float(middle.astype(dtype)), float(jnp.array(middle).astype(dtype))
    seen[dtype.__name__] = by_numpy == upper, by_jax == upper
    print(f"{middle:.13f} to {dtype.__name__}: nearest {upper}, NumPy {by_numpy}, JAX {by_jax}")
assert seen == {
    "float16": (True, False),
    "bfloat16": (False, False),
    "float8_e4m3fn": (False, True),
    "float8_e5m2": (False, True),
}
PY
echo "as stated"
