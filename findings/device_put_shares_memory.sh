#!/usr/bin/env bash
# jax.device_put on a CPU does not copy a NumPy array: later writes to the array change the JAX array.
# may_alias=False does not prevent that.
#
# Versions: jax and jaxlib 0.12.0.1, numpy 2.4.6, Python 3.12, CPU. The same with 0.10.2.
# Guess: device_put returns a copy, as its documentation says, and all the more with may_alias=False ("x will
# be copied"), since JAX arrays never change.
# Seen: if the array's address is a multiple of 64 both share its memory, and refilling a buffer
# for the next batch changes the last one. Otherwise device_put copies, so that the same program is
# right or wrong depending on malloc's address. jnp.asarray and jnp.array copy in both cases.
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


def buffer(past):
    """16 floats so many bytes past a multiple of 64."""
    memory = np.zeros(256, np.uint8)
    start = -memory.ctypes.data % 64 + past
    return memory[start : start + 64].view(np.float32)


def shares(convert, past):
    numbers = buffer(past)
    converted = jax.block_until_ready(convert(numbers))
    numbers.fill(7)
    return converted.tolist() == [7.0] * 16


ways = {
    "device_put": jax.device_put,
    "device_put, may_alias=False": lambda x: jax.device_put(x, may_alias=False),
    "jnp.asarray": jnp.asarray,
    "jnp.array": jnp.array,
}
for name, convert in ways.items():
    seen = shares(convert, 0), shares(convert, 16)
    print(f"{name}: shares memory that is 64-byte aligned: {seen[0]}, other memory: {seen[1]}")
    assert seen == (name.startswith("device_put"), False)
PY
echo "as stated"
