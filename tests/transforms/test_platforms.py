"""A platform runs its own kernels if the package has them, otherwise `jax.lax`."""

import dataclasses
import functools
import subprocess
import sys
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

import jax_convgrad as jc
from jax_convgrad import native
from jax_convgrad.geometry import axis_of
from jax_convgrad.primitives import lowering, pool_fallback, pool_primitives, targets
from jax_convgrad.primitives.pool_spec import PoolSpec

RANDOM = np.random.default_rng(11)


def array(*shape):
    return jnp.asarray(RANDOM.standard_normal(shape), jnp.float32)


FUNCTIONS = {
    "conv": (
        lambda x, w, b: jc.conv(x, w, b, stride=2, padding="SAME", groups=2, activation="relu"),
        (array(2, 7, 6, 4), array(3, 3, 2, 6), array(6)),
    ),
    "conv_general_dilated": (
        lambda x, w: jc.conv_general_dilated(x, w, (1, 2), ((2, -1), (0, 3)), (2, 1), (1, 2)),
        (array(2, 3, 5, 9), array(4, 3, 3, 2)),
    ),
    "conv_transpose": (
        lambda x, w: jc.conv_transpose(x, w, (2,), "SAME", transpose_kernel=True),
        (array(2, 5, 3), array(4, 6, 3)),
    ),
    "max_pool": (lambda x: jc.max_pool(x, (3, 2), (2, 1), "SAME"), (array(2, 7, 6, 3),)),
    "max_pool_padded": (lambda x: jc.max_pool(x, (2,), (2,), ((3, 4),)), (array(2, 5, 3),)),
    "avg_pool": (lambda x: jc.avg_pool(x, (3, 2), (2, 1), "SAME"), (array(2, 7, 6, 3),)),
    "avg_pool_of_input": (
        lambda x: jc.avg_pool(x, (3,), (2,), "SAME", count_include_pad=False),
        (array(2, 7, 3),),
    ),
}


def finite_sum(y):
    """A scalar that is not linear in y, and stays finite if windows of padding alone give -inf."""
    return jnp.sum(jnp.sin(jnp.where(jnp.isfinite(y), y, 0)))


def value_and_derivatives(f):
    """The value, the gradient, and the gradient of the gradient's norm."""
    count = f.__code__.co_argcount
    every = tuple(range(count))

    def g(*args):
        gradient = jax.grad(lambda *args: finite_sum(f(*args)), every)

        def norm(*args):
            return sum(jnp.sum(part**2) for part in gradient(*args))

        return f(*args), gradient(*args), jax.grad(norm, every)(*args)

    return g


@pytest.fixture
def fresh_caches():
    jax.clear_caches()
    lowering._warn_no_cuda_kernels.cache_clear()
    yield
    jax.clear_caches()


def exported(f, args, platform):
    f = jax.jit(f)
    return export.export(f, platforms=[platform], disabled_checks=jc.export_checks())(*args).mlir_module()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_lax_computes_where_there_are_no_kernels(name, monkeypatch, fresh_caches):
    f, args = FUNCTIONS[name]
    g = value_and_derivatives(f)
    ours = g(*args)
    monkeypatch.delitem(targets.backends, "cpu")
    jax.clear_caches()
    compiled = jax.jit(g).lower(*args).compile()
    assert "jax_convgrad_" not in "".join(
        line for line in compiled.as_text().splitlines() if "custom_call_target" in line
    )
    on_lax = compiled(*args)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(on_lax), strict=True):
        scale = np.abs(b, where=np.isfinite(b), out=np.zeros(b.shape)).max()
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * scale)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_cuda_gets_its_kernels(name, monkeypatch, fresh_caches):
    # Lowering needs only the sizes of workspaces from the module, which the CPU's module also has.
    monkeypatch.setitem(
        targets.backends, "cuda", dataclasses.replace(targets.backends["cpu"], kernel="tiled")
    )
    f, args = FUNCTIONS[name]
    text = exported(value_and_derivatives(f), args, "cuda")
    assert "@jax_convgrad_" in text
    assert "stablehlo.convolution" not in text
    assert "reduce_window" not in text
    if "pool" not in name:
        assert 'kernel = "tiled"' in text


def test_cuda_without_kernels_warns_once(monkeypatch, fresh_caches):
    monkeypatch.delitem(targets.backends, "cuda", raising=False)
    monkeypatch.setattr(native, "has_cuda_wheels", lambda: True)
    f, args = FUNCTIONS["conv"]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        text = exported(value_and_derivatives(f), args, "cuda")
        exported(FUNCTIONS["max_pool"][0], FUNCTIONS["max_pool"][1], "cuda")
    ours = [warning for warning in caught if "jax_convgrad" in str(warning.message)]
    assert len(ours) == 1
    command = 'To install them: with driver 580 or later, pip install "jax_convgrad[cuda13]"'
    assert str(ours[0].message).endswith(command)
    assert "@jax_convgrad_" not in text
    assert "stablehlo.convolution" in text


