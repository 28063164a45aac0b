#!/usr/bin/env bash
# A bfloat16 NumPy array times a Python float is float32, and np.where with one is float64.
#
# Versions: numpy 2.4.6, ml_dtypes 0.6.0, Python 3.11.
# Guess: since NumPy 2 a Python number takes the array's dtype: 0.5 * float16 is float16, as in JAX.
# Seen: that holds for float16 and, with bfloat16 and 8-bit floats, for Python integers (x * 2), but x * 0.5
# and np.maximum(x, 0.0) are float32 and np.where(x > 0, x, 0.0) is float64. A bfloat16 model that NumPy
# computes becomes float32 at its first scale, and float64 at its first mask.
set -euo pipefail

python=${PYTHON:-python3}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$python" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    numpy==2.4.6 ml_dtypes==0.6.0

"$folder/venv/bin/python" -I - <<'PY'
import ml_dtypes
import numpy as np


def dtypes(dtype):
    x = np.ones(2, dtype)
    results = x * 2, np.maximum(x, 0), np.where(x > 0, x, 0), x * 0.5, np.maximum(x, 0.0), np.where(x > 0, x, 0.0)
    seen = [str(y.dtype) for y in results]
    print(f"{np.dtype(dtype)}: x * 2, maximum(x, 0), where(x > 0, x, 0): {seen[:3]}; with 0.5 and 0.0: {seen[3:]}")
    return seen


assert dtypes(np.float16) == ["float16"] * 6
for dtype in (ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn):
    assert dtypes(dtype) == [str(np.dtype(dtype))] * 3 + ["float32", "float32", "float64"]
PY
echo "as stated"
