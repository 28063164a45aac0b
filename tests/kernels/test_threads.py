"""Eight Python threads that use the kernels at the same time: the results of one thread after the other."""

import sys
import sysconfig
import threading
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cpu_by_name import CPU

import jax_convgrad as jc

THREADS = 8
ROUNDS = 3


def layer(thread):
    """The size and channels of the thread's layer, which no other thread has."""
    return 9 + thread, 3 + 5 * thread, 2 + 7 * thread


def value_and_gradients(thread):
    size, channels, features = layer(thread)
    random = np.random.default_rng(thread)
    x = random.standard_normal((2, size, size, channels)).astype(np.float32)
    w = random.standard_normal((3, 3, channels, features)).astype(np.float32)
    b = random.standard_normal(features).astype(np.float32)

    def loss(x, w, b):
        y = jc.conv(x, w, b, stride=1 + thread % 2, padding="SAME", activation="relu")
        return jnp.sum(jc.avg_pool(jc.max_pool(y, (2, 2)), (2, 2)) ** 2)

    # A new function in each round, so that threads also trace, plan and compile at the same time.
    value, gradients = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2)))(x, w, b)
    return [np.asarray(array).tobytes() for array in (value, *gradients)]


def plans(thread):
    size, channels, features = layer(thread)
    axis = (size, 3, size - 2, 1, 0, 1, 1)
    return [
        CPU.module.plan(op, "auto", "float32", 2, channels, features, 1, [axis, axis])
        for op in ("fprop", "dgrad", "wgrad", "bgrad")
    ]


@pytest.mark.parametrize("run", [value_and_gradients, plans])
def test_threads_get_the_results_of_one_thread(run):
    expected = [run(thread) for thread in range(THREADS)]
    assert all(expected[0] != other for other in expected[1:]), "two layers have the same results"
    start = threading.Barrier(THREADS)

    def at_once(thread):
        start.wait(timeout=60)
        return [run(thread) for _ in range(ROUNDS)]

    with ThreadPoolExecutor(THREADS) as pool:
        for thread, results in enumerate(pool.map(at_once, range(THREADS))):
            assert results == [expected[thread]] * ROUNDS, f"thread {thread}"


@pytest.mark.skipif(not sysconfig.get_config_var("Py_GIL_DISABLED"), reason="this Python has a GIL")
def test_the_module_does_not_enable_the_gil():
    assert not sys._is_gil_enabled()
