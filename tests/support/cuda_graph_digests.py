"""A program: digests of training steps and of one repeated step, and the step's calls, for every kernel.

It is a separate process, because XLA reads the flags of command buffers when it starts. Prints JSON. The
emulator has no graphs, but the program is the same.
"""

import hashlib
import json

import backends
import jax
import numpy as np
from conv_cases import NHWC, ConvCase
from served import serves

import jax_convgrad as jc
from jax_convgrad.primitives import targets

STEPS = 5
SHAPE = (4, 20, 18) if backends.ON_DEVICE else (1, 10, 10)
# (channels, groups, dtype); each kernel runs the first problem that it supports.
PROBLEMS = [(16, 1, "float32"), (16, 16, "float32"), (4, 1, "float32"), (64, 1, "bfloat16")]


def case(problem):
    channels, groups, _ = problem
    w = (3, 3, channels // groups, channels)
    return ConvCase("step", (*SHAPE, channels), w, 1, "SAME", groups=groups, order=NHWC)


def problem_of(kernel):
    if kernel in ("auto", "reference"):
        return PROBLEMS[0]
    module = targets.backends[backends.PLATFORM].module
    for problem in PROBLEMS:
        if all(serves(module, kernel, op, case(problem), problem[2]) for op in ("fprop", "dgrad", "wgrad")):
            return problem
    raise ValueError(f"none of the problems is served by {kernel!r}: add one that is")


def start(problem):
    channels, groups, dtype = problem
    random = np.random.default_rng(0)

    def normal(*shape):
        return random.standard_normal(shape).astype(dtype)

    w = (3, 3, channels // groups, channels)
    params = {"w1": normal(*w), "b1": normal(channels), "w2": normal(*w), "b2": normal(channels)}
    batch, height, width = SHAPE
    pooled = (batch, (height // 2 - 2) // 2, (width // 2 - 2 + 1) // 2, channels)
    return params, normal(*SHAPE, channels), normal(*pooled)


def make_step(groups):
    """A step with every kind of custom call, and no sum by XLA, whose order this package cannot promise."""

    def layers(params, x):
        y = jc.conv(x, params["w1"], params["b1"], padding="SAME", groups=groups, activation="relu")
        y = jc.max_pool(y, (2, 2), (2, 2))
        y = jc.conv(y, params["w2"], params["b2"], groups=groups)
        return jc.avg_pool(y, (2, 2), (2, 2), ((0, 0), (0, 1)))

    @jax.jit
    def step(params, x, dy):
        y, vjp = jax.vjp(layers, params, x)
        slopes, dx = vjp(dy)
        return jax.tree.map(lambda p, slope: p - 0.001 * slope, params, slopes), (y, dx)

    return step


def digest(arrays):
    return hashlib.sha256(
        b"".join(np.asarray(array).tobytes() for array in jax.tree.leaves(arrays))
    ).hexdigest()


def digests(backend):
    backends.install(backend)
    module = targets.backends[backends.PLATFORM].module
    problem = problem_of(backend.rpartition("-")[2])
    step = make_step(problem[1])
    params, x, dy = jax.device_put(start(problem))
    calls_a_step = step.lower(params, x, dy).compile().as_text().count('custom_call_target="jax_convgrad')
    calls_before = module.handler_calls()
    same = [digest(step(params, x, dy)) for _ in range(STEPS)]
    calls = module.handler_calls() - calls_before
    steps = []
    for _ in range(STEPS):  # other buffers each time, which XLA has to update in a recorded graph
        params, rest = step(params, x, dy)
        steps.append(digest((params, rest)))
    return {"same": same, "steps": steps, "calls": calls, "calls_a_step": calls_a_step}


def main():
    backends.install(backends.cuda_backend("auto"))
    kernels = ["auto", *targets.backends[backends.PLATFORM].module.kernels()]
    print(json.dumps({backend: digests(backend) for backend in map(backends.cuda_backend, kernels)}))


if __name__ == "__main__":
    main()
