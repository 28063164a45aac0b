#!/usr/bin/env bash
# PyTorch's lp_pool is no norm: of negative numbers it is negative or NaN, and under ceil_mode it counts
# numbers that are not there.
#
# Versions: torch 2.13.0, numpy 2.4.6, onnx 1.23.2, onnxruntime 1.32.0, Python 3.11, CPU.
# Guess: the p-norm of each window, (sum of |x|^p)^(1/p), as ONNX's LpPool gives.
# Seen: lp_pool1d of -1, -1 is -2 with p = 1 and NaN with p = 3: no absolute value is taken. Of five ones,
# window 2, stride 2 and ceil_mode, the last window holds a single 1 and gives 2 with p = 1. onnxruntime gives
# 2, 2^(1/3) and 1. (With torch's CUDA builds the wheel is large; a CPU build is enough.)
set -euo pipefail

python=${PYTHON:-python3}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$python" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    torch==2.13.0 numpy==2.4.6 onnx==1.23.2 onnxruntime==1.32.0

"$folder/venv/bin/python" -I - <<'PY'
import numpy as np
import onnxruntime
import torch
from onnx import TensorProto, helper


def both(numbers, p, ceil_mode=False):
    x = np.array(numbers, np.float32).reshape(1, 1, -1)
    node = helper.make_node("LpPool", ["x"], ["y"], p=p, kernel_shape=[2], strides=[2], ceil_mode=int(ceil_mode))
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n, shape in (("x", x.shape), ("y", None))]
    graph = helper.make_graph([node], "graph", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    seen = torch.nn.functional.lp_pool1d(torch.tensor(x), p, 2, 2, ceil_mode), session.run(None, {"x": x})[0]
    pooled, onnx = ([f"{n:.4f}" for n in y.ravel()] for y in seen)
    print(f"{numbers}, p = {p}, ceil_mode {ceil_mode}: torch {pooled}, onnxruntime {onnx}")
    return pooled, onnx


assert both([-1, -1], 1) == (["-2.0000"], ["2.0000"])
assert both([-1, -1], 3) == (["nan"], ["1.2599"])
assert both([1] * 5, 1, ceil_mode=True) == (["2.0000", "2.0000", "2.0000"], ["2.0000", "2.0000", "1.0000"])
PY
echo "as stated"
