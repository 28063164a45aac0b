"""`lax.reduce_window` on the kernels, with `install()` and `replace_convolutions`, has lax's own numbers."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from lowered_programs import primitives

import jax_convgrad as jc
from jax_convgrad.replace import lax_pooling

pytestmark = pytest.mark.pooling

SHAPE = (2, 3, 7, 8)
# Distinct numbers, so that every order of comparisons finds the same maximum.
X = jnp.asarray(np.random.default_rng(0).permutation(np.prod(SHAPE)).reshape(SHAPE) / 64 - 2.5)
TIED = jnp.round(X)


@pytest.fixture(autouse=True)
def _uninstalled():
    jc.uninstall()
    yield
    jc.uninstall()


def window(op, init, *args, **kwargs):
    return lambda x: lax.reduce_window(x, init, op, *args, **kwargs)


WINDOWS = {
    "max NCHW": window(lax.max, -jnp.inf, (1, 1, 3, 3), (1, 1, 2, 2), "SAME"),
    "max NHWC": window(lax.max, -jnp.inf, (1, 2, 3, 1), (1, 2, 2, 1)),
    "max HWCN": window(lax.max, -jnp.inf, (2, 2, 1, 1), (1, 2, 1, 1), "SAME"),
    "max apart": window(lax.max, -jnp.inf, (2, 1, 2, 1), (1, 1, 2, 1), "SAME"),
    "max 3d": window(lax.max, -jnp.inf, (1, 2, 3, 2), (1, 1, 2, 2), [(0, 0), (1, 0), (0, 2), (1, 1)]),
    "min": window(lax.min, jnp.inf, (1, 2, 3, 1), (1, 2, 2, 1), "SAME"),
    "sum": window(lax.add, 0.0, (1, 1, 2, 3), (1, 1, 2, 2), "SAME"),
    "sum steps of 1": window(lax.add, 0.0, (1, 1, 2, 3), (1,) * 4, "SAME"),
    "sum gaps": window(lax.add, 0.0, (1, 1, 1, 2), (1, 1, 3, 4)),
    "sum dilated": window(lax.add, 0.0, (1, 2, 2, 3), (1, 1, 2, 2), "SAME", None, (1, 2, 2, 2)),
    "sum base dilation": window(lax.add, 0.0, (1, 1, 2, 3), (1,) * 4, "SAME", (1, 1, 2, 3)),
}
# lax has no reverse mode for this window.
CROPPED = window(lax.max, -jnp.inf, (1, 1, 2, 2), None, [(0, 0), (0, 0), (-1, 1), (0, -2)])
DILATED = window(lax.max, -jnp.inf, (1, 1, 2, 2), (1, 1, 2, 1), "SAME", None, (1, 1, 3, 2))


def loss(f):
    return lambda x: jnp.sum(jnp.sin(f(x)))


def along(f):
    return lambda x: jax.jvp(f, (x,), (jnp.cos(x),))


WAYS = {
    "value": lambda f: f,
    "grad": lambda f: jax.grad(loss(f)),
    "jvp": along,
    "forward over reverse": lambda f: along(jax.grad(loss(f))),
    "reverse over reverse": lambda f: jax.grad(lambda x: jnp.sum(jax.grad(loss(f))(x) ** 2)),
    "vmap": lambda f: lambda x: jax.vmap(f, 2, 1)(jnp.stack([x, 2 - x], 2)),
    "vmap of grad": lambda f: lambda x: jax.vmap(jax.grad(loss(f)))(jnp.stack([x, 2 - x])),
    "scan": lambda f: lambda x: lax.scan(lambda c, x: (c + jnp.sum(f(x)), f(x)), 0.0, jnp.stack([x, 2 - x])),
}


def assert_same(ours, theirs, tolerance=1e-12):
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def left_to_lax(f, *args):
    return set(primitives(jax.make_jaxpr(f)(*args).jaxpr)) & {p.name for p in lax_pooling.WINDOW_PRIMITIVES}


def check(f, *args, tolerance=1e-12):
    theirs = jax.jit(f)(*args)
    replaced = jc.replace_convolutions(f)
    assert not left_to_lax(replaced, *args)
    assert_same(jax.jit(replaced)(*args), theirs, tolerance)
    jc.install()
    assert_same(jax.jit(f)(*args), theirs, tolerance)
    report = jc.installed_report()
    assert report.rows
    assert not report.on_lax


ALL_WAYS = ("max NCHW", "min", "sum", "sum base dilation")
PAIRS = [
    (name, way) for name in WINDOWS for way in WAYS if name in ALL_WAYS or way in ("value", "grad", "jvp")
]


@pytest.mark.parametrize(("name", "way"), PAIRS)
def test_it_is_lax(name, way):
    check(WAYS[way](WINDOWS[name]), X)


@pytest.mark.parametrize("way", ["value", "jvp", "vmap"])
@pytest.mark.parametrize("f", [CROPPED, DILATED], ids=["cropped", "dilated"])
def test_what_has_no_reverse_mode_on_lax(f, way):
    check(WAYS[way](f), X)


@pytest.mark.parametrize("way", ["grad", "jvp", "reverse over reverse"])
def test_derivatives_of_what_is_replaced(way):
    """The substitutes' own derivatives are right, also for dilated windows in reverse mode."""
    for f in WINDOWS.values():
        assert_same(WAYS[way](jc.replace_convolutions(f))(X), WAYS[way](f)(X))
    dx = jax.grad(loss(jc.replace_convolutions(DILATED)))(X)
    tangent = along(loss(DILATED))(X)[1]
    np.testing.assert_allclose(jnp.sum(dx * jnp.cos(X)), tangent, rtol=1e-12)


