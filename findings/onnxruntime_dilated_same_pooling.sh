#!/usr/bin/env bash
# onnxruntime forgets dilations when it pads a pooling window by auto_pad SAME_UPPER or SAME_LOWER: the result
# is too small.
#
# Versions: onnxruntime 1.32.0, onnx 1.23.2, Python 3.11, CPU.
# Guess: SAME gives ceil(size / stride) outputs, as the standard says and onnx's shape inference and reference
# evaluator have it; what a runtime does not support, it refuses.
# Seen: MaxPool of 5 numbers with a window of 2, dilation 2 and SAME_UPPER gives 4 numbers, padded for a
# window of 2 without dilation, and no warning; so does AveragePool. A declared output shape of 5 does not
# help. Conv with the same attributes is refused ("Dilation not supported"). The reference evaluator's
# AveragePool has the right size and a 0 for the last window, which holds a 3.
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

x = np.arange(5, dtype=np.float32).reshape(1, 1, 5)


def results(op, weights=()):
    """Of onnxruntime and the reference evaluator, and the inferred shape."""
    pads = dict(auto_pad="SAME_UPPER", dilations=[2])
    node = helper.make_node(op, ["x", *weights], ["y"], kernel_shape=[2], **pads)
    graph = helper.make_graph(
        [node],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor("w", TensorProto.FLOAT, (1, 1, 2), [1.0, 1.0])] if weights else [],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    (reference,) = ReferenceEvaluator(model).run(None, {"x": x})
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    try:
        seen = session.run(None, {"x": x})[0].ravel().tolist()
    except onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument as error:
        seen = str(error)
    print(f"{op} of {x.ravel()}: onnxruntime {seen}, reference {reference.ravel()}")
    assert reference.shape == x.shape
    return seen, reference.ravel().tolist()


assert results("MaxPool") == ([2, 3, 4, 3], [1, 2, 3, 4, 3])
assert results("AveragePool") == ([1, 2, 3, 3], [1, 2, 3, 3, 0])
assert "Dilation not supported" in results("Conv", ["w"])[0]
PY
echo "as stated"
