#!/usr/bin/env bash
# Flax's avg_pool adds up in the dtype of its input: integers wrap, and 16-bit floats stop growing or
# overflow.
#
# Versions: flax 0.12.12, jax and jaxlib 0.12.0.1, Python 3.12, CPU. The same with flax 0.12.8 and jax 0.10.2.
# Guess: the average of numbers lies between the smallest and the largest, as that of jnp.mean does.
# Seen: the average of uint8 pixels 248, 249, 252, 253 is 58.5: the sum wraps at 256, and only the division is
# in floating point. The average of 4096 bfloat16 threes is 1 (the sum stays at 1024), that of 4096 float16
# hundreds is inf. flax.nnx has the same function. jnp.mean gives 250.5, 3 and 100.
set -euo pipefail

python=$(for p in ${PYTHON:-python3 python3.14 python3.13 python3.12 "$HOME"/.pyenv/versions/3.1[234]*/bin/python}; do
    "$p" -c 'import sys; assert sys.version_info >= (3, 12); print(sys.executable)' 2> /dev/null && break
done) || { echo "jax 0.12 needs Python 3.12 or later: PYTHON=... bash $0" >&2; exit 2; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$python" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    flax==0.12.12 jax==0.12.0.1 jaxlib==0.12.0.1 numpy==2.4.6 scipy==1.17.1 ml_dtypes==0.6.0

JAX_PLATFORMS=cpu "$folder/venv/bin/python" -I - <<'PY'
import flax.linen
import jax.numpy as jnp
from flax import nnx


def averages(numbers, dtype):
    x = jnp.array(numbers, dtype)
    window = x.shape
    seen = [pool(x[None, ..., None], window).item() for pool in (flax.linen.avg_pool, nnx.avg_pool)]
    print(f"{x.size} of {dtype.__name__}: avg_pool of linen and nnx {seen}, mean {x.mean()}")
    assert seen[0] == seen[1]
    return seen[0], x.mean().item()


assert averages([[248, 249], [252, 253]], jnp.uint8) == (58.5, 250.5)
assert averages([[3] * 64] * 64, jnp.bfloat16) == (1.0, 3.0)
assert averages([[100] * 64] * 64, jnp.float16) == (float("inf"), 100.0)
PY
echo "as stated"
