"""``batch_norm``, value and gradients: the formulas in float64 NumPy, and the same in jax.numpy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

import jax_convgrad as jc
from jax_convgrad.primitives import norm_primitives
from jax_convgrad.primitives.define import lax_forms

DTYPES = ("float32", "float64", "bfloat16", "float16")
ACTIVATIONS = (None, "relu", "relu6", "silu")
EPSILON = 1e-3


def activated(z, activation):
    """The activation's value and its derivative."""
    if activation == "relu":
        return np.maximum(z, 0), (z > 0).astype(float)
    if activation == "relu6":
        return np.clip(z, 0, 6), ((z > 0) & (z < 6)).astype(float)
    if activation == "silu":
        sigmoid = 1 / (1 + np.exp(-z))
        return z * sigmoid, sigmoid * (1 + z * (1 - sigmoid))
    return z, np.ones_like(z)


def formulas(x, scale, bias, dy, axis, activation):
    """y, mean, var, dx, dscale, dbias in float64."""
    x, scale, bias, dy = (np.asarray(array, np.float64) for array in (x, scale, bias, dy))
    over = tuple(d for d in range(x.ndim) if d != axis % x.ndim)
    mean, var = x.mean(over, keepdims=True), x.var(over, keepdims=True)
    shape = mean.shape
    inv = 1 / np.sqrt(var + EPSILON)
    normal = (x - mean) * inv
    y, slope = activated(normal * scale.reshape(shape) + bias.reshape(shape), activation)
    g = dy * slope
    of_mean, of_normal = g.mean(over, keepdims=True), (g * normal).mean(over, keepdims=True)
    dx = scale.reshape(shape) * inv * (g - of_mean - normal * of_normal)
    return y, mean.ravel(), var.ravel(), dx, (g * normal).sum(over), g.sum(over)


def problem(shape, dtype, axis=-1, mean=1.0, seed=0):
    random = np.random.default_rng(seed)
    x = jnp.asarray(random.standard_normal(shape) + mean, dtype)
    vectors = random.standard_normal((2, shape[axis])) * 2
    wide = "float64" if dtype == "float64" else "float32"
    return (
        x,
        *(jnp.asarray(vector, wide) for vector in vectors),
        jnp.asarray(random.standard_normal(shape), dtype),
    )


@functools.partial(jax.jit, static_argnames=("axis", "activation"))
def trained(x, scale, bias, dy, axis=-1, activation=None):
    """y, mean, var, dx, dscale, dbias."""
    y, vjp, (mean, var) = jax.vjp(
        lambda *arrays: jc.batch_norm(*arrays, epsilon=EPSILON, axis=axis, activation=activation),
        x,
        scale,
        bias,
        has_aux=True,
    )
    return y, mean, var, *vjp(dy)


def assert_close(results, expected, dtype, what=""):
    sums, stored = (1e-12, 1e-12) if dtype == "float64" else (3e-5, float(jnp.finfo(dtype).eps) * 2 + 3e-5)
    for number, (result, exact) in enumerate(zip(results, expected, strict=True)):
        limit = stored if result.ndim > 1 else sums
        largest = np.abs(exact).max() if exact.size else 0
        np.testing.assert_allclose(
            np.asarray(result, np.float64),
            exact,
            rtol=0,
            atol=limit * (1 + largest),
            err_msg=f"{what} {number}",
        )


