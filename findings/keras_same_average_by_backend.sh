#!/usr/bin/env bash
# Keras's average pooling with padding "same" gives other numbers on PyTorch than on JAX.
#
# Versions: keras 3.15.1, torch 2.13.0, jax and jaxlib 0.10.2, Python 3.11, CPU.
# Guess: a Keras model has the same numbers on each backend, up to rounding.
# Seen: AveragePooling1D(4, 1, "same") of 1, 2, 3, 4, 5 is 2, 2.5, 3.5, 4, 4.5 on JAX, which leaves padding
# out of the average, and 1.75, 2.5, 3.5, 4.25, 4.75 on PyTorch, where the first and last number are repeated
# as padding and counted. A window of 2 and stride 1 gives the same on both. (With torch's CUDA builds the
# wheels are large; a CPU build is enough.)
set -euo pipefail

python=${PYTHON:-python3}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$python" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    keras==3.15.1 torch==2.13.0 jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6 scipy==1.17.1 ml_dtypes==0.6.0

cat > "$folder/pool.py" <<'PY'
import keras
import numpy as np

x = np.arange(1, 6, dtype=np.float32).reshape(1, 5, 1)
for window, stride in ((2, 1), (4, 1), (3, 3)):
    y = keras.layers.AveragePooling1D(window, stride, padding="same")(x)
    print(window, stride, *[f"{average:.4f}" for average in keras.ops.convert_to_numpy(y).ravel()])
PY

export JAX_PLATFORMS=cpu KERAS_HOME="$folder"
for backend in jax torch; do
    KERAS_BACKEND=$backend "$folder/venv/bin/python" -I "$folder/pool.py" > "$folder/$backend"
    sed "s/^/$backend: window, stride, averages: /" "$folder/$backend"
done
diff "$folder/jax" - <<'END'
2 1 1.5000 2.5000 3.5000 4.5000 5.0000
4 1 2.0000 2.5000 3.5000 4.0000 4.5000
3 3 2.0000 4.5000
END
diff "$folder/torch" - <<'END'
2 1 1.5000 2.5000 3.5000 4.5000 5.0000
4 1 1.7500 2.5000 3.5000 4.2500 4.7500
3 3 2.0000 4.6667
END

echo "as stated"
