"""Fixtures of the kernels' tests."""

import pytest
from cpu_by_name import CPU

from jax_convgrad.primitives import ffi


@pytest.fixture
def platforms():
    """Names under which ffi.py finds the CPU's kernels, one each."""
    added = {}

    def platform(kernel):
        if kernel not in added:
            added[kernel] = f"cpu {kernel}"
            ffi.backends[added[kernel]] = ffi.Backend(CPU.module, CPU.prefix, kernel)
        return added[kernel]

    yield platform
    for name in added.values():
        del ffi.backends[name]