@pytest.mark.parametrize("name", ["max NCHW", "max NHWC", "max 3d", "min"])
def test_ties_go_to_the_first(backend, name):
    check(WAYS["grad"](WINDOWS[name]), TIED)


@pytest.mark.parametrize(
    "name", ["max NCHW", "min", "sum", "sum steps of 1", "sum dilated", "sum base dilation"]
)
def test_every_backend(backend, name):
    for way in ("value", "grad"):
        jc.uninstall()
        check(WAYS[way](WINDOWS[name]), X.astype(jnp.float32), tolerance=1e-5)


def test_16_bits_are_summed_wide():
    x = jnp.full((1, 64, 64, 2), 1.0, jnp.bfloat16).at[:, 0].set(256)
    f = window(lax.add, 0.0, (1, 64, 32, 1), (1, 64, 32, 1))
    jc.install()
    np.testing.assert_array_equal(jax.jit(f)(x), jnp.full((1, 1, 2, 2), 32 * 256 + 63 * 32, jnp.bfloat16))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "complex64"])
def test_dtypes(dtype):
    x = X.astype(dtype)
    names = ["sum", "sum base dilation"] if dtype == "complex64" else ["max NCHW", "min"]
    for name in names:
        f = WINDOWS[name]
        jc.uninstall()
        check(f, x, tolerance=1e-6)
        jc.uninstall()
        check(lambda x: jax.vjp(f, x)[1](jnp.ones_like(f(x))), x, tolerance=1e-6)  # noqa: B023  # called in this round


# ------------------------------------------------------------------------------- positions of NaN and -inf

NAN, LEAST = np.nan, -np.inf
RARE = [
    [a, b, c, d]
    for a in (NAN, LEAST, 1.0)
    for b in (NAN, LEAST, 1.0)
    for c in (NAN, LEAST, 2.0)
    for d in (NAN, LEAST, 0.0)
]


@pytest.mark.parametrize("op", ["max", "min"])
@pytest.mark.parametrize("padding", [(0, 0), (1, 0), (0, 1), (2, 2)])
def test_windows_with_nan_and_infinity(backend, op, padding):
    """Windows in one dimension, where the order of lax's tangents is also fixed."""
    x = jnp.asarray(np.array(RARE) * (1 if op == "max" else -1))
    init, reduction = (-jnp.inf, lax.max) if op == "max" else (jnp.inf, lax.min)
    f = window(reduction, init, (1, 3), (1, 1), ((0, 0), padding))
    weights = 1 + jnp.arange(f(x).size, dtype=x.dtype).reshape(f(x).shape)
    check(lambda x: jax.vjp(f, x)[1](weights)[0], x)
    jc.uninstall()
    check(lambda x: jax.jvp(f, (x,), (1 + jnp.arange(x.size, dtype=x.dtype).reshape(x.shape),)), x)


