"""`check_gradients` where differences are difficult: kinks, NaN, odd leaves, coarse dtypes."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checked_gradients import RANDOM, W, X, row_of
from jax import lax

import jax_convgrad as jc
from jax_convgrad import check_gradients


@pytest.mark.parametrize("x64", [True, False])
def test_a_kink_is_no_mistake(x64):
    with jax.enable_x64(x64):
        x = jnp.array([0.0, 1e-9, -1e-9, 2.0, -1.0])
        report = check_gradients(jax.nn.relu, x)
        tied = check_gradients(lambda x: jc.max_pool(x, (2,)), jnp.ones((1, 3, 1)))
        magnitude = check_gradients(jnp.abs, x)
    assert report.ok and magnitude.ok, report
    assert row_of(report, "x").kinks >= 1
    assert "kink" in str(report)
    assert tied.ok and tied.rows[0].kinks == 3, tied


@pytest.mark.parametrize("x64", [True, False])
def test_a_value_that_no_kink_explains_is_a_mistake(x64):
    """relu's derivative at 0 may be anything from 0 to 1, but not 2 or -1; beside 0 it is what it is."""

    def relu(at_zero, below=0.0):
        @jax.custom_vjp
        def f(x):
            return jnp.maximum(x, 0)

        f.defvjp(
            lambda x: (f(x), x),
            lambda x, dy: (dy * jnp.where(x > 0, 1, jnp.where(x == 0, at_zero, below)).astype(x.dtype),),
        )
        return f

    with jax.enable_x64(x64):
        x = jnp.array([0.0, 1.0, -1.0, -0.125])
        for at_zero, verdict in ((0, "ok"), (1, "ok"), (0.25, "ok"), (2, "WRONG"), (-1, "WRONG")):
            (row,) = check_gradients(relu(at_zero), x).rows
            assert row.verdict == verdict
            assert row.index == ((0,) if verdict == "WRONG" else row.index)
        assert row_of(check_gradients(relu(0, below=0.5), x), "x").verdict == "WRONG"


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_several_kinks_at_once(dtype):
    """Zeros before a relu: a black border under biases of 0, all of it, and what is wrong beside it."""
    rng = np.random.default_rng(0)
    image = np.zeros((2, 10, 10, 1))
    image[:, 3:7, 3:7] = rng.random((2, 4, 4, 1))
    p = {
        "w1": rng.standard_normal((3, 3, 1, 4)) / 2,
        "b1": np.zeros(4),
        "w2": rng.standard_normal((3, 3, 4, 4)) / 3,
        "b2": np.zeros(4),
    }
    p, image = jax.tree.map(lambda a: jnp.asarray(a, dtype), (p, image))
    layer = partial(jc.conv, padding="SAME", activation="relu")

    def net(p, x):
        x = jc.max_pool(layer(x, p["w1"], p["b1"]), (2, 2), (2, 2))
        return layer(x, p["w2"], p["b2"]).mean((1, 2))

    report = check_gradients(net, p, image)
    assert report.ok, report
    assert row_of(report, "x").kinks > 100
    zeros = jnp.zeros((1, 6, 6, 2), dtype)
    w = jnp.asarray(rng.standard_normal((3, 3, 2, 2)), dtype)
    assert check_gradients(lambda x, w: jax.nn.relu(jc.conv(x, w)).sum(), zeros, w).ok

    @jax.custom_vjp
    def wrong(p, x):
        return net(p, x)

    def bwd(kept, dy):
        dp, dx = jax.vjp(net, *kept)[1](dy)
        return dp, dx.at[0, 5, 4, 0].multiply(1.01).at[0, 0, 0, 0].add(10.0)

    wrong.defvjp(lambda *args: (net(*args), args), bwd)
    row = row_of(check_gradients(wrong, p, image), "x")
    assert row.verdict == "WRONG" and "2 of 200 entries" in row.note, row


def test_steps_that_meet_a_kink_are_made_again():
    """The kink is 1e-5 away, inside the first step: the derivative is 0, found by a smaller one."""
    report = check_gradients(jax.nn.relu, jnp.array([-1e-5, 1.0]))
    (row,) = report.rows
    assert (row.verdict, row.kinks) == ("ok", 0)


def test_what_is_not_finite_never_passes():
    def with_nan(x):
        return jnp.where(x > 0, jnp.sqrt(x), 0.0)  # whose gradient at 0 is 0 · inf

    report = check_gradients(with_nan, jnp.array([1.0, 0.0, 4.0]))
    row = row_of(report, "x")
    assert (row.verdict, report.ok) == ("not finite", False)
    assert "the first at [1]" in row.note
    assert row_of(check_gradients(jnp.log, jnp.array([1.0, -1.0])), "x").verdict == "not finite"
    assert row_of(check_gradients(lambda x: x * jnp.inf, jnp.ones(2)), "x").verdict == "not finite"
    at_edge = check_gradients(lambda x: jnp.where(x <= 1, x, jnp.nan), jnp.ones(2))
    assert row_of(at_edge, "x").verdict == "not finite"


