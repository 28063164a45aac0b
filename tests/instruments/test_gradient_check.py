"""`check_gradients`: planted mistakes are found and named; the report, and its arguments."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checked_gradients import RANDOM, B, W, X, narrow, row_of

import jax_convgrad as jc
from jax_convgrad import GradientError, check_gradients


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
    from jax_convgrad.instruments.checked_function import CheckedFunction

    wrong = jax.custom_vjp(lambda x: jnp.sum(x**2))
    wrong.defvjp(lambda x: (wrong(x), x), lambda x, dy: ((2 * x * dy).at[17, 3].multiply(-1.0),))
    x = jnp.asarray(np.random.default_rng(6).standard_normal((40, 30)))
    right, noise = CheckedFunction._excess, iter([2.0, 0.5, 0.5])
    monkeypatch.setattr(CheckedFunction, "_excess", lambda *args: next(noise, None) or right(*args))
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
