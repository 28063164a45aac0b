#!/usr/bin/env bash
# Forward and reverse mode of max pooling disagree in a window whose numbers are all -inf.
#
# Versions: jax and jaxlib 0.12.0.1, Python 3.12, CPU. The same with 0.10.2.
# Guess: jax.jacfwd and jax.jacrev of one function give the same matrix, and a window of ties has a derivative
# of 1 for the tap that is chosen.
# Seen: forward mode gives a derivative of 0, reverse mode a derivative of 1 for the first tap. If padding
# precedes the window's first -inf, reverse mode chooses the padding, and also gives 0. With any finite
# number instead of -inf both modes agree on the first tap. (Masked scores are such arrays.)
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


def jacobians(value, padding):
    def pool(x):
        return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (2,), (2,), padding)

    x = jnp.full(4, value)
    forward, reverse = np.asarray(jax.jacfwd(pool)(x)), np.asarray(jax.jacrev(pool)(x))
    print(f"four times {value}, padding {padding}:\nforward\n{forward}\nreverse\n{reverse}")
    return forward.tolist(), reverse.tolist()


first_taps = [[1, 0, 0, 0], [0, 0, 1, 0]]
forward, reverse = jacobians(-3e38, ((0, 0),))
assert forward == reverse == first_taps

forward, reverse = jacobians(-jnp.inf, ((0, 0),))
assert forward == [[0, 0, 0, 0]] * 2
assert reverse == first_taps

forward, reverse = jacobians(-jnp.inf, ((1, 1),))
assert forward == [[0, 0, 0, 0]] * 3
assert reverse == [[0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]]
PY
echo "as stated"
