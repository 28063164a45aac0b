#!/usr/bin/env bash
# Max pooling with negative padding runs forward and in forward mode, and cannot be differentiated in reverse.
#
# Versions: jax and jaxlib 0.12.0.1, Python 3.12, CPU. The same with 0.10.2.
# Guess: what has a value and a jvp has a vjp; negative padding, which cuts elements off, is valid in all of
# lax.
# Seen: jax.grad of reduce_window with max (or min) and a padding of -1 raises a TypeError about the start
# indices of a slice, on either side. With add it works.
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

x = jnp.arange(5.0)
for padding in ((-1, 0), (0, -1)):
    for name, op, start in (("max", jax.lax.max, -jnp.inf), ("min", jax.lax.min, jnp.inf), ("add", jax.lax.add, 0.0)):

        def pool(x):
            return jax.lax.reduce_window(x, start, op, (2,), (1,), (padding,))

        value, tangent = jax.jvp(pool, (x,), (jnp.ones(5),))
        try:
            reverse = jax.grad(lambda x: pool(x).sum())(x).tolist()
        except TypeError as error:
            reverse = f"TypeError: {error}"
        print(f"{name}, padding {padding}: value {value}, jvp {tangent}, gradient {reverse}")
        if name == "add":
            assert reverse == ([0, 1, 2, 2, 1] if padding == (-1, 0) else [1, 2, 2, 1, 0])
        else:
            assert tangent.tolist() == [1, 1, 1]
            assert "nonnegative" in reverse or "limit_indices" in reverse, reverse
PY
echo "as stated"
