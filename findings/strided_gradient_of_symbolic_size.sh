#!/usr/bin/env bash
# A strided convolution is exported for a symbolic image size, and its gradients are not.
#
# Versions: jax and jaxlib 0.12.0.1, Python 3.12, CPU. The same with 0.10.2 and 0.9.1.
# Guess: if the forward pass can be exported for images of h x h, so can its gradients.
# Seen: with stride 1 all of it can. With stride 2 the forward pass can, and both gradients (dx and dw) raise
# a ValueError while they are traced, whatever the padding: the padding that lax computes for them is an
# expression in h, and the convolution refuses it as not an integer.
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
from jax import export

(h,) = export.symbolic_shape("h", constraints=["h >= 8"])
x = jax.ShapeDtypeStruct((1, h, h, 2), jnp.float32)
w = jax.ShapeDtypeStruct((3, 3, 2, 2), jnp.float32)


def exported(f):
    try:
        export.export(jax.jit(f))(x, w)
    except ValueError as error:
        return str(error).split(", got")[0]
    return "exported"


for padding in ("SAME", "VALID", ((1, 1), (1, 1))):
    for stride in (1, 2):

        def layer(x, w):
            dims = ("NHWC", "HWIO", "NHWC")
            return jax.lax.conv_general_dilated(x, w, (stride, stride), padding, dimension_numbers=dims)

        seen = [exported(layer)]
        seen += [exported(jax.grad(lambda x, w: layer(x, w).sum(), argument)) for argument in (0, 1)]
        print(f"padding {padding}, stride {stride}: forward, dx, dw: {seen}")
        refused = "padding argument to conv_general_dilated should be a string or a sequence of (low, high) pairs"
        assert seen == ["exported"] + ["exported" if stride == 1 else refused] * 2
PY
echo "as stated"
