"""Run as a program: digests of training steps and of one step over and over, for every kernel of the device.

Its own process, as XLA reads the flags that command buffers depend on when it starts. Prints JSON.
"""

import hashlib
import json

import conftest
import jax
import numpy as np

import jax_convgrad as jc

STEPS = 5


def start(channels, groups):
    random = np.random.default_rng(0)

    def normal(*shape):
        return random.standard_normal(shape).astype(np.float32)

    w = (3, 3, channels // groups, channels)
    params = {"w1": normal(*w), "b1": normal(channels), "w2": normal(*w), "b2": normal(channels)}
    return params, normal(4, 20, 18, channels), normal(4, 4, 4, channels)


def make_step(groups):
    """Every kind of custom call, and no sum that is XLA's, whose order is not ours to promise."""

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
    conftest.install(backend)
    channels = 4 if backend == conftest.cuda_backend("few_channels") else 16
    groups = channels if backend == conftest.cuda_backend("grouped") else 1
    step = make_step(groups)
    params, x, dy = jax.device_put(start(channels, groups))
    same = [digest(step(params, x, dy)) for _ in range(STEPS)]
    steps = []
    for _ in range(STEPS):  # other buffers each time, which a recorded graph has to be told of
        params, rest = step(params, x, dy)
        steps.append(digest((params, rest)))
    return {"same": same, "steps": steps}


def main():
    print(json.dumps({backend: digests(backend) for backend in conftest.BACKENDS}))


if __name__ == "__main__":
    main()
