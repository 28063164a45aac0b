"""The same bits on every run and for every number of threads."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from backends import ON_DEVICE, cuda_backend

SUPPORT = Path(__file__).parents[1] / "support"
THREADS = (1, 2, 3)


def digests(backend, threads):
    # Either variable sets the size of XLA's pools on any machine, but not below the number of devices.
    env = dict(os.environ, NPROC=str(threads), PJRT_NPROC=str(threads))
    if not ON_DEVICE:
        env["JAX_PLATFORMS"] = "cpu"
    env["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=1"
    env["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    done = subprocess.run(
        [sys.executable, SUPPORT / "determinism_digests.py", backend],
        env=env, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.small_groups
@pytest.mark.few_channels
def test_same_bits(backend):
    by_threads = {threads: digests(backend, threads) for threads in THREADS}
    if not ON_DEVICE:  # on a device no host threads split the work, so the test compares three processes
        assert [by_threads[t]["threads"] for t in THREADS] == list(THREADS), "the thread count did not change"
    first = by_threads[THREADS[0]]["ops"]
    assert set(first) >= {"bgrad", "max_pool_grad", "avg_pool_grad"}
    prefix = "depthwise_" if backend == cuda_backend("grouped") else ""
    assert set(first) >= {prefix + op for op in ("fprop", "dgrad", "wgrad")}
    for name in first:
        found = {digest for run in by_threads.values() for digest in run["ops"][name]["digests"]}
        assert len(found) == 1, f"{name}: {len(found)} different results"
        assert first[name]["error"] < 1e-5, f"{name} is wrong"
    assert len({op["digests"][0] for op in first.values()}) == len(first), "two ops give the same numbers"