def test_tpu_runs_on_lax_without_a_word(fresh_caches):
    f, args = FUNCTIONS["conv"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        text = exported(value_and_derivatives(f), args, "tpu")
    assert "@jax_convgrad_" not in text
    assert "stablehlo.convolution" in text


@pytest.mark.parametrize("derivative", ["gradient", "tangent"])
def test_a_maximum_of_lax_is_replaced_for_every_platform(derivative):
    x = array(2, 9, 8, 3)

    def windows(x):
        return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 2, 2, 1), "SAME")

    def f(x):
        if derivative == "tangent":
            return jax.jvp(windows, (x,), (jnp.cos(x),))[1]
        return jax.vjp(windows, x)[1](jnp.cos(windows(x)))[0]

    replaced = jax.jit(jc.replace_convolutions(f))
    anywhere = export.export(replaced, platforms=["cpu", "tpu"], disabled_checks=jc.export_checks())(x)
    again = export.deserialize(bytearray(anywhere.serialize()))
    np.testing.assert_allclose(again.call(x), f(x), rtol=1e-6, atol=1e-6)
    assert "@jax_convgrad_" not in exported(jc.replace_convolutions(f), (x,), "tpu")


def test_the_positions_of_lax_s_derivatives_on_lax():
    x = np.where(RANDOM.random((2, 9, 8, 3)) < 0.7, -np.inf, 1).astype(np.float32)
    axes = tuple(axis_of(n, 3, stride=2, pads=(1, 2), input_dilation=1, filter_dilation=1) for n in (9, 8))
    spec = PoolSpec.channels_last(axes)
    for rule in ("select_and_scatter", "select_and_gather"):
        on_lax = jax.jit(functools.partial(pool_fallback.ruled_position, axes=axes, rule=rule))(x)
        np.testing.assert_array_equal(on_lax, pool_primitives.ruled_position(x, spec, rule))


def test_an_exported_step_runs_after_reload():
    f, args = FUNCTIONS["conv"]
    g = value_and_derivatives(f)
    blob = export.export(jax.jit(g), disabled_checks=jc.export_checks())(*args).serialize()
    again = export.deserialize(bytearray(blob)).call(*args)
    for a, b in zip(jax.tree.leaves(g(*args)), jax.tree.leaves(again), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


SAVE = """
import pickle, sys
import jax
from jax import export
from jax.experimental import serialize_executable
import jax_convgrad as jc

def step(x, w):
    layer = lambda x, w: jc.max_pool(jc.conv(x, w, w[0, 0, 0], activation="relu"), (2, 2), (2, 2))
    y, vjp = jax.vjp(layer, x, w)
    return y, *vjp(jax.numpy.cos(y))

x = jax.numpy.arange(2 * 8 * 8 * 3, dtype="float32").reshape(2, 8, 8, 3) % 7
w = jax.numpy.arange(3 * 3 * 3 * 4, dtype="float32").reshape(3, 3, 3, 4) % 5 - 2
compiled = serialize_executable.serialize(jax.jit(step).lower(x, w).compile())
exported = export.export(jax.jit(step), disabled_checks=jc.export_checks())(x, w).serialize()
saved = (compiled, bytes(exported), [jax.numpy.asarray(a).tolist() for a in (x, w, *jax.jit(step)(x, w))])
pickle.dump(saved, open(sys.argv[1], "wb"))
"""
LOAD = """
import pickle, sys
import jax, numpy as np
from jax import export
from jax.experimental import serialize_executable
import jax_convgrad

compiled, exported, (x, w, *expected) = pickle.load(open(sys.argv[1], "rb"))
x, w = np.float32(x), np.float32(w)
loaded = serialize_executable.deserialize_and_load(*compiled)
for run in (loaded, export.deserialize(bytearray(exported)).call):
    for result, want in zip(run(x, w), expected, strict=True):
        np.testing.assert_array_equal(result, np.float32(want))
print("jax_convgrad.primitives.ffi" in sys.modules)
"""


def test_a_process_that_only_runs_needs_the_import_alone(tmp_path):
    """A program that another process compiled or exported runs after `import jax_convgrad` alone."""
    for program, prints in ((SAVE, ""), (LOAD, "False\n")):
        done = subprocess.run(
            [sys.executable, "-P", "-c", program, tmp_path / "saved"],
            capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert done.stdout == prints


def test_export_checks_are_those_of_every_target():
    checks = "\n".join(map(str, jc.export_checks()))
    assert all(f"jax_convgrad_{name}" in checks for name in targets.backends["cpu"].module.registrations())
