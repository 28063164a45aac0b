#!/usr/bin/env bash
# jnp.save and jnp.load keep bfloat16, silently lose the dtype of one 8-bit float, and write a file of another
# one that cannot be read.
#
# Versions: jax and jaxlib 0.12.0.1, numpy 2.4.6, ml_dtypes 0.6.0, Python 3.12. The same with jax 0.10.2.
# Guess: jnp.load returns what jnp.save wrote, or one of them says that the .npy format has no such dtype.
# Seen: bfloat16 comes back. float8_e4m3fn and int4 come back as a NumPy array of raw bytes, dtype V1.
# float8_e5m2 can be saved, but loading raises ValueError, with NumPy's np.load too: the file has the
# dtype '<f1', which NumPy does not know. jnp.savez loses bfloat16 as well.
set -euo pipefail

python=$(for p in ${PYTHON:-python3 python3.14 python3.13 python3.12 "$HOME"/.pyenv/versions/3.1[234]*/bin/python}; do
    "$p" -c 'import sys; assert sys.version_info >= (3, 12); print(sys.executable)' 2> /dev/null && break
done) || { echo "jax 0.12 needs Python 3.12 or later: PYTHON=... bash $0" >&2; exit 2; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$python" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    jax==0.12.0.1 jaxlib==0.12.0.1 numpy==2.4.6 scipy==1.17.1 ml_dtypes==0.6.0

JAX_PLATFORMS=cpu TMPDIR="$folder" "$folder/venv/bin/python" -I - <<'PY'
import os
import tempfile

import jax.numpy as jnp
import numpy as np

file = os.path.join(tempfile.mkdtemp(), "array")


def loaded(dtype, save=jnp.save):
    x = jnp.ones(3, dtype)
    if save is jnp.save:
        save(f"{file}.npy", x)
        read = lambda load: load(f"{file}.npy")
    else:
        save(f"{file}.npz", x=x)
        read = lambda load: load(f"{file}.npz")["x"]
    seen = []
    for load in (jnp.load, np.load):
        try:
            seen.append(str(read(load).dtype))
        except ValueError as error:
            seen.append(f"ValueError: {error}")
    print(f"{dtype.__name__}, {save.__name__}: jnp.load {seen[0]}, np.load {seen[1]}")
    return seen


assert loaded(jnp.bfloat16) == ["bfloat16", "|V2"]
assert loaded(jnp.float8_e4m3fn) == ["|V1", "|V1"]
assert loaded(jnp.int4) == ["|V1", "|V1"]
assert all(what.startswith("ValueError") and "'<f1'" in what for what in loaded(jnp.float8_e5m2))
assert loaded(jnp.bfloat16, jnp.savez) == ["|V2", "|V2"]
PY
echo "as stated"
