#!/usr/bin/env bash
# On a CPU the gradient of a small 3-D wavelet transform takes some 50 times as long as the transform.
#
# Versions: jaxwt 0.1.1, PyWavelets 1.10.0, jax and jaxlib 0.12.0.1, Python 3.12, CPU.
# Guess: a transform is linear, and its gradient is another one of the same size: about as long, or twice.
# Seen: one level of db2 over two volumes of 48 x 48 x 48 takes about 40 ms on two cores, the gradient of the
# squared coefficients' sum about 2 s. The transform is a strided convolution of one channel; its transpose is
# one with a dilated input, which XLA computes on a CPU in a plain loop over the zeros too. In two dimensions
# the same gradient takes about twice as long as the transform.
set -euo pipefail

python=$(for p in ${PYTHON:-python3 python3.14 python3.13 python3.12 "$HOME"/.pyenv/versions/3.1[234]*/bin/python}; do
    "$p" -c 'import sys; assert sys.version_info >= (3, 12); print(sys.executable)' 2> /dev/null && break
done) || { echo "jax 0.12 needs Python 3.12 or later: PYTHON=... bash $0" >&2; exit 2; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$python" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    jaxwt==0.1.1 pywavelets==1.10.0 jax==0.12.0.1 jaxlib==0.12.0.1 numpy==2.5.5 scipy==1.18.1 ml_dtypes==0.6.0

JAX_PLATFORMS=cpu "$folder/venv/bin/python" -I - <<'PY'
import time

import jax
import jax.numpy as jnp
import jaxwt
import numpy as np


def least(function, x):
    jax.block_until_ready(function(x))
    times = []
    for _ in range(3):
        start = time.perf_counter()
        jax.block_until_ready(function(x))
        times.append(time.perf_counter() - start)
    return min(times)


def slower(name, transform, *shape):
    def energy(x):
        return sum((array**2).sum() for array in jax.tree.leaves(transform(x, "db2", level=1, mode="zero")))

    x = jnp.asarray(np.random.default_rng(0).standard_normal(shape, dtype=np.float32))
    forward, gradient = least(jax.jit(energy), x), least(jax.jit(jax.grad(energy)), x)
    print(f"{name}: {1e3 * forward:.3g} ms, its gradient {1e3 * gradient:.3g} ms, {gradient / forward:.3g} times")
    return gradient / forward


assert slower("wavedec2", jaxwt.wavedec2, 8, 256, 256) < 15
assert slower("wavedec3", jaxwt.wavedec3, 2, 48, 48, 48) > 15
PY
echo "as stated"
