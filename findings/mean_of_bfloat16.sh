#!/usr/bin/env bash
# numpy's mean of 4096 bfloat16 threes is 0.25.
#
# Versions: numpy 2.4.6, ml_dtypes 0.6.0, Python 3.11.
# Guess: as for float16, where sum adds in pairs and mean takes float32 on its way: 3.
# Seen: ndarray.sum of bfloat16 adds one by one in bfloat16 and stays at 1024 from there on, and mean divides
# that by 4096 and gives 0.25, less than every number in the array. var of the same is not 0. x @ y is 12288:
# it adds up in float32.
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


def seen(dtype):
    x = np.full(4096, 3, dtype)
    values = [float(v) for v in (x.sum(), x.mean(), x.var(), x @ np.ones_like(x))]
    print(f"{np.dtype(dtype)}: sum, mean, variance, dot product with ones: {values}")
    return values


assert seen(np.float16) == [12288, 3, 0, 12288]
total, mean, variance, dot = seen(ml_dtypes.bfloat16)
assert (total, mean, dot) == (1024, 0.25, 12288)
assert variance > 0
PY
echo "as stated"