def test_where_max_pool_s_gradient_goes_in_a_window_with_nan():
    """max_pool's docstring describes its own rule and lax's correctly."""

    def by_lax(x, padding):
        return lax.reduce_window(x, -jnp.inf, lax.max, (1, 3, 1), (1, 3, 1), ((0, 0), padding, (0, 0)))

    for row, padding, ours, theirs in [
        ([NAN, 1, 2], (0, 0), 0, 2),
        ([NAN, 2, 1], (0, 0), 0, 1),
        ([2, NAN, 1], (0, 0), 1, 2),
        ([2, 1, NAN], (0, 0), 2, 2),
        ([NAN, 1, NAN], (0, 0), 0, 2),
        ([1, NAN], (0, 1), 1, None),
        ([LEAST, LEAST], (1, 0), 0, None),
    ]:
        x = jnp.array(row, jnp.float64).reshape(1, -1, 1)
        for f, at in (
            (lambda x: jc.max_pool(x, (3,), (3,), (padding,)), ours),  # noqa: B023  # called in this round
            (lambda x: by_lax(x, padding), theirs),  # noqa: B023  # called in this round
        ):
            dx = jax.grad(lambda x: jnp.sum(f(x)))(x)  # noqa: B023  # called in this round
            expected = np.zeros(len(row))
            if at is not None:
                expected[at] = 1
            np.testing.assert_array_equal(dx.ravel(), expected)
    said = " ".join(inspect.getdoc(jc.max_pool).split())
    assert "if nothing comes behind the last NaN, it goes to that NaN" in said


# ----------------------------------------------------------------------------------------- general reductions


@pytest.mark.parametrize("start", [-np.inf, 0.25, np.nan])
@pytest.mark.parametrize("op", [lax.max, lax.min, jnp.maximum, lambda a, b: lax.max(b, a)])
def test_a_starting_value_that_is_an_operand(op, start):
    check(
        lambda x, init: lax.reduce_window(x, init, op, (1, 1, 2, 2), (1, 1, 2, 2), "SAME"),
        X,
        jnp.asarray(start),
    )


def test_a_starting_value_that_is_added():
    check(
        lambda x, init: lax.reduce_window(x, init, lax.add, (1, 1, 2, 2), (1, 1, 2, 2), "VALID"),
        X,
        X[0, 0, 0, 0],
    )


LEFT = {
    "int64": lambda: (window(lax.add, 0, (2,)), jnp.arange(9)),
    "4 spatial dimensions": lambda: (window(lax.max, -jnp.inf, (2, 2, 2, 2)), X),
    "base dilation": lambda: (window(lax.max, -jnp.inf, (1, 1, 2, 2), (1,) * 4, "SAME", (1, 1, 2, 2)), X),
    "base dilation and strides": lambda: (
        window(lax.add, 0.0, (1, 1, 2, 2), (1, 1, 2, 2), "SAME", (1, 1, 2, 2)),
        X,
    ),
    "a custom reduction function": lambda: (window(lax.mul, 1.0, (1, 1, 2, 2)), X),
    "a window of one position": lambda: (window(lax.max, -jnp.inf, (1, 1, 1, 1)), X),
    "a cumulative reduction": lambda: (window(lax.add, 0.0, (64,), (1,), ((63, 0),)), jnp.arange(64.0)),
    "a sum with an initial value and padding": lambda: (
        lambda x: lax.reduce_window(x, x[0, 0, 0, 0], lax.add, (1, 1, 2, 2), (1, 1, 1, 1), "SAME"),
        X,
    ),
}


@pytest.mark.parametrize("why", LEFT)
def test_what_stays_on_lax_says_why(why):
    f, x = LEFT[why]()
    theirs = jax.jit(f)(x)
    jc.install()
    assert_same(jax.jit(f)(x), theirs)
    assert [row.why for row in jc.installed_report().rows] == [why]


# ----------------------------------------------------------------------------------------------- the report


def test_the_report_tells_of_convolutions_and_windows(capsys):
    assert not jc.installed_report().rows
    jc.install(verbose=True)

    def net(x, w):
        y = lax.conv(x, w, (1, 1), "SAME")
        return jnp.sum(WINDOWS["max NCHW"](y)), lax.conv(
            jnp.ones((1, 1, 4), int), jnp.ones((1, 1, 2), int), (1,), "VALID"
        )

    step = jax.jit(jax.grad(net, (0, 1), has_aux=True))
    x, w = jnp.ones((2, 3, 7, 8), jnp.float32), jnp.ones((4, 3, 3, 3), jnp.float32)
    step(x, w)
    step(x, w)
    report = jc.installed_report()
    by = {(row.operation, row.kernel, row.why): row for row in report.rows}
    assert all(row.times == 1 and row.platform == "cpu" for row in report.rows)
    assert by["conv_general_dilated", None, "int64"].operands == ("int64[1,1,4]", "int64[1,1,2]")
    assert by["select_and_scatter_add", "scatter_max", None].result == "float32[2,4,7,8]"
    assert {row.kernel for row in report.rows} >= {"fprop", "dgrad", "wgrad"}
    assert [row.why for row in report.on_lax] == ["int64"]
    assert f"{len(report.rows) - 1} of {len(report.rows)} convolutions and windows" in str(report)
    assert "jax.lax: int64" in str(report)
    assert "jax.lax: int64" in report._repr_html_()
    printed = capsys.readouterr().out
    assert printed.count("jax_convgrad: ") == len(report.rows)
    assert (
        "select_and_scatter_add float32[2,4,4,4], float32[2,4,7,8] -> float32[2,4,7,8], cpu: on scatter_max"
        in printed
    )
    jc.uninstall()
    assert not jc.installed_report().rows


