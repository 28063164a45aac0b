"""`check_gradients`: planted mistakes are found and named, right gradients pass, in every dtype."""

import inspect
import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from calls import CALLS
from jax import lax

import jax_convgrad as jc
from jax_convgrad import GradientError, check_gradients

RANDOM = np.random.default_rng(11)
X = RANDOM.standard_normal((2, 6, 5, 3))
W = RANDOM.standard_normal((3, 2, 3, 4))
B = RANDOM.standard_normal(4)


def row_of(report, name, order=1):
    (row,) = [row for row in report.rows if (row.name, row.order) == (name, order)]
    return row


def narrow(f):
    """f as it is where it refuses float64, so that its differences are float32's."""

    def g(*args):
        if any(arg.dtype == jnp.float64 for arg in args):
            raise TypeError("no float64 here")
        return f(*args)

    g.__signature__ = inspect.signature(f)
    return g


# ---------------------------------------------------------------------------------------- planted mistakes


def layer_with(mistake):
    """A convolution with a bias, whose own backward pass has a mistake."""

    @jax.custom_vjp
    def layer(x, w, b):
        return jc.conv(x, w, b)

    def fwd(x, w, b):
        return layer(x, w, b), (x, w)

    def bwd(kept, dy):
        x, w = kept
        right = jc.conv_input_grad(dy, w, x.shape), jc.conv_filter_grad(x, dy, w.shape), jc.conv_bias_grad(dy)
        return mistake(*right)

    layer.defvjp(fwd, bwd)
    return layer


TELLS = {"float64": 1e-8, "float32": 1e-2, "bfloat16": 0.03, "float16": 1e-2}
PLACE = (2, 0, 1, 1)
MISTAKES = {
    "wrong_sign_of_one": ("w", lambda dx, dw, db: (dx, dw.at[PLACE].multiply(-1), db)),
    "half": ("x", lambda dx, dw, db: (dx / 2, dw, db)),
    "flipped_taps": ("w", lambda dx, dw, db: (dx, dw[::-1, ::-1], db)),
    "no_bias_gradient": ("b", lambda dx, dw, db: (dx, dw, 0 * db)),
    "channels_swapped": ("b", lambda dx, dw, db: (dx, dw, db[jnp.array([0, 2, 1, 3])])),
}


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
@pytest.mark.parametrize("x64", [True, False])
@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_found_where_it_is(name, dtype, x64):
    if dtype == "float64" and not x64:
        pytest.skip("there is none")
    where, mistake = MISTAKES[name]
    with jax.enable_x64(x64):
        args = [jnp.asarray(a, dtype) for a in (X, W, B)]
        as_it_is = (lambda f: f) if x64 else narrow
        report = check_gradients(as_it_is(layer_with(mistake)), *args)
        right = check_gradients(as_it_is(lambda x, w, b: jc.conv(x, w, b)), *args)
    assert right.ok
    assert not report.ok
    for row in report.rows:
        assert row.verdict == ("WRONG" if row.name == where else "ok")
    row = row_of(report, where)
    expected = row_of(right, where)
    if name == "wrong_sign_of_one":
        assert row.index == PLACE
        np.testing.assert_allclose(row.found, -row.expected, rtol=TELLS[dtype])
    if name == "half":
        np.testing.assert_allclose(row.found, row.expected / 2, rtol=TELLS[dtype])
    if name == "channels_swapped":
        assert row.index in [(1,), (2,)]
    # What is expected is a number of its own: that of the direct sum, within its tolerance.
    assert row.error == pytest.approx(abs(row.found - row.expected), rel=1e-6)
    assert row.error > row.tolerance >= 0
    assert expected.error <= expected.tolerance


def test_the_expected_number_is_the_sum():
    """Against the formula of db, by NumPy: the projection's weights are those of dy."""
    dy = np.random.default_rng(5).standard_normal((2, 4, 4, 4))

    def f(b):
        return jnp.sum(layer_with(lambda dx, dw, db: (dx, dw, -db))(X, W, b) * dy)

    report = check_gradients(f, jnp.asarray(B))
    row = report.rows[0]
    db = dy.sum((0, 1, 2))
    np.testing.assert_allclose(row.expected, db[row.index], rtol=1e-8)
    np.testing.assert_allclose(row.found, -db[row.index], rtol=1e-12)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_one_wrong_entry_of_a_large_array(dtype):
    """It is not among those drawn: the directions tell of it, and halving finds it."""
    place = (3, 17, 40)

    @jax.custom_vjp
    def square(x):
        return jnp.sum(x**2)

    square.defvjp(lambda x: (square(x), x), lambda x, dy: ((2 * x * dy).at[place].multiply(-1.0),))
    x = jnp.asarray(np.random.default_rng(6).standard_normal((5, 30, 50)), dtype)
    report = check_gradients(square, x)
    (row,) = report.rows
    assert row.verdict == "WRONG"
    assert row.index == place
    assert (row.entries, row.directions) == (66, 4) or row.entries < 70
    assert "direction" in row.note
    assert "66 of 7500" in str(report) or "of 7500 + 4 directions" in str(report)
    right = check_gradients(lambda x: jnp.sum(x**2), x)
    assert right.ok and right.rows[0].directions == 4


