#!/usr/bin/env bash
# ConvTranspose under auto_pad SAME_UPPER with a filter shorter than the stride has two sizes.
#
# Versions: onnx 1.23.2, onnxruntime 1.32.0, Python 3.11, CPU.
# Guess: 5 inputs with stride 2 give 10 outputs under SAME, as the standard says (output_shape[i] =
# input_shape[i] * strides[i]).
# Seen: for a filter of 1, onnx's reference evaluator gives 10 numbers, with the additional zero in front,
# although SAME_UPPER means at the end: the values are one place late. onnx's shape inference and
# onnxruntime give 9, no padding at all. With a filter of 2 or more all three give 10 and the same numbers.
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

x = np.arange(1, 6, dtype=np.float32).reshape(1, 1, 5)


def transposed(filter_size):
    node = helper.make_node("ConvTranspose", ["x", "w"], ["y"], strides=[2], auto_pad="SAME_UPPER")
    graph = helper.make_graph(
        [node],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [helper.make_tensor("w", TensorProto.FLOAT, (1, 1, filter_size), [1.0] * filter_size)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph.output[0].type.tensor_type.shape
    size = inferred.dim[2].dim_value
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    runs = [r.run(None, {"x": x})[0].ravel().tolist() for r in (session, ReferenceEvaluator(model))]
    print(f"filter of {filter_size}: inferred size {size}, onnxruntime {runs[0]}, reference {runs[1]}")
    return size, *runs


size, runtime, reference = transposed(2)
assert size == 10 and runtime == reference == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
size, runtime, reference = transposed(1)
assert size == 9 and runtime == [1, 0, 2, 0, 3, 0, 4, 0, 5]
assert reference == [0, 1, 0, 2, 0, 3, 0, 4, 0, 5]
PY
echo "as stated"
