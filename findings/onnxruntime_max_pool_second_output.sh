#!/usr/bin/env bash
# onnxruntime's MaxPool of -inf is -3.4e38, unless its second output is asked for.
#
# Versions: onnxruntime 1.32.0, onnx 1.23.2, Python 3.11, CPU.
# Guess: the maximum of -inf is -inf, and asking for Indices does not change the other output.
# Seen: a float32 window that holds -inf only (a masked map of scores) gives the least finite float,
# -3.4028235e38, and so does GlobalMaxPool. With the output Indices in the node, which takes another kernel,
# it is -inf. float64 and float16 give -inf either way.
set -euo pipefail

python=${PYTHON:-python3}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$python" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    onnxruntime==1.32.0 onnx==1.23.2 numpy==2.4.6

"$folder/venv/bin/python" -I - <<'PY'
import numpy as np
import onnxruntime
from onnx import TensorProto, helper


def run(op, dtype, outputs=("y",), **attributes):
    x = np.full((1, 1, 4), -np.inf, dtype)
    kind = helper.np_dtype_to_tensor_dtype(x.dtype)
    node = helper.make_node(op, ["x"], outputs, **attributes)
    kinds = dict(y=kind, indices=TensorProto.INT64)
    graph = helper.make_graph(
        [node],
        "graph",
        [helper.make_tensor_value_info("x", kind, x.shape)],
        [helper.make_tensor_value_info(name, kinds[name], [1, 1, None]) for name in outputs],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    y = session.run(None, {"x": x})[0]
    print(f"{op}, {np.dtype(dtype).name}, outputs {outputs}: {y.ravel()}")
    return set(y.ravel().tolist())


least = {float(np.finfo(np.float32).min)}
infinite = {-np.inf}
assert run("MaxPool", np.float32, kernel_shape=[2]) == least
assert run("MaxPool", np.float32, ("y", "indices"), kernel_shape=[2]) == infinite
assert run("GlobalMaxPool", np.float32) == least
assert run("MaxPool", np.float64, kernel_shape=[2]) == infinite
assert run("MaxPool", np.float16, kernel_shape=[2]) == infinite
PY
echo "as stated"