def test_noise_in_one_direction_leaves_the_others(monkeypatch):
    """One that halving does not confirm: a wrong entry is found along the next."""
    from jax_convgrad.instruments.point_check import PointCheck

    wrong = jax.custom_vjp(lambda x: jnp.sum(x**2))
    wrong.defvjp(lambda x: (wrong(x), x), lambda x, dy: ((2 * x * dy).at[17, 3].multiply(-1.0),))
    x = jnp.asarray(np.random.default_rng(6).standard_normal((40, 30)))
    right, noise = PointCheck._excess, iter([2.0, 0.5, 0.5])
    monkeypatch.setattr(PointCheck, "_excess", lambda *args: next(noise, None) or right(*args))
    (row,) = check_gradients(wrong, x).rows
    assert (row.verdict, row.index, next(noise, None)) == ("WRONG", (17, 3), None)
    assert "direction" in row.note


def test_a_mistake_of_the_second_order():
    """Right at first order: only the gradient's own gradient is wrong, in one entry."""

    @jax.custom_vjp
    def double(dx):
        return 2 * dx

    double.defvjp(lambda dx: (2 * dx, None), lambda _, t: (2 * t.at[1].multiply(0.5),))

    @jax.custom_vjp
    def cube(x):
        return x**3

    cube.defvjp(lambda x: (x**3, x), lambda x, dy: (1.5 * double(x) * x * dy,))
    x = jnp.array([0.5, -1.5, 2.0])
    assert check_gradients(cube, x).ok
    report = check_gradients(cube, x, order=2)
    assert row_of(report, "x").ok
    row = row_of(report, "x", order=2)
    assert (row.verdict, row.index) == ("WRONG", (1,))
    assert "order" in str(report)
    assert [row.order for row in check_gradients(lambda x: x**3, x, order=3).rows] == [1, 2, 3]


def test_a_wrong_order_is_the_last():
    x = jnp.array([0.5, 2.0])

    @jax.custom_vjp
    def wrong(x):
        return x**2

    wrong.defvjp(lambda x: (x**2, x), lambda x, dy: (3 * x * dy,))
    report = check_gradients(wrong, x, order=2)
    assert [row.order for row in report.rows] == [1]
    assert "order 2 builds on order 1" in str(report)


# ------------------------------------------------------------------------------------------ right gradients


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


# ----------------------------------------------------------------------------------- kinks, NaN, odd leaves


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


# ------------------------------------------------------------------------------------- the report, arguments


def test_report_as_text_html_and_error():
    layer = layer_with(MISTAKES["wrong_sign_of_one"][1])
    report = check_gradients(layer, X, W, B)
    text = str(report)
    assert text.startswith("1 of 3 gradients not ok")
    (line,) = [line for line in text.splitlines() if "WRONG" in line]
    assert line.startswith("w ") and str(list(PLACE)) in line and "float64[3,2,3,4]" in line
    assert "1 of 72 entries" in text
    page = report._repr_html_()
    assert page.count("<tr>") == 4
    assert re.search(r"<td[^>]*>WRONG", page)
    with pytest.raises(GradientError, match=r"\[2, 0, 1, 1\]"):
        report.raise_if_wrong()
    with pytest.raises(AssertionError, match="WRONG"):
        check_gradients(layer, X, W, B, raise_on_error=True)
    check_gradients(jc.conv, X, W, B, raise_on_error=True).raise_if_wrong()
    with pytest.raises(TypeError, match=r"\.ok"):
        assert report


def test_same_seed_same_report():
    x = jnp.asarray(RANDOM.standard_normal(400))
    first, second, other = (str(check_gradients(jnp.sin, x, seed=seed)) for seed in (1, 1, 2))
    assert first == second != other


def test_tolerances_and_step_that_are_given():
    def off(x):
        return x**2

    wrong = jax.custom_vjp(off)
    wrong.defvjp(lambda x: (x**2, x), lambda x, dy: (2.002 * x * dy,))
    x = jnp.array([1.0, -2.0])
    assert not check_gradients(wrong, x).ok
    assert check_gradients(wrong, x, rtol=2e-3).ok
    assert check_gradients(wrong, x, atol=5e-3).ok
    assert not check_gradients(wrong, x, rtol=1e-4, atol=0).ok
    assert check_gradients(jnp.sin, x, eps=1e-3).ok


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"order": 0}, ValueError, "order"),
        ({"order": 1.5}, TypeError, "order"),
        ({"eps": 0.0}, ValueError, "eps"),
        ({"eps": "small"}, TypeError, "eps"),
        ({"rtol": -1}, ValueError, "rtol"),
        ({"atol": float("nan")}, ValueError, "atol"),
        ({"argnums": 3}, ValueError, "argnums"),
        ({"argnums": "x"}, TypeError, "argnums"),
        ({"most_entries": 0}, ValueError, "most_entries"),
        ({"seed": -1}, ValueError, "seed"),
        ({"seed": "a"}, TypeError, "seed"),
    ],
)
def test_bad_arguments_are_named(arguments, error, message):
    with pytest.raises(error, match=message):
        check_gradients(jnp.sin, jnp.ones(2), **arguments)


def test_nothing_to_differentiate():
    with pytest.raises(TypeError, match="args should hold"):
        check_gradients(lambda n: n * 1.0, jnp.arange(3))
    with pytest.raises(TypeError, match="args should hold"):
        check_gradients(lambda: 1.0)
    with pytest.raises(TypeError, match="f should return"):
        check_gradients(lambda x: x > 0, jnp.ones(3))
    with pytest.raises(TypeError, match="f must be a function"):
        check_gradients(3, jnp.ones(3))