def test_trees_integers_and_what_is_empty():
    params = {"w": jnp.asarray(W), "layers": [jnp.ones(3), jnp.zeros((0, 2))], "name": "net", "none": None}
    labels = jnp.array([1, 2])

    def loss(params, labels, scale):
        w = params["w"].sum() * scale * labels.sum()
        return {"loss": w**2 + jnp.sum(params["layers"][0]) ** 3, "labels": labels, "name": params["name"]}

    report = check_gradients(loss, params, labels, 0.5)
    assert report.ok, report
    assert [row.name for row in report.rows] == [
        "params['layers'][0]",
        "params['layers'][1]",
        "params['w']",
        "scale",
        "params['name']",
        "labels",
    ]
    assert row_of(report, "labels").verdict == row_of(report, "params['name']").verdict == "skipped"
    assert "empty" in row_of(report, "params['layers'][1]").note
    # args not chosen are not told of either
    assert [row.name for row in check_gradients(loss, params, labels, 0.5, argnums=2).rows] == ["scale"]
    assert [row.name for row in check_gradients(loss, params, labels, 0.5, argnums=-1).rows] == ["scale"]


def test_arguments_that_must_keep_their_dtype():
    """f's filter is float32's whatever x is, and lax takes no two dtypes: float32 differences."""
    w = jnp.asarray(W, jnp.float32)
    report = check_gradients(lambda x: jc.conv(x, w), jnp.asarray(X, jnp.float32))
    assert report.ok, report
    assert report.reference.startswith("finite differences in float32")
    assert "does not take its arguments in float64" in str(report)


@pytest.mark.parametrize("x64", [True, False])
@pytest.mark.parametrize("argnums", [0, 1])
def test_arguments_that_are_not_chosen_are_float64_too(argnums, x64):
    """A relative error of 3e-4 in one entry, which float32's differences would let pass."""

    def f(x, w, scale):
        return jnp.tanh(jc.conv(x, w["w"])).sum() * scale

    @jax.custom_vjp
    def wrong(x, w, scale):
        return f(x, w, scale)

    def bwd(kept, dy):
        dx, dw, _ = jax.vjp(f, *kept)[1](dy)
        return dx.at[1, 3, 2, 1].multiply(1 + 3e-4), {"w": dw["w"].at[2, 0, 1, 1].multiply(1 + 3e-4)}, None

    wrong.defvjp(lambda *args: (f(*args), args), bwd)
    with jax.enable_x64(x64):
        args = jnp.asarray(X, jnp.float32), {"w": jnp.asarray(W, jnp.float32)}, 2.0
        right, report = (
            check_gradients(f, *args, argnums=argnums),
            check_gradients(wrong, *args, argnums=argnums),
        )
        second = check_gradients(f, *args, argnums=argnums, order=2)
    assert right.ok and second.ok, second
    assert right.reference == "finite differences in float64 and by lax's own gradient"
    (row,) = report.rows
    assert (row.verdict, row.index) == ("WRONG", [(1, 3, 2, 1), (2, 0, 1, 1)][argnums])


def test_random_numbers_that_differ_by_dtype():
    """They would make f in float64 another function: so the differences are in its own dtype."""
    key = jax.random.key(0)

    def f(x):
        return jnp.sum(jax.random.normal(key, x.shape, x.dtype) * x**2)

    report = check_gradients(f, jnp.asarray(RANDOM.standard_normal(9), jnp.float32))
    assert report.ok, report
    assert "float32" in report.reference
    assert "other values in float64" in str(report)


def test_a_net_of_many_kinks_without_x64():
    """Each step of a bias crosses the kinks of many units: kinks, and no error."""
    draw = np.random.default_rng(0).standard_normal
    with jax.enable_x64(False):
        params = [jnp.asarray(draw(s) * 0.2, jnp.float32) for s in ((3, 3, 3, 8), (3, 3, 8, 8), (8, 4))]
        x, b = jnp.asarray(draw((4, 12, 12, 3)), jnp.float32), jnp.zeros(8)

        def loss(b, first, second, last):
            h = jc.max_pool(jc.conv(x, first, b, padding="SAME", activation="relu"), (2, 2), (2, 2))
            h = jc.conv(h, second, b, padding="SAME", activation="relu").mean((1, 2))
            return -jax.nn.log_softmax(h @ last)[jnp.arange(4), jnp.arange(4)].mean()

        report = check_gradients(loss, b, *params)
    assert report.ok, report
    assert "does not take" in str(report)  # as x is float32's


