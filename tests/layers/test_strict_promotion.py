"""`jax_numpy_dtype_promotion="strict"`: the package mixes no dtypes without an explicit conversion."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conv_cases import NHWC
from dense_layers import DENSE, INSTALLED_WITH_GRADIENTS, in_force
from jax import lax

import jax_convgrad as jc
from jax_convgrad.primitives import targets


def programs(dtype):
    """Layers with their gradients of two orders, pooling, gradient functions, vmap, wider results."""
    random = np.random.default_rng(3)

    def made(*shape):
        return jnp.asarray(random.standard_normal(shape).astype(dtype))

    x, w, b, dy = made(2, 8, 8, 4), made(3, 3, 4, 6), made(6), made(2, 6, 6, 6)
    real = not jnp.issubdtype(x.dtype, jnp.complexfloating)

    def model(x, w, b):
        y = jc.conv(x, w, b, padding="SAME", activation="relu" if real else None)
        y = jc.max_pool(y, (2, 2), (2, 2), padding="SAME") if real else y
        return jc.avg_pool(y, (2, 2), (1, 1), padding="SAME", count_include_pad=False)

    def loss(x, w, b):
        return jnp.real(jnp.sum(model(x, w, b) * model(x, w, b)))

    def norm(x, w, b):
        return sum(jnp.real(jnp.sum(g * g)) for g in jax.grad(loss, (0, 1, 2))(x, w, b))

    def forward(x, w, b):
        with jc.forward_mode():
            return jax.jvp(model, (x, w, b), (x, w, b))

    yield jax.grad(norm, (0, 1, 2)), (x, w, b)
    yield forward, (x, w, b)
    yield jax.vmap(jax.grad(loss, 1), (0, None, None)), (x[:, None], w, b)
    yield lambda dy, w: jc.conv_input_grad(dy, w, x.shape), (dy, w)
    yield lambda x, dy: jc.conv_filter_grad(x, dy, w.shape), (x, dy)
    yield jc.conv_bias_grad, (x,)
    wide = {"bfloat16": "float32", "float16": "float32", "float32": "float64", "complex64": "complex128"}
    for f in (
        lambda x, w, **how: jc.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=NHWC, **how),
        lambda x, w, **how: jc.conv_transpose(x, w, (2, 2), "SAME", **how),
        lambda x, w, **how: jc.conv_transpose(
            x, w.swapaxes(2, 3), (2, 2), "SAME", transpose_kernel=True, **how
        ),
    ):
        for preferred in (dtype, wide.get(dtype, dtype)):

            def total(x, w, f=f, preferred=preferred):
                return jnp.real(jnp.sum(f(x, w, preferred_element_type=preferred)))

            yield jax.grad(total, (0, 1)), (x, w)
            yield jax.grad(jc.replace_convolutions(total), (0, 1)), (x, w)


@pytest.mark.parametrize("on_kernels", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "float16", "complex64", "complex128"])
def test_strict_promotion_changes_no_program(dtype, on_kernels, monkeypatch):
    """All conversions are explicit: the lowered program is the same, on the kernels and on lax."""
    if not on_kernels:
        monkeypatch.setattr(targets, "backends", {})

    def texts(promotion):
        jax.clear_caches()
        with jax.numpy_dtype_promotion(promotion):
            return [jax.jit(f).lower(*arguments).as_text() for f, arguments in programs(dtype)]

    assert texts("strict") == texts("standard")


@pytest.mark.parametrize("way", ["replaced", INSTALLED_WITH_GRADIENTS])
@pytest.mark.parametrize("dtypes", [("bfloat16", "float32"), ("float16", "float32"), ("float32", "float64"),
                                    ("bfloat16", "float64"), ("complex64", "complex128")])  # fmt: skip
def test_strict_promotion_of_lax_convolutions(way, dtypes):
    narrow, wide = dtypes
    case = DENSE[0]
    x, w, _ = map(jnp.asarray, case.arrays(narrow))
    arguments = {**case.lax_arguments, "dimension_numbers": case.specs}

    def f(x, w):
        return lax.conv_general_dilated(x, w, **arguments, preferred_element_type=wide)

    def value_and_grads(x, w):
        y, pull = jax.vjp(jc.replace_convolutions(f) if way == "replaced" else f, x, w)
        return y, *pull(jnp.ones_like(y))

    theirs = jax.jit(f)(x, w)
    with in_force(way), jax.numpy_dtype_promotion("strict"):
        y, dx, dw = jax.jit(value_and_grads)(x, w)
    assert (y.dtype, dx.dtype, dw.dtype) == (wide, narrow, narrow)
    np.testing.assert_allclose(y, theirs, rtol=1e-4, atol=1e-4)