def test_the_report_without_rows_says_why():
    def said():
        report = jc.installed_report()
        assert report._repr_html_() == f"<p>{report}</p>"
        return str(report)

    assert said() == "install() is not in force"
    jc.install()
    assert said() == "nothing has been lowered since install()"
    jax.jit(lambda x: lax.conv(x, x, (1, 1), "SAME"))(jnp.ones((1, 1, 4, 4)))
    assert str(jc.installed_report()).endswith("1 of 1 convolutions and windows on these kernels")
    jc.uninstall()
    assert said() == "install() is not in force"


def test_an_export_carries_lax_s_own_windows():
    jc.install()
    f = jax.jit(jax.grad(loss(WINDOWS["max NCHW"])))
    exported = jax.export.export(f)(X)
    assert "jax_convgrad" not in exported.mlir_module()
    assert {row.why for row in jc.installed_report().rows} == {"exported"}
    assert_same(exported.call(X), f(X))


SEVERAL = ("cpu", "cuda", "tpu")
ON_SEVERAL = {
    **{f"{name}, {way}": WAYS[way](WINDOWS[name]) for name in ("max NCHW", "sum") for way in ("grad", "jvp")},
    "min": WINDOWS["min"],
    "in a loop": WAYS["scan"](WINDOWS["max NHWC"]),
    "an initial value": lambda x: lax.reduce_window(x, x[0, 0, 0, 0], lax.max, (1, 2, 2, 1), (1, 2, 2, 1)),
    "a custom reduction function": window(lax.mul, 1.0, (1, 1, 2, 2)),
}


@pytest.mark.parametrize("name", ON_SEVERAL)
def test_a_program_for_several_platforms(name):
    f = jax.jit(ON_SEVERAL[name])
    theirs = f(X)
    jc.install()
    of_lax = jax.export.export(f, platforms=SEVERAL)(X)
    assert "jax_convgrad" not in of_lax.mlir_module()
    assert_same(of_lax.call(X), theirs)
    rows, columns = jax.export.symbolic_shape("b, c")
    shape = jax.ShapeDtypeStruct((rows, columns, *X.shape[2:]), X.dtype)
    assert_same(jax.export.export(f, platforms=SEVERAL)(shape).call(X), theirs)
    jc.install(export=True)
    on_kernels = jax.export.export(f, platforms=SEVERAL, disabled_checks=jc.export_checks())(X)
    assert ("jax_convgrad" in on_kernels.mlir_module()) == (name != "a custom reduction function")
    assert_same(on_kernels.call(X), theirs)


def test_uninstall_leaves_no_trace():
    def text():
        return jax.jit(jax.grad(loss(WINDOWS["max NCHW"]))).lower(X).as_text()

    before = text()
    jc.install()
    assert "jax_convgrad" in text()
    jc.uninstall()
    assert text() == before


def test_explicit_axes_and_shard_map():
    mesh = jax.make_mesh((2,), ("data",), (jax.sharding.AxisType.Explicit,))
    f = WAYS["grad"](WINDOWS["max NCHW"])
    theirs = jax.jit(f)(X)
    jc.install()
    with jax.set_mesh(mesh):
        split = jax.device_put(X, jax.sharding.NamedSharding(mesh, jax.P("data")))
        ours = jax.jit(f)(split)
        assert ours.sharding.spec[0] == "data"
    assert_same(np.asarray(ours), np.asarray(theirs))
    manual = jax.make_mesh((2,), ("data",), (jax.sharding.AxisType.Auto,))
    mapped = jax.shard_map(f, mesh=manual, in_specs=jax.P("data"), out_specs=jax.P("data"))
    assert_same(jax.jit(mapped)(X), theirs)
