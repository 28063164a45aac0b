"""The name of a call in profiles and HLO is `jax_convgrad.<op>`, in the scope of its layer."""

import re

import jax
import jax.numpy as jnp
import meshes
import pytest
from jax import lax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import jax_convgrad as jc

X, W = jnp.ones((8, 6, 6, 2)), jnp.ones((3, 3, 2, 4))


def of_this_package(x, w):
    with jax.named_scope("block"):
        y = jc.conv(x, w, w[0, 0, 0], activation="relu")
    with jax.named_scope("pool"):
        return jnp.sin(jc.max_pool(y, (2, 2))).sum()


def of_lax(x, w):
    with jax.named_scope("block"):
        y = lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        return jnp.sin(y).sum()


@pytest.fixture
def installed():
    jc.install()
    yield
    jc.uninstall()


def names(f, x):
    """The instruction and the op_name in the metadata of each kernel call in the compiled gradient."""
    text = jax.jit(jax.grad(f, (0, 1))).lower(x, W).compile().as_text()
    found = {}
    for line in text.splitlines():
        target = re.search(r'custom_call_target="jax_convgrad_(\w+)"', line)
        if target:
            instruction = line.split(" = ")[0].strip().removeprefix("ROOT ")
            found[target[1]] = instruction, re.search(r'op_name="([^"]*)"', line)[1]
    return found


SCOPES = {
    "fprop": "jit(of_this_package)/jvp(block)/jax_convgrad.fprop",
    "max_pool_argmax": "jit(of_this_package)/jvp(pool)/jax_convgrad.max_pool_argmax",
    "max_pool_grad": "jit(of_this_package)/transpose(jvp(pool))/jax_convgrad.max_pool_grad",
    "dgrad": "jit(of_this_package)/transpose(jvp(block))/jax_convgrad.dgrad",
    "wgrad": "jit(of_this_package)/transpose(jvp(block))/jax_convgrad.wgrad",
}


def test_of_a_layer():
    found = names(of_this_package, X)
    for target, scope in SCOPES.items():
        instruction, op_name = found[target]
        assert re.match(rf"%jax_convgrad[._]{target}\b|%jax_convgrad[._]{target}[._]", instruction)
        assert op_name == scope


def test_of_a_layer_that_is_split():
    x = jax.device_put(X, NamedSharding(meshes.make("8"), P("a")))
    found = names(of_this_package, x)
    for target, scope in SCOPES.items():
        instruction, op_name = found[target]
        assert "ffi_call" not in instruction and target in instruction
        assert op_name.startswith(scope)


def test_under_replace_convolutions():
    assert_of_lax(names(jc.replace_convolutions(of_lax), X))


def test_under_install(installed):
    assert_of_lax(names(of_lax, X))


def assert_of_lax(found):
    assert found["fprop"][1] == "jit(of_lax)/jvp(block)/jax_convgrad.fprop"
    for target in ("dgrad", "wgrad"):
        assert found[target][1] == f"jit(of_lax)/transpose(jvp(block))/jax_convgrad.{target}"
        assert "ffi_call" not in found[target][0]
