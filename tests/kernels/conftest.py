"""Fixtures of the kernels' tests."""

import pytest
from cpu_by_name import CPU

from jax_convgrad.primitives import ffi


@pytest.fixture
def platforms():
    """Registers each of the CPU's kernels under a platform name of its own in ffi.py."""
    added = {}

    def platform(kernel):
        if kernel not in added:
            added[kernel] = f"cpu {kernel}"
            ffi.backends[added[kernel]] = ffi.Backend(CPU.module, CPU.prefix, kernel)
        return added[kernel]

    yield platform
    for name in added.values():
        del ffi.backends[name]
