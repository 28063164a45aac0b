#!/usr/bin/env bash
# numpy.sort of a bfloat16 or 8-bit float array with a NaN leaves other numbers out of order.
#
# Versions: numpy 2.4.6, ml_dtypes 0.6.0 (bfloat16 and the 8-bit floats of jax), Python 3.11.
# Guess: the numbers come in order and NaN last, as for float16 and float32.
# Seen: sort of 3, NaN, 2, 1 gives 3, NaN, 1, 2: each side of the NaN is sorted by itself. np.median of 1, 2,
# 3, NaN, 4 is 3, where it is NaN for float32.
set -euo pipefail

python=${PYTHON:-python3}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$python" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    numpy==2.4.6 ml_dtypes==0.6.0

"$folder/venv/bin/python" -I - <<'PY'
import warnings

import ml_dtypes
import numpy as np

warnings.simplefilter("ignore", RuntimeWarning)

numbers = [3, np.nan, 2, 1]


def seen(dtype):
    x = np.array(numbers, dtype)
    order, ranks = np.sort(x).astype(float).tolist(), np.argsort(x).tolist()
    print(f"{np.dtype(dtype)}: sort {order}, argsort {ranks}")
    return [str(n) for n in order], ranks


for dtype in (np.float16, np.float32):
    assert seen(dtype) == (["1.0", "2.0", "3.0", "nan"], [3, 2, 0, 1])
for dtype in (ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2):
    assert seen(dtype)[0] == ["3.0", "nan", "1.0", "2.0"]

medians = [str(np.median(np.array([1, 2, 3, np.nan, 4], dtype))) for dtype in (np.float32, ml_dtypes.bfloat16)]
print(f"median of 1, 2, 3, NaN, 4 in float32 and bfloat16: {medians}")
assert medians == ["nan", "3"]
PY
echo "as stated"
