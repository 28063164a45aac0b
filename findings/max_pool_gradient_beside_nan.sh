#!/usr/bin/env bash
# The gradient of a max pooling window with a NaN goes to a number that is not the result.
#
# Versions: jax and jaxlib 0.12.0.1, Python 3.12, CPU. The same with 0.10.2.
# Guess: a window with a NaN gives NaN, and its gradient is NaN too (as that of jnp.max), or goes to the NaN.
# Seen: the value is NaN, and the gradient goes to the largest of the numbers after the last NaN, regardless of
# those before it. It goes to the NaN itself only if nothing follows it. If padding follows, the
# gradient is lost in reverse mode only; forward mode still gives it to the NaN.
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

nan = jnp.nan


def derivatives(numbers, padding=0):
    def pool(x):
        y = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (len(numbers) + padding,), (1,), ((0, padding),))
        return y[0]

    x = jnp.array(numbers)
    value, reverse, forward = pool(x), jax.grad(pool)(x).tolist(), jax.jacfwd(pool)(x).tolist()
    print(f"{numbers}, padding {padding} behind: value {value}, reverse {reverse}, forward {forward}")
    assert jnp.isnan(value)
    return reverse, forward


assert derivatives([nan, 1.0, 2.0]) == ([0, 0, 1], [0, 0, 1])
assert derivatives([9.0, nan, 1.0]) == ([0, 0, 1], [0, 0, 1])
assert derivatives([1.0, 2.0, nan]) == ([0, 0, 1], [0, 0, 1])
assert derivatives([2.0, nan], padding=1) == ([0, 0], [0, 1])
assert jnp.isnan(jax.grad(jnp.max)(jnp.array([nan, 1.0, 2.0]))).all()
PY
echo "as stated"
