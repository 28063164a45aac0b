#!/usr/bin/env bash
# PyTorch changes a JAX array in place, through DLPack or through the read-only NumPy array that JAX gives.
#
# Versions: jax and jaxlib 0.10.2, torch 2.13.0, numpy 2.4.6, Python 3.11, CPU.
# Guess: a JAX array never changes; what JAX exports is marked as read-only, as NumPy sees it, and PyTorch
# copies it or refuses to write.
# Seen: torch.from_dlpack(x).add_(1) silently turns the zeros of x into ones, so results computed from
# x before and after differ. np.from_dlpack(x) and np.asarray(x) are read-only, but
# torch.from_numpy(np.asarray(x)).add_(1) still writes, after a warning. torch.tensor(x) copies. (With
# torch's CUDA builds the wheels are large; a CPU build is enough.)
set -euo pipefail

python=${PYTHON:-python3}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$python" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    torch==2.13.0 jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6 scipy==1.17.1 ml_dtypes==0.6.0

JAX_PLATFORMS=cpu "$folder/venv/bin/python" -I - <<'PY'
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import torch

total = jax.jit(jnp.sum)


def changes(to_torch):
    """The total of four zeros before and after PyTorch adds 1 to its tensor, and the warnings."""
    x = jax.block_until_ready(jnp.zeros(4))
    before = total(x).item()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        to_torch(x).add_(1)
    after = total(x).item()
    return before, after, [str(w.message).split(",")[0] for w in said if w.category is UserWarning]


assert not np.from_dlpack(jnp.zeros(4)).flags.writeable and not np.asarray(jnp.zeros(4)).flags.writeable
seen = {
    "torch.from_dlpack(x)": changes(torch.from_dlpack),
    "torch.from_numpy(np.asarray(x))": changes(lambda x: torch.from_numpy(np.asarray(x))),
    "torch.tensor(x)": changes(torch.tensor),
}
for name, what in seen.items():
    print(f"{name}: total before and after: {what[:2]}, warnings: {what[2]}")
assert seen["torch.from_dlpack(x)"] == (0, 4, [])
assert seen["torch.from_numpy(np.asarray(x))"] == (0, 4, ["The given NumPy array is not writable"])
assert seen["torch.tensor(x)"][:2] == (0, 0)
PY
echo "as stated"
