"""JAX's compilation cache with programs for several devices: the cache key describes only the computation."""

import enum
import gc
import json
import os
import re
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import jax.numpy as jnp
import meshes
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import jax_convgrad as jc
from jax_convgrad.geometry import Axis, ConvGeometry
from jax_convgrad.primitives import partitioned_call

SUPPORT = Path(__file__).parents[1] / "support"


def run(folder, flag, which):
    env = dict(os.environ, PYTHONPATH=os.pathsep.join(path for path in sys.path if path))
    # The order of sets and dictionaries must not affect the key.
    env["PYTHONHASHSEED"] = {"first": "1", "all": "2"}[which]
    done = subprocess.run(
        [sys.executable, SUPPORT / "cached_programs.py", folder, flag, which],
        env=env, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("flag", ["on", "off"])
def test_cache_gives_the_program_that_was_asked_for(tmp_path, flag):
    """Another process that shares the cache finds the same programs, and only those."""
    first = run(tmp_path, flag, "first")
    both = run(tmp_path, flag, "all")
    assert len(both) > 30 and len(first) == 7
    assert not any(program["hit"] for program in first.values())
    assert {name for name, program in both.items() if program["hit"]} == set(first)
    assert all(program["error"] < 1e-5 for program in (*first.values(), *both.values())), both


def x_and_w():
    random = np.random.default_rng(0)
    return random.standard_normal((8, 9, 6)), random.standard_normal((3, 6, 8))


def calls_in(text):
    return re.findall(r"custom_call @CustomSPMDPartitioning.*backend_config = \"([^\"]*)\"", text)


@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit])
def test_text_has_digests_and_no_address(axis_type):
    x, w = x_and_w()
    mesh = meshes.make("8", axis_type)
    (x,) = meshes.place(mesh, [x], [("a",)])
    (w,) = meshes.place(mesh, [w], [()])

    def layers(x, w):
        return jc.avg_pool(jc.max_pool(jc.conv(x, w, w[0, 0], activation="relu"), (2,)), (2,))

    def step(x, w):
        y, vjp = jax.vjp(layers, x, w)
        return vjp(jnp.cos(y))

    with jax.set_mesh(mesh):
        text = jax.jit(step).lower(x, w).as_text()
    calls = calls_in(text)
    assert len(calls) >= 5
    assert all(re.fullmatch("[0-9a-f]{64}", call) for call in calls)
    # JAX hashes this attribute even if it omits the other one.
    assert all(f'jax_convgrad = "{call}"' in text for call in calls)


def compiled_and_checked(lowered, x, w, padding="SAME"):
    y = lowered.compile()(x, w)
    expected = meshes.unsharded(lambda x, w: jc.conv(x, w, padding=padding), np.asarray(x), np.asarray(w))
    np.testing.assert_allclose(np.asarray(y), expected, rtol=1e-12, atol=1e-12)


def test_programs_that_say_the_same_live_apart():
    """A program that is forgotten, or lowered for other devices, does not affect an equal one."""
    x, w = x_and_w()
    devices = jax.devices()
    lowered, arrays = [], []
    for part in (devices[:4], devices[4:], devices[3::-1]):
        split = NamedSharding(Mesh(np.array(part), ("a",)), P("a"))
        arrays.append((jax.device_put(x, split), jax.device_put(w, NamedSharding(split.mesh, P()))))
        lowered.append(jax.jit(lambda x, w: jc.conv(x, w, padding="SAME")).lower(*arrays[-1]))
    assert len({call for one in lowered for call in calls_in(one.as_text())}) == 1
    del lowered[0], arrays[0]
    gc.collect()
    for one, operands in zip(lowered, arrays, strict=True):
        compiled_and_checked(one, *operands)
    lowered.clear()
    gc.collect()


def test_compiled_by_several_threads_at_once():
    x, w = x_and_w()
    split = NamedSharding(meshes.make("8"), P("a"))
    x = jax.device_put(x, split)

    def once(n):
        padding = [(n % 3, 2 - n % 3)]
        compiled_and_checked(jax.jit(lambda x, w: jc.conv(x, w, padding=padding)).lower(x, w), x, w, padding)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(once, range(12)))


def test_a_context_with_another_order_of_devices():
    x, w = x_and_w()
    devices = np.array(jax.devices())
    x = jax.device_put(x, NamedSharding(Mesh(devices.reshape(4, 2), ("a", "b")), P("b")))
    f = jax.jit(lambda x, w: jax.grad(lambda w: jnp.cos(jc.conv(x, w, padding="SAME")).sum())(w))
    expected = meshes.unsharded(f.__wrapped__, np.asarray(x), w)
    with warnings.catch_warnings(), Mesh(devices[::-1].reshape(2, 4), ("p", "q")):
        warnings.simplefilter("ignore", DeprecationWarning)  # of such contexts, in later versions of JAX
        np.testing.assert_allclose(f(x, w), expected, rtol=1e-12, atol=1e-12)


class Choice(enum.Enum):
    ONE = 1
    TWO = 2


def test_digest_is_of_values():
    geometry = ConvGeometry((Axis(4, 3, 2),), 1)
    facts = [
        geometry, ConvGeometry((Axis(4, 3, 2, pad_lo=1),), 1), 1, True, "1", None, (1, 2),
        (1, (2,)), ((1,), 2),
        {"a": 1}, {"a": 2}, Choice.ONE, Choice.TWO, np.dtype("float32"), jnp.bfloat16, 1.5,
    ]  # fmt: skip
    digests = [partitioned_call.digest(fact) for fact in facts]
    assert len(set(digests)) == len(facts)
    assert digests[0] == partitioned_call.digest(ConvGeometry((Axis(4, 3, 2),), 1))
    assert partitioned_call.digest({"a": 1, "b": 2}) == partitioned_call.digest({"b": 2, "a": 1})
    assert partitioned_call.digest(np.int64(3)) == partitioned_call.digest(3)
    with pytest.raises(TypeError, match="digest"):
        partitioned_call.digest(lambda: 0)