SHAPES = [((3, 5, 6, 24), -1), ((4, 7, 9), 1), ((33, 5), -1), ((2, 3, 4, 2, 3), 0), ((70, 130), 1)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_values_and_gradients_are_the_formulas(dtype, activation):
    shapes = SHAPES if dtype == "float32" and activation in (None, "relu") else SHAPES[:1]
    for shape, axis in shapes:
        operands = problem(shape, dtype, axis)
        results = trained(*operands, axis=axis, activation=activation)
        assert results[0].dtype == results[3].dtype == jnp.dtype(dtype)
        expected = formulas(*operands, axis, activation)
        if activation in ("relu", "relu6"):  # next to a kink, rounding decides
            assert_close((results[0], *results[1:3]), expected[:3], dtype, shape)
            close = np.abs(np.asarray(results[3], float) - expected[3]) > 0.02 * (1 + np.abs(expected[3]))
            assert close.mean() < 0.01
            assert_close(results[4:], expected[4:], dtype if dtype[:5] == "float" else "float32", shape)
        elif activation == "silu" and results[0].dtype.itemsize == 2:  # z is rounded before the activation
            assert_close(results[:3], expected[:3], dtype, shape)
            for result, exact in zip(results[3:], expected[3:], strict=True):
                error = np.abs(np.asarray(result, float) - exact).max()
                assert error < 2 * float(jnp.finfo(dtype).eps) * (1 + np.abs(exact).max())
        else:
            assert_close(results, expected, dtype, shape)


def test_the_variance_keeps_its_digits_far_from_zero():
    """A mean of 10⁴ deviations: of the mean of squares minus the squared mean no digit would be left."""
    operands = problem((4, 30, 30, 20), "float32", mean=1e4)
    results, expected = trained(*operands), formulas(*operands, -1, None)
    np.testing.assert_allclose(results[2], expected[2], rtol=1e-5)
    np.testing.assert_allclose(results[1], expected[1], rtol=2e-7)
    constant = jc.batch_norm(jnp.full((9, 40, 3), 1.1e7))[1]
    assert np.all(np.asarray(constant.var) == 0)


def test_each_primitive_is_its_form_in_jax_numpy():
    """Where there is no kernel, and in higher orders, jax.numpy computes."""
    x, scale, bias, dy = (array[None] for array in problem((3, 9, 40, 24), "float32"))
    vectors = (bias, scale, bias * 2, scale / 3, bias / 5)
    for activation in norm_primitives.ACTIVATIONS:
        for primitive, operands in [
            (norm_primitives.normalize_p, (x, *vectors[:3])),
            (norm_primitives.norm_sums_p, (x, dy, *vectors[:3])),
            (norm_primitives.norm_gradient_p, (x, dy, *vectors)),
        ]:
            params = {"channel_axis": 4 - 1, "activation": activation}
            operands = [
                jnp.reshape(array, (1, 27, 40, 24)) if array.ndim > 2 else array for array in operands
            ]
            for result, expected in zip(
                primitive.bind(*operands, **params), lax_forms[primitive](*operands, **params), strict=True
            ):
                np.testing.assert_allclose(result, expected, rtol=3e-5, atol=3e-4)


def test_running_statistics_move_as_flax_s():
    x, scale, bias, _ = problem((4, 6, 8), "float32")
    running = jnp.full(8, 0.5), jnp.full(8, 2.0)
    batch = jc.batch_norm(x, scale, bias)[1]
    moved = jc.batch_norm(x, scale, bias, running, momentum=0.9)[1]
    np.testing.assert_allclose(moved.mean, 0.9 * running[0] + 0.1 * batch.mean, rtol=1e-6)
    np.testing.assert_allclose(moved.var, 0.9 * running[1] + 0.1 * batch.var, rtol=1e-6)
    narrow = jc.batch_norm(x, scale, bias, [a.astype(jnp.bfloat16) for a in running])[1]
    assert narrow.mean.dtype == narrow.var.dtype == jnp.bfloat16


def test_evaluation_is_differentiable_in_all_of_its_arguments():
    x, scale, bias, dy = problem((4, 6, 8), "float64")
    running = jnp.linspace(0.0, 1, 8), jnp.linspace(1.0, 2, 8)

    def ours(x, mean, var, scale, bias):
        y, kept = jc.batch_norm(x, scale, bias, (mean, var), use_running_average=True, activation="relu")
        assert kept.mean is mean
        return jnp.sum(y * dy)

    def plain(x, mean, var, scale, bias):
        return jnp.sum(jax.nn.relu((x - mean) / jnp.sqrt(var + 1e-5) * scale + bias) * dy)

    every = tuple(range(5))
    results = jax.jit(jax.grad(ours, every))(x, *running, scale, bias)
    for result, expected in zip(results, jax.grad(plain, every)(x, *running, scale, bias), strict=True):
        np.testing.assert_allclose(result, expected, rtol=1e-10, atol=1e-10)


def test_without_scale_and_bias():
    x, scale, *_ = problem((4, 6, 8), "float32")
    np.testing.assert_array_equal(jc.batch_norm(x)[0], jc.batch_norm(x, jnp.ones(8), jnp.zeros(8))[0])
    np.testing.assert_array_equal(jc.batch_norm(x, scale)[0], jc.batch_norm(x, scale, jnp.zeros(8))[0])


def plain(x, scale, bias, activation="silu"):
    """The layer in jax.numpy, without a rule of its own."""
    mean, var = jnp.mean(x, (0, 1)), jnp.var(x, (0, 1))
    y = (x - mean) / jnp.sqrt(var + 1e-5) * scale + bias
    return getattr(jax.nn, activation)(y)


def test_second_derivatives_and_forward_mode():
    x, scale, bias, dy = problem((4, 3, 5), "float64")
    ours = lambda *arrays: jc.batch_norm(*arrays, activation="silu")[0]  # noqa: E731

    def second(layer):
        gradient = jax.grad(lambda *arrays: jnp.sum(layer(*arrays) * dy), (0, 1, 2))
        return jax.grad(lambda *a: sum(jnp.sum(jnp.sin(d)) for d in gradient(*a)), (0, 1, 2))(x, scale, bias)

    for result, expected in zip(
        jax.jit(second, static_argnums=0)(ours), jax.jit(second, static_argnums=0)(plain), strict=True
    ):
        np.testing.assert_allclose(result, expected, rtol=1e-9, atol=1e-9)

    tangents = (dy, bias, scale)
    with jc.forward_mode():
        result = jax.jvp(ours, (x, scale, bias), tangents)
    expected = jax.jvp(plain, (x, scale, bias), tangents)
    np.testing.assert_allclose(result, expected, rtol=1e-9, atol=1e-9)
    with pytest.raises(TypeError, match="forward-mode") as raised:
        jax.jvp(ours, (x, scale, bias), tangents)
    assert "forward_mode()" in "".join(raised.value.__notes__)
    # The gradient's derivative in forward mode, as in jax.hessian.

    def product(layer):
        return jax.jvp(jax.grad(lambda x: jnp.sum(layer(x, scale, bias) * dy)), (x,), (dy,))[1]

    np.testing.assert_allclose(product(ours), product(plain), rtol=1e-9, atol=1e-9)


def test_vmap_over_any_operands():
    x, scale, bias, _ = problem((3, 4, 5, 6), "float64")
    scales, biases = jnp.stack([scale, bias, scale + 1]), jnp.stack([bias, scale, bias])

    def gradients(x, scale, bias):
        return jax.grad(lambda *a: jnp.sum(jc.batch_norm(*a, activation="relu")[0] ** 3), (0, 1, 2))(
            x, scale, bias
        )

    gradients = jax.jit(gradients)
    for axes, arrays in [
        ((0, None, None), (x, scale, bias)),
        ((None, 0, 0), (x, scales, biases)),
        ((1, None, None), (jnp.moveaxis(x, 0, 1), scale, bias)),
        ((0, 0, None), (x, scales, bias)),
    ]:
        results = jax.vmap(gradients, axes)(*arrays)
        for one in range(3):
            given = [
                a if axis is None else jnp.take(a, one, axis) for a, axis in zip(arrays, axes, strict=True)
            ]
            for result, expected in zip(results, gradients(*given), strict=True):
                np.testing.assert_allclose(result[one], expected, rtol=1e-11, atol=1e-11)
    nested = jax.vmap(jax.vmap(lambda x: jc.batch_norm(x)[0]))(x[None])
    np.testing.assert_allclose(nested[0, 1], jc.batch_norm(x[1])[0], rtol=1e-12)


def test_a_named_axis_of_vmap_joins_the_statistics():
    x, scale, bias, dy = problem((4, 3, 5, 6), "float64")

    def loss(x, dy, **options):
        y, statistics = jc.batch_norm(x, scale, bias, activation="relu", **options)
        return jnp.sum(y * dy), statistics

    mapped = functools.partial(loss, axis_name="parts")
    dx, statistics = jax.vmap(jax.grad(mapped, has_aux=True), axis_name="parts")(x, dy)
    expected, whole = jax.grad(loss, has_aux=True)(x, dy)
    np.testing.assert_allclose(dx, expected, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(statistics.var, jnp.broadcast_to(whole.var, (4, 6)), rtol=1e-12)


def test_scan_and_checkpoint():
    x, scale, bias, _ = problem((4, 6, 5), "float64")

    def deep(block, x):
        return jnp.sum(jax.lax.scan(lambda x, _: (block(x), None), x, None, length=3)[0] ** 2)

    def block(x):
        return x + jc.batch_norm(x, scale, bias, activation="relu")[0]

    result = jax.grad(lambda x: deep(jax.checkpoint(block), x))(x)
    expected = jax.grad(lambda x: deep(lambda x: x + plain(x, scale, bias, "relu"), x))(x)
    np.testing.assert_allclose(result, expected, rtol=1e-9, atol=1e-9)


def test_an_exported_program_takes_any_batch():
    def step(x, scale, bias):
        def loss(x):
            y, statistics = jc.batch_norm(x, scale, bias, activation="relu")
            return jnp.sum(y**2), statistics

        return jax.grad(loss, has_aux=True)(x)

    (batch,) = export.symbolic_shape("b")
    vector = jax.ShapeDtypeStruct((24,), jnp.float32)
    exported = export.export(jax.jit(step), disabled_checks=jc.export_checks())(
        jax.ShapeDtypeStruct((batch, 40, 9, 24), jnp.float32), vector, vector
    )
    assert "jax_convgrad_norm_sums" in exported.mlir_module()
    for size in (1, 9, 20):  # one task, and several
        x, scale, bias, _ = problem((size, 40, 9, 24), "float32")
        for result, expected in zip(
            jax.tree.leaves(exported.call(x, scale, bias)), jax.tree.leaves(step(x, scale, bias)), strict=True
        ):
            np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-5)


def test_an_empty_batch_has_no_statistics():
    x = jnp.zeros((0, 4, 3))
    y, (mean, var) = jc.batch_norm(x)
    assert y.shape == (0, 4, 3)
    assert np.all(np.isnan(mean)) and np.all(np.isnan(var))
    dx, dscale = jax.grad(lambda x, s: jnp.sum(jc.batch_norm(x, s)[0]), (0, 1))(x, jnp.ones(3))
    assert dx.shape == x.shape and dscale.shape == (3,)
    running = jnp.zeros(3), jnp.ones(3)
    assert jc.batch_norm(x, None, None, running, use_running_average=True)[0].shape == (0, 4, 3)
    assert jc.batch_norm(jnp.zeros((2, 4, 0)))[1].mean.shape == (0,)


X, C = jnp.ones((2, 4, 3)), jnp.ones(3)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((jnp.ones((2, 3), jnp.int32),), {}, TypeError, "x must be of dtype"),
        (([1.0],), {}, TypeError, "x must be an array"),
        ((jnp.float32(1),), {}, ValueError, "axis must be a dimension of x"),
        ((X, jnp.ones(4)), {}, ValueError, r"scale must be of shape \(3,\)"),
        ((X, C, jnp.ones((1, 3))), {}, ValueError, "bias must be of shape"),
        ((X, jnp.ones(3, jnp.int32)), {}, TypeError, "scale must be of a floating dtype"),
        ((X, 1.0), {}, TypeError, "scale must be an array"),
        ((X,), {"axis": 3}, ValueError, "axis"),
        ((X,), {"axis": (1, 2)}, TypeError, "axis must be an integer"),
        ((X,), {"activation": "gelu"}, ValueError, 'activation must be None, "relu"'),
        ((X,), {"epsilon": -1.0}, ValueError, "epsilon"),
        ((X,), {"epsilon": None}, TypeError, "epsilon"),
        ((X, C, C, (C, C)), {"momentum": "0.9x"}, TypeError, "momentum"),
        ((X,), {"use_running_average": True}, ValueError, "running"),
        ((X, C, C, 3), {}, TypeError, "running must be a pair"),
        ((X, C, C, (C, jnp.ones(2))), {}, ValueError, "running var must be of shape"),
        ((X,), {"axis_index_groups": [[0, 1]]}, ValueError, "axis_name"),
    ],
)
def test_a_wrong_argument_is_named(arguments, options, error, message):
    for call in (jc.batch_norm, lambda *given, **rest: jax.eval_shape(lambda: jc.batch_norm(*given, **rest))):
        with pytest.raises(error, match=message):
            call(*arguments, **options)