def normalised_net(p, x):
    """Biases before a batch normalisation, whose gradients are 0: sums of terms that cancel."""
    layer = partial(jc.conv, padding="SAME")
    for stride, n in ((1, "1"), (2, "2")):
        y = layer(x, p["w" + n], p["b" + n], stride=stride)
        mean, variance = y.mean((0, 1, 2)), y.var((0, 1, 2))
        x = jax.nn.relu((y - mean) * lax.rsqrt(variance + 1e-5))
    return -jax.nn.log_softmax(x.mean((1, 2)) @ p["last"])[:, 0].mean()


def net_arguments(seed):
    rng = np.random.default_rng(seed)

    def drawn(*shape, scale):
        return jnp.asarray(scale * rng.standard_normal(shape), jnp.float32)

    p = {
        "w1": drawn(3, 3, 3, 8, scale=0.27),
        "w2": drawn(3, 3, 8, 8, scale=0.17),
        "last": drawn(8, 4, scale=1),
    }
    return p | {"b1": jnp.zeros(8, jnp.float32), "b2": jnp.zeros(8, jnp.float32)}, drawn(
        8, 12, 12, 3, scale=1
    )


@pytest.mark.parametrize("seed", range(3))
def test_gradients_that_cancel_in_a_normalised_net(seed):
    with jax.enable_x64(False):
        report = check_gradients(normalised_net, *net_arguments(seed), most_entries=80)
    assert report.ok, report


def test_mistakes_in_a_normalised_net():
    @jax.custom_vjp
    def wrong(p, x):
        return normalised_net(p, x)

    def bwd(kept, dy):
        dp, dx = jax.vjp(normalised_net, *kept)[1](dy)
        wrong_there = {"b2": dp["b2"].at[1].add(1e-4), "w2": dp["w2"].at[1, 1, 2, 3].multiply(1.01)}
        return dp | wrong_there, dx

    wrong.defvjp(lambda p, x: (wrong(p, x), (p, x)), bwd)
    with jax.enable_x64(False):
        report = check_gradients(wrong, *net_arguments(0), most_entries=600)
    not_ok = {row.name: row.index for row in report.rows if not row.ok}
    assert not_ok == {"p['b2']": (1,), "p['w2']": (1, 1, 2, 3)}, report


def test_bfloat16_inside_is_told_from_a_mistake():
    def f(x, scale=1.0):
        return jnp.sum(jnp.tanh(x.astype(jnp.bfloat16)) * jnp.bfloat16(1.5)).astype(x.dtype)

    x = jnp.asarray(np.random.default_rng(0).standard_normal(20), jnp.float32).at[7].set(0.3)
    assert check_gradients(f, x).ok

    @jax.custom_vjp
    def wrong(x):
        return f(x)

    wrong.defvjp(lambda x: (f(x), x), lambda x, dy: (jax.grad(f)(x).at[7].multiply(-1) * dy,))
    row = row_of(check_gradients(wrong, x), "x")
    assert (row.verdict, row.index) == ("WRONG", (7,))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_dtype_that_f_computes_in_is_named(dtype):
    """Whatever that of its arguments is."""
    x = jnp.asarray(RANDOM.standard_normal(5), jnp.float32)
    report = check_gradients(lambda x: jnp.sin(x.astype(dtype)).sum(), x)
    assert report.ok
    assert report.reference == f"finite differences in {dtype}"
    eps = float(jnp.finfo(dtype).eps)
    assert f"whatever it is given, f computes in a dtype with eps {eps:.2g}" in str(report)


def test_a_value_that_is_rounded_in_long_treads():
    """A loss of 8e-5, a difference of numbers near 10 in float32: small steps do not change it at all."""
    draw = np.random.default_rng(11).standard_normal
    x, w1, b1 = draw((2, 12, 12, 3)), draw((3, 3, 3, 6)) * 0.4, draw(6) * 0.1
    args = [x, w1, b1, draw((3, 3, 6, 6)) * 0.3, draw(6) * 0.1, draw((6, 3))]

    def loss(*args):
        x, w1, b1, w2, b2, last = (arg.astype(jnp.float32) for arg in args)
        layer = partial(jc.conv, padding="SAME", activation="relu")
        y = layer(jc.max_pool(layer(x, w1, b1), (2, 2), (2, 2)), w2, b2)
        return -jax.nn.log_softmax(y.mean((1, 2)) @ last)[:, 0].mean()

    report = check_gradients(loss, *(jnp.asarray(arg, jnp.float32) for arg in args), most_entries=40)
    assert report.ok, report


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_steps_suit_the_size_of_the_argument(scale):
    x = jnp.asarray(RANDOM.standard_normal(30) * scale)
    assert check_gradients(lambda x: jnp.sin(x / scale), x).ok
    with jax.enable_x64(False):
        assert check_gradients(lambda x: jnp.sin(x / scale), jnp.asarray(x, jnp.float32)).ok
