"""Fixtures of the kernels' tests."""

import pytest
from cpu_by_name import CPU

from jax_convgrad.primitives import targets


@pytest.fixture
def platforms():
    """Registers each of the CPU's kernels under a platform name of its own in targets.py."""
    added = {}

    def platform(kernel):
        if kernel not in added:
            added[kernel] = f"cpu {kernel}"
            targets.backends[added[kernel]] = targets.Backend(CPU.module, CPU.prefix, kernel)
        return added[kernel]

    yield platform
    for name in added.values():
        del targets.backends[name]
