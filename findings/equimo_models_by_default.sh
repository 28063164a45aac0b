#!/usr/bin/env bash
# Two of equimo's vision models cannot be used as their signatures say: SHViT fails on every image with its
# defaults, and the builder lowformer_backbone_b0() always fails.
#
# Versions: equimo 2.7.0, equinox 0.13.8, jax and jaxlib 0.12.0.1, Python 3.12, CPU.
# Guess: a model that has a default for each argument except the key can be built and called, and a builder
# needs only the key that it asks for.
# Seen: SHViT(key=...) is built, and its call raises a ValueError: its LayerNorm of 384 channels gets an array of
# 2 x 2, since the norm is mapped over the channels instead of the positions. lowformer_backbone_b0(key=...)
# raises a TypeError, as it does not pass on attention_type, which LowFormer requires; LowFormer(..., attention_type=...) works.
set -euo pipefail

python=$(for p in ${PYTHON:-python3 python3.14 python3.13 python3.12 "$HOME"/.pyenv/versions/3.1[234]*/bin/python}; do
    "$p" -c 'import sys; assert sys.version_info >= (3, 12); print(sys.executable)' 2> /dev/null && break
done) || { echo "jax 0.12 needs Python 3.12 or later: PYTHON=... bash $0" >&2; exit 2; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$python" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    equimo==2.7.0 equinox==0.13.8 jax==0.12.0.1 jaxlib==0.12.0.1 numpy==2.5.5 scipy==1.18.1 ml_dtypes==0.6.0

JAX_PLATFORMS=cpu "$folder/venv/bin/python" -I - <<'PY'
import jax
from equimo.vision.models import SHViT, lowformer_backbone_b0

model = SHViT(key=jax.random.key(0))
try:
    model(jax.numpy.ones((3, 128, 128)), inference=True)
    raise SystemExit("SHViT works")
except ValueError as error:
    print("SHViT:", error)
    assert "shape=(384,)" in str(error) and "(2, 2)" in str(error)
try:
    lowformer_backbone_b0(key=jax.random.key(0))
    raise SystemExit("LowFormer's builder works")
except TypeError as error:
    print("lowformer_backbone_b0:", error)
    assert "missing" in str(error) and "attention_type" in str(error)
PY
echo "as stated"
