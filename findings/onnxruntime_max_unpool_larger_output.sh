#!/usr/bin/env bash
# onnxruntime and onnx's reference evaluator put the values of MaxUnpool with an output_shape in different
# places.
#
# Versions: onnxruntime 1.32.0, onnx 1.23.2, Python 3.11, CPU.
# Guess: the input I holds the flat indices that MaxPool gave, of the array that it pooled; where the output
# is asked to be larger than that by output_shape, each value keeps its row and column.
# Seen: the reference evaluator does that: index 5 of a 4 x 4 array is row 1, column 1, in a 5 x 5 output too.
# onnxruntime reads the index in the larger output, and puts the value into row 1, column 0. Without
# output_shape they agree.
set -euo pipefail

python=${PYTHON:-python3}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$python" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    onnxruntime==1.32.0 onnx==1.23.2 numpy==2.4.6

"$folder/venv/bin/python" -I - <<'PY'
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

feeds = {
    "x": np.array([1, 2, 3, 4], np.float32).reshape(1, 1, 2, 2),
    "indices": np.array([5, 7, 13, 15], np.int64).reshape(1, 1, 2, 2),
    "shape": np.array([1, 1, 5, 5], np.int64),
}


def places(names):
    node = helper.make_node("MaxUnpool", names, ["y"], kernel_shape=[2, 2], strides=[2, 2])
    inputs = [
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(feeds[n].dtype), feeds[n].shape) for n in names
    ]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1, None, None])
    graph = helper.make_graph([node], "graph", inputs, [output])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=8)
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    seen = []
    for name, runtime in (("onnxruntime", session), ("reference", ReferenceEvaluator(model))):
        y = runtime.run(None, {n: feeds[n] for n in names})[0]
        seen.append(np.argwhere(y[0, 0]).tolist())
        print(f"inputs {names}, {name}, output of {y.shape[2:]}: values at {seen[-1]}")
    return seen


even = [[1, 1], [1, 3], [3, 1], [3, 3]]
assert places(["x", "indices"]) == [even, even]
assert places(["x", "indices", "shape"]) == [[[1, 0], [1, 2], [2, 3], [3, 0]], even]
PY
echo "as stated"
