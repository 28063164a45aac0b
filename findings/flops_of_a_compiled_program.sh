#!/usr/bin/env bash
# XLA counts no operations on padding, a loop's body once, and each call to LAPACK as -1.
#
# Versions: jax and jaxlib 0.12.0.1, Python 3.12, CPU. The same with 0.10.2.
# Guess: cost_analysis()["flops"] of a compiled convolution is 2 x outputs x taps x channels, that of a loop
# of 10 is 10 times that of its body, and that of a QR decomposition is some thousand operations.
# Seen: taps on padding or on the zeros of a dilated input are not counted: "SAME" 3 x 3 of 8 x 8 counts 22 x
# 22 taps and not 24 x 24, and wider padding changes nothing once each input meets each tap. The loop counts
# as one pass. Each custom call to LAPACK counts as -1, so the Q of jnp.linalg.qr takes -2 operations.
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


def flops(f, *args):
    count = jax.jit(f).lower(*args).compile().cost_analysis()["flops"]
    print(f"{f.__name__}: {count:.0f}")
    return count


x, w = jnp.ones((1, 8, 8, 4)), jnp.ones((3, 3, 4, 4))
product = 2 * 4 * 4  # of one tap at one output


def conv(x, padding):
    return jax.lax.conv_general_dilated(x, w, (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def valid(x):
    return conv(x, "VALID")


def same(x):
    return conv(x, "SAME")


def padded_by_50(x):
    return conv(x, [(50, 50), (50, 50)])


def ten_times(x):
    return jax.lax.scan(lambda x, _: (conv(x, "SAME"), None), x, length=10)[0]


def orthogonal(a):
    return jnp.linalg.qr(a)[0]


def triangular_solve(a):
    return jax.lax.linalg.triangular_solve(a, a, left_side=True)


assert flops(valid, x) == 6**2 * 9 * product
assert flops(same, x) == 22**2 * product < 8**2 * 9 * product
assert flops(padded_by_50, x) == 24**2 * product < 106**2 * 9 * product
assert flops(same, x) <= flops(ten_times, x) < 1.01 * flops(same, x)
assert flops(orthogonal, jnp.eye(16)) == -2
assert flops(triangular_solve, jnp.eye(16)) == -1
PY
echo "as stated"
