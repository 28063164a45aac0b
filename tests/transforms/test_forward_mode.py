"""Forward mode, alone and mixed with reverse mode up to third order, compared with lax."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from lowered_programs import foreign

import jax_convgrad as jc
from jax_convgrad.primitives.hijax_layer import HAS_BOTH_MODES

both_modes = pytest.mark.skipif(
    not HAS_BOTH_MODES, reason="before jax 0.12 layers are bound for reverse mode"
)

RANDOM = np.random.default_rng(3)
X = jnp.asarray(RANDOM.standard_normal((1, 4, 3, 2)))
W = jnp.asarray(RANDOM.standard_normal((2, 2, 2, 2)))
B = jnp.asarray(RANDOM.standard_normal(2))
DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def _lax_conv(x, w):
    return lax.conv_general_dilated(x, w, (2, 1), "SAME", dimension_numbers=DIMENSIONS)


FUNCTIONS = {
    "conv": (
        lambda x, w: jc.conv(x, w, B, stride=(2, 1), padding="SAME", activation="relu"),
        lambda x, w: jax.nn.relu(_lax_conv(x, w) + B),
    ),
    "conv_general_dilated": (
        lambda x, w: jc.conv_general_dilated(x, w, (2, 1), "SAME", dimension_numbers=DIMENSIONS),
        _lax_conv,
    ),
    "conv_transpose": (
        lambda x, w: jc.conv_transpose(x, w, (2, 1), "SAME", transpose_kernel=True),
        lambda x, w: lax.conv_transpose(x, w, (2, 1), "SAME", transpose_kernel=True),
    ),
    "max_pool": (
        lambda x, w: jc.max_pool(x * w[0, 0, 0], (2, 2), (2, 1)),
        lambda x, w: lax.reduce_window(
            x * w[0, 0, 0], -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 1, 1), "VALID"
        ),
    ),
    "avg_pool": (
        lambda x, w: jc.avg_pool(x * w[0, 0, 0], (2, 2), (2, 1)),
        lambda x, w: lax.reduce_window(x * w[0, 0, 0], 0.0, lax.add, (1, 2, 2, 1), (1, 2, 1, 1), "VALID") / 4,
    ),
}


def scalar(f):
    return lambda x, w: jnp.sum(jnp.sin(f(x, w)))


def directional(f, seed=0):
    """The derivative of f along fixed directions, which is one order of forward mode."""
    random = np.random.default_rng(seed)
    tangents = [jnp.asarray(random.standard_normal(a.shape)) for a in (X, W)]
    return lambda x, w: jax.jvp(f, (x, w), tuple(tangents))[1]


def gradient_norm(f):
    return lambda x, w: sum(jnp.sum(part**2) for part in jax.grad(f, (0, 1))(x, w))


MODES = {
    "jvp": lambda f: directional(f),
    "linearize": lambda f: lambda x, w: jax.linearize(f, x, w)[1](x, w),
    "jacfwd": lambda f: jax.jacfwd(f, (0, 1)),
    "hessian": lambda f: jax.hessian(scalar(f), (0, 1)),
    "forward_over_forward": lambda f: directional(directional(f), 1),
    "reverse_over_forward": lambda f: jax.grad(directional(scalar(f)), (0, 1)),
    "reverse_forward_reverse": lambda f: jax.grad(directional(gradient_norm(scalar(f))), (0, 1)),
    "forward_reverse_forward": lambda f: directional(gradient_norm(directional(scalar(f)))),
    "forward_forward_reverse": lambda f: directional(directional(gradient_norm(scalar(f))), 1),
}


def assert_same(ours, theirs):
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_derivatives(name, mode):
    ours, theirs = FUNCTIONS[name]
    with jc.forward_mode():
        got = jax.jit(MODES[mode](ours))(X, W)
    assert_same(got, jax.jit(MODES[mode](theirs))(X, W))


@both_modes
@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_derivatives_straight_on_a_layer(name, mode, jit):
    """Derivatives without the context; with ``jit`` the layer is a jaxpr before it is differentiated."""
    ours, theirs = FUNCTIONS[name]
    got = jax.jit(MODES[mode](jax.jit(ours) if jit else ours))(X, W)
    assert_same(got, jax.jit(MODES[mode](theirs))(X, W))


@both_modes
@pytest.mark.parametrize("name", FUNCTIONS)
def test_forward_mode_inside_of_other_transformations(name):
    ours, theirs = FUNCTIONS[name]

    def uses(f):
        def looped(x, w):
            return lax.scan(lambda c, k: (c + f(x, k * w).sum(), f(x, w)), 0.0, jnp.arange(1.0, 4))

        def chosen(x, w):
            return lax.cond(w.sum() > -1e9, f, lambda x, w: 0 * f(x, w), x, w)

        mapped = jax.vmap(f, (None, 0))
        return [
            directional(looped),
            lambda x, w: jax.jvp(mapped, (x, jnp.stack([w, 2 * w])), (x, jnp.stack([w, w]))),
            lambda x, w: jax.vmap(directional(f), (None, 0))(x, jnp.stack([w, 2 * w])),
            directional(chosen),
            directional(jax.checkpoint(f)),
            jax.grad(directional(jax.checkpoint(scalar(f))), (0, 1)),
        ]

    for of_ours, of_theirs in zip(uses(ours), uses(theirs), strict=True):
        assert_same(jax.jit(of_ours)(X, W), jax.jit(of_theirs)(X, W))


@both_modes
def test_reverse_mode_is_by_the_layers_own_rule():
    """The kernels are the same as with custom_vjp: dw and db are one call."""

    def f(x, w, b):
        return jnp.sin(jc.conv(x, w, b, activation="relu")).sum()

    calls = re.findall(r"@(jax_convgrad_\w+)", jax.jit(jax.grad(f, (0, 1, 2))).lower(X, W, B).as_text())
    names = set(calls) - {"jax_convgrad_fprop", "jax_convgrad_dgrad"}
    assert len(calls) == 4 and names == {"jax_convgrad_wgrad", "jax_convgrad_bgrad"}
    jaxpr = str(jax.make_jaxpr(jax.grad(f, (0, 1, 2)))(X, W, B))
    assert "jax_convgrad_wgrad_bgrad" in jaxpr


@both_modes
def test_linear_transpose_straight_on_a_layer():
    f, lax_f = FUNCTIONS["conv_general_dilated"]
    y = f(X, W)
    in_x = [jax.linear_transpose(lambda x, g=g: g(x, W), X)(y) for g in (f, lax_f)]
    in_w = [jax.linear_transpose(lambda w, g=g: g(X, w), W)(y) for g in (f, lax_f)]
    assert_same(*in_x)
    assert_same(*in_w)
    with pytest.raises(NotImplementedError, match="not linear"):
        jax.linear_transpose(lambda x: jc.conv(x, W, B, activation="relu"), X)(jc.conv(X, W))


@both_modes
def test_checkpoint_policies_see_into_a_layer():
    """An array that a policy saves is not computed again, as with custom_vjp."""
    f = scalar(FUNCTIONS["conv"][0])
    calls = [
        str(jax.make_jaxpr(jax.grad(jax.checkpoint(f, policy=policy)))(X, W)).count("jax_convgrad_fprop")
        for policy in (None, lambda p, *_, **__: p.name.startswith("jax_convgrad_fprop"))
    ]
    assert calls == [2, 1]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_hessian_of_the_bound_layer(backend, name):
    """Forward over reverse needs no context, because reverse mode removes the binding."""
    ours, theirs = FUNCTIONS[name]
    assert_same(
        jax.jit(jax.hessian(scalar(ours), (0, 1)))(X, W), jax.jit(jax.hessian(scalar(theirs), (0, 1)))(X, W)
    )


def test_linear_transpose_of_a_convolution():
    f, lax_f = FUNCTIONS["conv_general_dilated"]
    y = f(X, W)
    with jc.forward_mode():
        got = jax.linear_transpose(lambda x: f(x, W), X)(y)
    assert_same(got, jax.linear_transpose(lambda x: lax_f(x, W), X)(y))


def test_jit_knows_the_context():
    """A function that was traced outside the context is traced again inside, where it has a forward mode."""
    f = jax.jit(FUNCTIONS["conv"][0])
    f(X, W)
    if not HAS_BOTH_MODES:
        with pytest.raises(TypeError, match="forward-mode"):
            jax.jvp(f, (X, W), (X, W))
        with pytest.raises(TypeError, match="forward-mode") as error:
            jax.jvp(FUNCTIONS["conv"][0], (X, W), (X, W))
        assert any("jax_convgrad.forward_mode()" in note for note in error.value.__notes__)
    with jc.forward_mode():
        jax.jvp(f, (X, W), (X, W))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_forward_mode_runs_on_our_kernels(name):
    with jc.forward_mode():
        found, targets = foreign(directional(FUNCTIONS[name][0]), (X, W))
    assert not found
    assert targets
