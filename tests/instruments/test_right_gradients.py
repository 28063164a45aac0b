"""`check_gradients` on right gradients: they pass in every dtype, beside lax's own where that is known."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from calls import CALLS
from checked_gradients import RANDOM, B, W, X, narrow, row_of
from jax import lax

import jax_convgrad as jc
from jax_convgrad import check_gradients


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("name", CALLS)
def test_every_layer(name, order):
    f, args = CALLS[name]
    report = check_gradients(f, *map(jnp.asarray, args), order=order)
    assert report.ok, report
    assert "lax's own gradient" in report.reference and "float64" in report.reference
    for row in report.rows:
        assert row.error <= row.tolerance / 2, report  # a margin
        if row.order == 1:
            assert row.lax_error <= row.tolerance


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("name", ["conv_general_dilated", "conv", "avg_pool", "max_pool", "conv_transpose"])
def test_without_x64(name, dtype):
    f, args = CALLS[name]
    with jax.enable_x64(False):
        args = [jnp.asarray(arg, dtype) for arg in args]
        report, coarse = check_gradients(f, *args), check_gradients(narrow(f), *args)
        assert jnp.ones(()).dtype == jnp.float32  # as it was
    assert report.ok, report
    assert "float64" in report.reference
    assert coarse.ok, coarse
    assert "float32" in coarse.reference
    assert "does not take its arguments in float64: no float64 here; arrays" in str(coarse)
    assert "that it closes over can be handed over as arguments" in str(coarse)


def test_backends(backend):
    report = check_gradients(jc.conv, *(jnp.asarray(a, jnp.float32) for a in (X, W, B)))
    assert report.ok, report


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_complex(dtype):
    rng = np.random.default_rng(8)

    def drawn(*shape):
        return jnp.asarray(rng.standard_normal(shape) + 1j * rng.standard_normal(shape), dtype)

    x, w = drawn(1, 4, 3, 2), drawn(2, 2, 2, 3)
    assert check_gradients(jc.conv, x, w).ok
    assert check_gradients(lambda x: jnp.sum(jnp.abs(x) ** 2), x).ok  # not holomorphic

    @jax.custom_vjp
    def conjugated(x):
        return x * x

    conjugated.defvjp(lambda x: (x * x, x), lambda x, dy: (2 * jnp.conj(x) * dy,))
    report = check_gradients(conjugated, x)
    assert row_of(report, "x").verdict == "WRONG"


def test_convolutions_deep_inside():
    """In scan, cond, jit and a user's own custom_vjp, whose rule alone holds ours."""
    w = jnp.asarray(RANDOM.standard_normal((3, 3, 2, 2)) * 0.3)
    x = jnp.asarray(RANDOM.standard_normal((1, 4, 4, 2)))

    @jax.custom_vjp
    def own(x, w):
        return lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    own.defvjp(
        lambda x, w: (own(x, w), (x, w)),
        lambda kept, dy: (
            jc.conv_input_grad(dy, kept[1], kept[0].shape, padding="SAME"),
            jc.conv_filter_grad(kept[0], dy, kept[1].shape, padding="SAME"),
        ),
    )

    def f(x, w):
        layer = partial(jc.conv, padding="SAME")
        x = lax.scan(lambda x, _: (jnp.tanh(layer(x, w)), None), x, length=2)[0]
        x = lax.cond(jnp.sum(x) > -100, lambda x: jax.jit(layer)(x, w), lambda x: x, x)
        return own(jax.checkpoint(layer)(x, w), w)

    report = check_gradients(f, x, w)
    assert report.ok, report
    assert all(row.lax_error < 1e-12 for row in report.rows)
    assert check_gradients(own, x, w).rows[0].lax_error is not None


def test_without_our_convolutions_there_is_no_column_of_lax():
    report = check_gradients(lambda x: lax.conv(x, x, (1, 1), "SAME"), jnp.ones((2, 2, 3, 3)))
    assert report.ok
    assert report.rows[0].lax_error is None
    assert "lax" not in str(report)


def test_under_install_there_is_no_column_of_lax():
    """It would be these kernels compared with themselves."""
    jc.install()
    try:
        report = check_gradients(jc.conv, X, W)
    finally:
        jc.uninstall()
    assert report.ok
    assert report.reference == "finite differences in float64"
    assert report.rows[0].lax_error is None
    assert "under install()" in str(report)


def test_lax_alone_tells_what_float32_differences_cannot(monkeypatch):
    """A relative error of 3e-5 in one entry: below what float32's differences see."""
    from jax_convgrad.primitives import filter_and_bias

    right = filter_and_bias.wgrad_bgrad_p
    with jax.enable_x64(False):
        args = [jnp.asarray(a, jnp.float32) for a in (X, W, B)]
        layer = narrow(lambda x, w, b: jc.conv(x, w, b))
        assert check_gradients(layer, *args).ok

        def off(x, dy, spec):
            dw, db = right.bind(x, dy, spec=spec)
            return dw.at[1, 0, 2, 3].multiply(1 + 3e-5), db

        monkeypatch.setattr("jax_convgrad.gradients.wgrad_bgrad", off)
        report = check_gradients(layer, *args)
    row = row_of(report, "w")
    assert (row.verdict, row.index) == ("WRONG", (1, 0, 2, 3))
    assert "lax's own gradient differs in 1 entr" in row.note
