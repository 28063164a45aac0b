"""A program, `determinism_digests.py BACKEND`: digests of each kernel's results, and XLA's thread count.

It is a separate process, because XLA fixes the number of threads when it starts. Prints JSON: for each op the
digests of five runs and the largest error against float64 NumPy sums, relative to the largest number.
"""

import hashlib
import json
import os
import sys

import backends
import jax
import numpy as np
import reference
from jax import lax

import jax_convgrad as jc

RUNS = 5
# Large enough for the CPU's kernels to split each sum and each result into several tasks.
SIZES = {"cpu": (8, 20, 20, 24, 40), "emulated_cuda-grouped": (2, 9, 9, 16, 33)}
if backends.ON_DEVICE:
    SIZES = dict.fromkeys(backends.BACKENDS, (8, 40, 40, 24, 40))
SIZES[backends.cuda_backend("few_channels")] = (2, 40, 40, 3, 33)
EMULATED = (2, 9, 9, 17, 33)


def problem(backend):
    batch, height, width, channels, features = SIZES.get(backend, EMULATED)
    random = np.random.default_rng(0)
    x = random.standard_normal((batch, height, width, channels)).astype(np.float32)
    w = random.standard_normal((3, 3, channels, features)).astype(np.float32)
    dy = random.standard_normal((batch, height, width, features)).astype(np.float32)
    return x, w, dy


def ops(x, w, dy):
    """Maps a name to a function on our kernels and its result in float64."""
    same = {"padding": "SAME", "precision": lax.Precision.HIGHEST}
    axes = [reference.Axis(size, 3, 1, 1, 1) for size in x.shape[1:-1]]
    pool_axes = [reference.Axis(size, 3) for size in x.shape[1:-1]]
    d_pool = x[:, 2:, 2:]  # any array of the pooled shape
    position = reference.max_pool(x, pool_axes)[1]
    return {
        "fprop": (lambda: jc.conv(x, w, **same), reference.fprop(x, w, axes)),
        "dgrad": (lambda: jc.conv_input_grad(dy, w, x.shape, **same), reference.dgrad(dy, w, axes)),
        "wgrad": (lambda: jc.conv_filter_grad(x, dy, w.shape, **same), reference.wgrad(x, dy, axes)),
        "bgrad": (lambda: jc.conv_bias_grad(dy), reference.bgrad(dy)),
        "max_pool": (lambda: jc.max_pool(x, (3, 3)), reference.max_pool(x, pool_axes)[0]),
        "max_pool_grad": (
            lambda: jax.vjp(lambda x: jc.max_pool(x, (3, 3)), x)[1](d_pool)[0],
            reference.max_pool_grad(d_pool, position, pool_axes),
        ),
        "avg_pool": (lambda: jc.avg_pool(x, (3, 3)), reference.avg_pool(x, pool_axes)),
        "avg_pool_grad": (
            lambda: jax.vjp(lambda x: jc.avg_pool(x, (3, 3)), x)[1](d_pool)[0],
            reference.avg_pool_grad(d_pool, pool_axes),
        ),
    }


def small_group_ops(x):
    """Like `ops`, for a depthwise layer large enough for many tasks and many partial sums of wgrad."""
    x = np.tile(x, (1, 5, 5, 1))
    random = np.random.default_rng(1)
    w = random.standard_normal((3, 3, 1, x.shape[-1])).astype(np.float32)
    dy = random.standard_normal(x.shape).astype(np.float32)
    axes, groups = [reference.Axis(size, 3, 1, 1, 1) for size in x.shape[1:-1]], x.shape[-1]
    same = {"padding": "SAME", "groups": groups}
    return {
        "depthwise_fprop": (lambda: jc.conv(x, w, **same), reference.fprop(x, w, axes, groups)),
        "depthwise_dgrad": (
            lambda: jc.conv_input_grad(dy, w, x.shape, **same),
            reference.dgrad(dy, w, axes, groups),
        ),
        "depthwise_wgrad": (
            lambda: jc.conv_filter_grad(x, dy, w.shape, **same),
            reference.wgrad(x, dy, axes, groups),
        ),
    }


def norm_ops(x):
    """Like `ops`, for batch norm with many tasks; the sum of each direction is in the results."""
    x = np.tile(x, (1, 5, 5, 1))
    dy = np.random.default_rng(1).standard_normal(x.shape).astype(np.float32)
    wide, over = x.astype(np.float64), (0, 1, 2)
    inv = 1 / np.sqrt(wide.var(over) + 1e-5)
    normal = (wide - wide.mean(over)) * inv
    dx = inv * (dy - dy.mean(over) - normal * (dy * normal).mean(over))
    return {
        "batch_norm": (lambda: jc.batch_norm(x)[0], normal),
        "batch_norm_grad": (lambda: jax.vjp(lambda x: jc.batch_norm(x)[0], x)[1](dy)[0], dx),
    }


def worker_threads():
    """The number of threads in XLA's pool for kernels."""
    folder = f"/proc/{os.getpid()}/task"
    names = []
    for task in os.listdir(folder):
        with open(f"{folder}/{task}/comm") as comm:
            names.append(comm.read().strip())
    return sum(name == "tf_XLAEigen" for name in names)


def main(backend):
    backends.install(backend)
    result = {}
    x, w, dy = problem(backend)
    chosen = ops(x, w, dy)
    grouped = backends.cuda_backend("grouped")
    if backend == grouped:  # it supports only small groups
        chosen = {name: op for name, op in chosen.items() if name not in ("fprop", "dgrad", "wgrad")}
    if backend in ("cpu", grouped, backends.cuda_backend("auto")):
        chosen |= small_group_ops(x)
    if backend == "cpu":
        chosen |= norm_ops(x)
    for name, (run, exact) in chosen.items():
        compiled = jax.jit(run)
        outputs = [np.asarray(compiled()) for _ in range(RUNS)]
        result[name] = {
            "digests": [hashlib.sha256(output.tobytes()).hexdigest() for output in outputs],
            "error": float(np.abs(outputs[0] - exact).max() / np.abs(exact).max()),
        }
    print(json.dumps({"threads": worker_threads(), "ops": result}))


if __name__ == "__main__":
    main(sys.argv[1])
