#!/usr/bin/env bash
# onnx's reference evaluator is no reference for some pooling and transposed convolutions: wrong sizes, wrong
# numbers, or an IndexError.
#
# Versions: onnx 1.23.2, onnxruntime 1.32.0, Python 3.11, CPU.
# Guess: where a runtime and the reference evaluator of the standard disagree, the runtime is wrong.
# Seen: MaxPool with SAME_LOWER and stride 2 gives 2 of 5 numbers, where the standard's formula, onnx's own
# shape inference and onnxruntime have 3. With a window of 2, stride 1 and one pad on each side it raises
# IndexError. LpPool with ceil_mode scales the last, partial window as if its missing elements were there. A
# ConvTranspose with 2 groups of 2 output channels each raises ValueError.
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


def both(op, x, w=None, **attributes):
    x = np.array(x, np.float32).reshape(1, -1, 5)
    feeds = {"x": x} if w is None else {"x": x, "w": w}
    node = helper.make_node(op, [*feeds], ["y"], **attributes)
    inputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, array.shape) for n, array in feeds.items()]
    graph = helper.make_graph([node], "graph", inputs, [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph.output[0].type.tensor_type.shape
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (runtime,) = session.run(None, feeds)
    assert runtime.shape == tuple(dim.dim_value for dim in inferred.dim)
    try:
        reference = ReferenceEvaluator(model).run(None, feeds)[0].ravel().tolist()
    except (IndexError, ValueError) as error:
        reference = type(error).__name__
    print(f"{op} {attributes}: onnxruntime {runtime.ravel().tolist()}, reference {reference}")
    return runtime.ravel().tolist(), reference


row = [0, 1, 2, 3, 4]
assert both("MaxPool", row, kernel_shape=[2], strides=[2], auto_pad="SAME_LOWER") == ([0, 2, 4], [2, 4])
assert both("MaxPool", row, kernel_shape=[2], pads=[1, 1]) == ([0, 1, 2, 3, 4, 4], "IndexError")
assert both("LpPool", [1] * 5, kernel_shape=[2], strides=[2], p=1, ceil_mode=1) == ([2, 2, 1], [2, 2, 2])
runtime, reference = both("ConvTranspose", [1] * 10, np.ones((2, 2, 1), np.float32), group=2)
assert runtime == [1] * 20 and reference == "ValueError"
PY
echo "as stated"
