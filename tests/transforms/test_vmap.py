"""vmap has the results of a loop: any axis, nested, of gradients; on our kernels alone and without copies."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from calls import CALLS, gradient
from jax.extend import core
from lowered_programs import foreign
from vmap_loop import loop

import jax_convgrad as jc

NAMES = [
    "conv_general_dilated",
    "features_first",
    "conv_transpose",
    "depthwise",
    "conv",
    "max_pool",
    "avg_pool",
]


def per_example_gradient(f):
    def g(x, *rest):
        one = gradient(lambda x, *rest: f(x[None], *rest))
        return jax.vmap(one, in_axes=(0, *[None] * len(rest)))(x, *rest)

    return g


@pytest.mark.parametrize("name", NAMES)
def test_per_example_gradients(backend, name):
    f, (x, *rest) = CALLS[name]
    found, targets = foreign(per_example_gradient(f), (x, *rest))
    assert not found
    assert targets, "no kernel of ours is called either"

    together = jax.jit(per_example_gradient(f))(x, *rest)
    one = jax.jit(gradient(lambda x, *rest: f(x[None], *rest)))
    for n, example in enumerate(x):
        for a, b in zip(together, one(example, *rest), strict=True):
            np.testing.assert_allclose(a[n], b, rtol=0, atol=1e-5 * np.abs(b).max())


@pytest.mark.parametrize("mapped", ["x", "w", "both"])
@pytest.mark.parametrize("groups", [1, 2])
def test_over_inputs_and_filters(backend, mapped, groups):
    """An ensemble: filters, inputs or both have the mapped axis, each in a different place."""
    random = np.random.default_rng(4)
    x, w = random.standard_normal((2, 5, 6, 4)), random.standard_normal((3, 3, 4 // groups, 6))
    xs, ws = random.standard_normal((2, 5, 3, 6, 4)), random.standard_normal((3, 3, 4 // groups, 6, 3))

    def loss(x, w):
        return jnp.sum(jnp.sin(jc.conv(x, w, padding="SAME", groups=groups)))

    f = jax.jit(jax.value_and_grad(loss, (0, 1)))
    in_axes = {"x": (2, None), "w": (None, 4), "both": (2, 4)}[mapped]
    arrays = (xs if mapped != "w" else x, ws if mapped != "x" else w)
    together = jax.jit(jax.vmap(f, in_axes))(*arrays)
    for n in range(3):
        alone = f(xs[:, :, n] if mapped != "w" else x, ws[..., n] if mapped != "x" else w)
        for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(alone), strict=True):
            np.testing.assert_allclose(a[n], b, rtol=0, atol=1e-12 * np.abs(b).max())


def assert_same(together, alone):
    for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(alone), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12 * np.abs(b).max())


def broadcasts(jaxpr):
    """The number of elements of the largest array that an equation makes from copies of a smaller one."""
    sizes = [0]
    for equation in jaxpr.eqns:
        if equation.primitive.name in ("broadcast_in_dim", "tile", "concatenate"):
            given, made = equation.invars[0].aval.size, equation.outvars[0].aval.size
            sizes.append(made if 1 < given < made else 0)
        for inner in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda p: isinstance(p, core.Jaxpr | core.ClosedJaxpr)
        ):
            if isinstance(inner, core.Jaxpr | core.ClosedJaxpr):
                sizes.append(broadcasts(inner.jaxpr if isinstance(inner, core.ClosedJaxpr) else inner))
    return max(sizes)


RANDOM = np.random.default_rng(8)
X, W = RANDOM.standard_normal((2, 4, 5, 4)), RANDOM.standard_normal((2, 3, 2, 6))


def convolution(x, w):
    return jc.conv(x, w, padding="SAME", groups=2)


def gradients(x, w):
    return jax.grad(lambda x, w: jnp.sum(jnp.sin(convolution(x, w))), (0, 1))(x, w)


@pytest.mark.parametrize("out_axis", [0, 2, -1, -3])
@pytest.mark.parametrize("in_axes", [(1, None), (-1, None), (None, -2), (None, 1), (-2, 3), (4, -5)], ids=str)
@pytest.mark.parametrize("f", [convolution, gradients], ids=lambda f: f.__name__)
def test_any_axis(f, in_axes, out_axis):
    args = [
        a if axis is None else np.stack([a, 2 * a, 3 - a], axis)
        for a, axis in zip((X, W), in_axes, strict=True)
    ]
    together = jax.jit(jax.vmap(f, in_axes, out_axis))(*args)
    assert_same(together, loop(f, args, in_axes, out_axis))


NESTS = {
    "x_then_w": ((0, None), (None, 0)),
    "w_then_x": ((None, 0), (0, None)),
    "x_twice": ((0, None), (1, None)),
    "w_twice": ((None, 0), (None, 3)),
    "both_then_x": ((0, 0), (1, None)),
    "w_then_both": ((None, 1), (0, 0)),
}


@pytest.mark.parametrize("name", NESTS)
@pytest.mark.parametrize("f", [convolution, gradients], ids=lambda f: f.__name__)
def test_vmap_of_vmap(f, name):
    """Two levels may map different operands; x and w have the axes of the levels that map them."""
    outer, inner = NESTS[name]
    args = []
    for a, *axes in zip((X, W), inner, outer, strict=True):
        for seed, axis in enumerate(axes):
            a = a if axis is None else np.stack([a, np.cos(a + seed)], axis)
        args.append(a)
    together = jax.jit(jax.vmap(jax.vmap(f, inner), outer))(*args)
    assert_same(together, loop(lambda *args: loop(f, args, inner), args, outer))


def test_gradient_of_vmap_of_gradient():
    def of_both(x, ws):
        each = jax.vmap(gradients, (None, 0))(x, ws)
        return sum(jnp.sum(part**2) for part in jax.tree.leaves(each))

    def by_loop(x, ws):
        each = loop(gradients, (x, ws), (None, 0))
        return sum(jnp.sum(part**2) for part in jax.tree.leaves(each))

    ws = np.stack([W, np.cos(W)])
    assert_same(jax.jit(jax.grad(of_both, (0, 1)))(X, ws), jax.jit(jax.grad(by_loop, (0, 1)))(X, ws))


@pytest.mark.parametrize("in_axes", [(0, None), (None, 0)], ids=str)
@pytest.mark.parametrize("f", [convolution, gradients], ids=lambda f: f.__name__)
def test_an_operand_that_is_not_mapped_is_not_copied(f, in_axes):
    args = [a if axis is None else np.stack([a] * 7) for a, axis in zip((X, W), in_axes, strict=True)]
    assert broadcasts(jax.make_jaxpr(jax.vmap(f, in_axes))(*args).jaxpr) == 0
    assert (
        broadcasts(jax.make_jaxpr(lambda x: jnp.broadcast_to(x[None], (7, *x.shape)))(X).jaxpr) == 7 * X.size
    )


@pytest.mark.parametrize("in_axes", [(0, 0), (0, None), (None, 0)], ids=str)
def test_over_nothing(in_axes):
    args = [a if axis is None else np.zeros((0, *a.shape)) for a, axis in zip((X, W), in_axes, strict=True)]
    y = jax.vmap(convolution, in_axes)(*args)
    assert y.shape == (0, *convolution(X, W).shape)
    dx, dw = jax.vmap(gradients, in_axes)(*args)
    assert (dx.shape, dw.shape) == ((0, *X.shape), (0, *W.shape))
    pooled = jax.vmap(jax.grad(lambda x: jnp.sum(jc.max_pool(x, (2, 2)) + jc.avg_pool(x, (2, 2)))))
    assert pooled(np.zeros((0, *X.shape))).shape == (0, *X.shape)


def test_spmd_axis_name():
    """The name is for the sharding constraints of programs; folding the axis does not affect it."""
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("batch",))
    xs = np.stack([X, np.cos(X)])

    def f(x):
        y = convolution(x, W)
        spec = jax.sharding.PartitionSpec(None)
        return jax.lax.with_sharding_constraint(y, jax.sharding.NamedSharding(mesh, spec))

    together = jax.jit(jax.vmap(f, spmd_axis_name="batch"))(xs)
    assert_same(together, loop(f, (xs,), (0,)))


# Max pooling's linear maps read one operand at the positions in the other one.

POOLED = RANDOM.standard_normal((2, 5, 6, 3))


def pool(x):
    return jc.max_pool(x, (3, 2), (2, 1), "SAME")


def test_pooling_pulls_many_cotangents_back(backend):
    """jacrev uses the same positions for every cotangent, without copies of them."""
    y, vjp = jax.vjp(pool, POOLED)
    dys = RANDOM.standard_normal((3, *y.shape))
    pull = jax.vmap(lambda dy: vjp(dy)[0])
    assert broadcasts(jax.make_jaxpr(pull)(dys).jaxpr) == 0
    assert_same(jax.jit(pull)(dys), loop(lambda dy: vjp(dy)[0], (dys,), (0,)))
    # The gradient of that is a transpose, which sums over the operand that was read many times.
    together = jax.grad(lambda dys: jnp.sum(jnp.sin(pull(dys))))(dys)
    assert_same(together, loop(jax.grad(lambda dy: jnp.sum(jnp.sin(vjp(dy)[0]))), (dys,), (0,)))


def test_pooling_pulls_one_cotangent_back_through_many(backend):
    xs = np.stack([POOLED, -POOLED, np.cos(POOLED)], 2)
    dy = RANDOM.standard_normal(pool(POOLED).shape)

    def pull(dy, x):
        return jax.vjp(pool, x)[1](dy)[0]

    mapped = jax.vmap(pull, (None, 2))
    assert broadcasts(jax.make_jaxpr(mapped)(dy, xs).jaxpr) == 0
    assert_same(jax.jit(mapped)(dy, xs), loop(pull, (dy, xs), (None, 2)))
    both = jax.grad(lambda dy: jnp.sum(jnp.sin(mapped(dy, xs))))(dy)
    assert_same(both, jax.grad(lambda dy: jnp.sum(jnp.sin(loop(pull, (dy, xs), (None, 2)))))(dy))


@pytest.mark.parametrize(
    "levels", [((None, 0), (0, None)), ((0, None), (None, 0)), ((0, 0), (0, None))], ids=str
)
def test_pooling_on_two_levels(backend, levels):
    outer, inner = levels
    dy = RANDOM.standard_normal(pool(POOLED).shape)
    args = []
    for a, *axes in zip((dy, POOLED), inner, outer, strict=True):
        for axis in axes:
            a = a if axis is None else np.stack([a, np.cos(3 * a)], axis)
        args.append(a)

    def pull(dy, x):
        return jax.vjp(pool, x)[1](dy)[0]

    together = jax.jit(jax.vmap(jax.vmap(pull, inner), outer))(*args)
    assert_same(together, loop(lambda *args: loop(pull, args, inner), args, outer))


def test_pooling_pushes_many_tangents_forward(backend):
    """jacfwd and hessian do the same for the map that reads tangents at the positions."""
    ts = RANDOM.standard_normal((3, *POOLED.shape))
    with jc.forward_mode():
        push = jax.linearize(pool, POOLED)[1]
        assert_same(jax.jit(jax.vmap(push))(ts), loop(push, (ts,), (0,)))
        x = POOLED[:1, :3, :3, :1]
        assert_same(jax.jacfwd(pool)(x), jax.jacrev(pool)(x))
