"""The emulator's counters, read from Python, see the launches that JAX makes."""

import jax
import jax.numpy as jnp
import pytest
from emulated_counters import counting

import jax_convgrad

KERNELS = ["emulated_cuda-reference", "emulated_cuda-tiled"]


@pytest.mark.emulator
@pytest.mark.parametrize("backend", KERNELS, indirect=True)
def test_a_launch_is_counted_and_only_while_counting(backend):
    x, w = jnp.ones((1, 6, 6, 2)), jnp.ones((3, 3, 2, 4))

    @jax.jit
    def forward(x, w):
        return jax_convgrad.conv(x, w)

    forward(x, w).block_until_ready()
    with counting() as one:
        forward(x, w).block_until_ready()
    with counting() as three:
        for _ in range(3):
            forward(x, w).block_until_ready()
    forward(x, w).block_until_ready()
    assert one["launches"] == 1
    assert three["launches"] == 3
    assert set(one["ldmatrix"]) == {"instructions", "bytes", "wavefronts", "least_wavefronts", "excess"}
    assert set(one["cp_async_global"]) == {"instructions", "bytes", "sectors"}
