"""Programs exported once for arrays of any size: symbols for batch, space and channels, also in gradients.

Each program is exported, reloaded, called at several sizes, and compared with `jax.lax`.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export, lax

import jax_convgrad as jc
from jax_convgrad.primitives import targets

NHWC = ("NHWC", "HWIO", "NHWC")
TARGETS = [
    export.DisabledSafetyCheck.custom_call("jax_convgrad_" + name)
    for name in targets.backends["cpu"].module.registrations()
]
SIZES = {"b": (1, 3, 2), "h": (5, 8, 6), "w": (7, 9, 6), "n": (2, 4, 1), "c": (2, 5, 3)}
"""The sizes of each symbol in three calls."""
RANDOM = np.random.default_rng(0)
W = RANDOM.standard_normal((3, 2, 2, 4))
B = RANDOM.standard_normal(4)


def loss(f):
    """A scalar that is not linear in f's results."""

    def scalar(*arrays):
        leaves = jax.tree.leaves(f(*arrays))
        return sum(jnp.sum(jnp.abs(y) ** 2 if jnp.iscomplexobj(y) else jnp.sin(y)) for y in leaves)

    return scalar


def value_and_gradients(f, order=1):
    """The results of f, and its gradients of the first order or of the first two orders."""

    def g(*arrays):
        every = tuple(range(len(arrays)))
        first = jax.grad(loss(f), every)
        second = jax.grad(loss(first), every)(*arrays) if order == 2 else ()
        return f(*arrays), first(*arrays), second

    return g


def types(shapes, dtype=np.float64, constraints=()):
    """The types of arrays whose dimensions are numbers or symbolic expressions in one scope."""
    text = [str(size) for shape in shapes for size in shape]
    sizes = iter(export.symbolic_shape(",".join(text), constraints=constraints))
    return [jax.ShapeDtypeStruct(tuple(next(sizes) for _ in shape), dtype) for shape in shapes]


def arrays(shapes, call, dtype=np.float64):
    """The arrays of such types in one of the calls."""
    scope = {name: sizes[call] for name, sizes in SIZES.items()}
    made = []
    for shape in shapes:
        known = tuple(eval(str(size), {}, scope) for size in shape)
        array = np.random.default_rng(call).standard_normal(known)
        made.append((array + 1j * array[::-1] if np.issubdtype(dtype, complex) else array).astype(dtype))
    return made


def reloaded(f, given, vjp_order=0):
    exported = export.export(jax.jit(f), disabled_checks=TARGETS)(*given)
    return export.deserialize(bytearray(exported.serialize(vjp_order=vjp_order))), exported.mlir_module()


def check(ours, theirs, shapes, dtype=np.float64, calls=(0, 1, 2), constraints=()):
    """Asserts that the reloaded program has the results of ``theirs``; returns its text."""
    again, text = reloaded(ours, types(shapes, dtype, constraints))
    for call in calls:
        given = arrays(shapes, call, dtype)
        results, expected = again.call(*given), theirs(*given)
        for a, b in zip(jax.tree.leaves(results), jax.tree.leaves(expected), strict=True):
            assert a.shape == b.shape
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)
    return text


def conv_of(library, **arguments):
    def layer(x, w):
        return library.conv_general_dilated(
            x, w, **{"window_strides": (1, 1), "padding": "SAME", "dimension_numbers": NHWC} | arguments
        )

    return layer


SPACE = [("b", "h", "w", 2), W.shape]
LAYERS = {
    "same": {},
    "same_strided": {"window_strides": (2, 3)},
    "same_lower_dilated": {"padding": "SAME_LOWER", "window_strides": (2, 1), "rhs_dilation": (1, 2)},
    "valid_strided": {"padding": "VALID", "window_strides": (2, 3), "rhs_dilation": (2, 1)},
    "cropped": {"padding": ((-1, 0), (0, 1)), "window_strides": (1, 2)},
    "input_dilated": {"padding": ((1, 1), (2, 0)), "window_strides": (3, 2), "lhs_dilation": (1, 2)},
}


@pytest.mark.parametrize("name", LAYERS)
def test_space_is_open(name):
    """Spatial sizes may be symbols, also in gradients of strided layers, whose export fails in lax."""
    order = 2 if name in ("same_strided", "input_dilated") else 1
    ours, theirs = (value_and_gradients(conv_of(of, **LAYERS[name]), order) for of in (jc, lax))
    check(ours, theirs, SPACE, calls=(0, 1))


def test_no_window_may_fit():
    """A symbol may stand for a size for which y is empty."""
    shapes = [("n", "n", "n", 2), W.shape]
    ours, theirs = (conv_of(of, padding="VALID", window_strides=(2, 3)) for of in (jc, lax))
    check(value_and_gradients(ours), value_and_gradients(theirs), shapes)


@pytest.mark.parametrize("name", LAYERS)
def test_an_open_batch_runs_on_kernels(name):
    ours, theirs = (conv_of(of, **LAYERS[name]) for of in (jc, lax))
    shapes = [("b", 8, 9, 2), W.shape]
    text = check(ours, theirs, shapes)
    assert "@jax_convgrad_fprop" in text
    assert "stablehlo.convolution" not in text
    text = check(value_and_gradients(ours), value_and_gradients(theirs), shapes)
    assert "@jax_convgrad_dgrad" in text
    assert "@jax_convgrad_wgrad" not in text


@pytest.mark.parametrize(
    "shapes", [[("b", "h", "w", 2), W.shape, B.shape], [("b", 6, 7, 2), W.shape, B.shape]]
)
@pytest.mark.parametrize("activation", [None, "relu"])
def test_a_whole_layer(shapes, activation):
    def ours(x, w, b):
        return jc.conv(x, w, b, stride=2, padding="SAME", activation=activation)

    def theirs(x, w, b):
        y = conv_of(lax, window_strides=(2, 2))(x, w) + b
        return jax.nn.relu(y) if activation else y

    check(value_and_gradients(ours), value_and_gradients(theirs), shapes, calls=(0, 1))


def test_the_exported_vjp():
    f = partial(jc.conv, stride=2, padding="SAME")
    again, _ = reloaded(f, types(SPACE), vjp_order=1)
    theirs = conv_of(lax, window_strides=(2, 2))
    x, w = arrays(SPACE, 1)
    for a, b in zip(
        jax.grad(loss(again.call), (0, 1))(x, w), jax.grad(loss(theirs), (0, 1))(x, w), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("transpose_kernel", [False, True])
@pytest.mark.parametrize("padding", ["SAME", "VALID", ((1, 0), (2, 1))], ids=str)
@pytest.mark.parametrize("first", [("b", "h", "w", 2), ("b", 6, 7, 2)], ids=["space", "batch"])
def test_transposed_convolution(transpose_kernel, padding, first):
    def layer(library, x, w):
        return library.conv_transpose(
            x, w, (2, 3), padding, dimension_numbers=NHWC, transpose_kernel=transpose_kernel
        )

    shapes = [first, (3, 2, 4, 2) if transpose_kernel else W.shape]
    ours, theirs = (value_and_gradients(partial(layer, of)) for of in (jc, lax))
    text = check(ours, theirs, shapes, calls=(0, 1))
    assert ("@jax_convgrad_" in text) == (first[1] == 6)


def test_groups_and_batch_groups():
    grouped = {"window_strides": (2, 1), "feature_group_count": 2}
    shapes = [("b", "h", "w", 2), (3, 2, 1, 4)]
    check(*(value_and_gradients(conv_of(of, **grouped)) for of in (jc, lax)), shapes, calls=(0, 1))
    grouped = {"window_strides": (2, 1), "batch_group_count": 2}
    shapes = [("2*b", "h", 7, 2), W.shape]
    check(*(value_and_gradients(conv_of(of, **grouped)) for of in (jc, lax)), shapes, calls=(0, 1))


def test_open_channels():
    shapes = [("b", 6, "w", "c"), (3, 2, "c", "n")]
    ours, theirs = (conv_of(of, window_strides=(2, 1)) for of in (jc, lax))
    check(value_and_gradients(ours), value_and_gradients(theirs), shapes)


@pytest.mark.parametrize("rank", [1, 3, 4])
def test_other_ranks(rank):
    specs = (0, rank + 1, *range(1, rank + 1))
    numbers = lax.ConvDimensionNumbers(specs, (rank + 1, rank, *range(rank)), specs)
    arguments = {"window_strides": (2,) * rank, "dimension_numbers": numbers}
    shapes = [("b", *("h", "w", "n", "c")[:rank], 2), (2,) * rank + (2, 3)]
    ours, theirs = (value_and_gradients(conv_of(of, **arguments)) for of in (jc, lax))
    check(ours, theirs, shapes, calls=(0,))


def test_complex_numbers():
    shapes = [("b", 6, 7, 2), W.shape]
    check(conv_of(jc), conv_of(lax), shapes, complex)


def test_the_gradient_functions():
    strided = conv_of(lax, window_strides=(2, 1))
    shapes = [("b", "h", "w", 2), W.shape, ("b", "floordiv(h + 1, 2)", "w", 4)]
    x, w, dy = types([("b", "h", "w", 2), W.shape, ("b", "h", "w", 4)])
    dy = jax.eval_shape(strided, x, w)

    def ours(x, w, dy):
        arguments = {"stride": (2, 1), "padding": "SAME"}
        return (
            jc.conv_input_grad(dy, w, x.shape, **arguments),
            jc.conv_filter_grad(x, dy, w.shape, **arguments),
            jc.conv_bias_grad(dy),
        )

    again, _ = reloaded(ours, (x, w, dy))
    for call in (0, 1):
        x, w = arrays(shapes[:2], call)
        y, pull = jax.vjp(strided, x, w)
        dy = np.cos(y)
        results = again.call(x, w, dy)
        for a, b in zip(results, (*pull(dy), dy.sum((0, 1, 2))), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


# --------------------------------------------------------------------------------------------------- pooling


def lax_pool(op, window, strides, padding, x):
    def reduced(x, start, op):
        pads = padding if isinstance(padding, str) else ((0, 0), *padding, (0, 0))
        return lax.reduce_window(x, start, op, (1, *window, 1), (1, *strides, 1), pads)

    if op == "max":
        return reduced(x, -jnp.inf, lax.max)
    count = reduced(jnp.ones_like(x), 0.0, lax.add) if op == "avg_inside" else np.prod(window)
    return reduced(x, 0.0, lax.add) / count


def our_pool(op, window, strides, padding, x):
    if op == "max":
        return jc.max_pool(x, window, strides, padding)
    return jc.avg_pool(x, window, strides, padding, count_include_pad=op != "avg_inside")


@pytest.mark.parametrize("op", ["max", "avg", "avg_inside"])
@pytest.mark.parametrize(
    ("window", "strides", "padding"),
    [
        ((2, 2), (2, 2), "VALID"),
        ((3, 2), (2, 1), "SAME"),
        ((3, 3), (1, 2), "SAME_LOWER"),
        ((2, 3), (2, 1), ((1, 0), (0, 1))),
    ],
    ids=str,
)
def test_pooling(op, window, strides, padding):
    ours, theirs = (partial(f, op, window, strides, padding) for f in (our_pool, lax_pool))
    check(value_and_gradients(ours, 2), value_and_gradients(theirs, 2), [("b", "h", "w", 3)], calls=(0, 1))
    text = check(value_and_gradients(ours), value_and_gradients(theirs), [("b", 7, 8, "c")])
    assert text.count("@jax_convgrad_") >= 2
    assert "reduce_window" not in text


def test_sums_of_16_bits_run_wide():
    """Sums run in float32, as in the kernels; a sum of 4096 threes in bfloat16 is 4096."""
    x = jnp.full((1, 64, 64, 1), 3, jnp.bfloat16)
    given = types([("b", "h", "w", 1)], jnp.bfloat16)
    mean, _ = reloaded(lambda x: jc.avg_pool(x, (64, 64)), given)
    assert float(mean.call(x).reshape(())) == 3

    def chosen(x):  # each of 1024 windows has its maximum at the same position
        return jnp.sum(jc.max_pool(x, (32, 32)) * jnp.bfloat16(3))

    gradient, _ = reloaded(jax.grad(chosen), given)
    dx = gradient.call(x.at[0, 31, 31, 0].set(4))
    assert float(dx[0, 31, 31, 0]) == 3 * 1024


def test_pooling_twice_and_more_batch_dimensions():
    """The size of the first pooling's result is an expression, whose square JAX cannot prove to be a size."""

    def model(pool, x):
        return pool("avg", (2, 2), (2, 2), "VALID", pool("max", (3, 3), (2, 2), "VALID", x))

    x = ("n", "b", "h + 8", "w", 2)
    theirs = jax.vmap(partial(model, lax_pool))
    check(value_and_gradients(partial(model, our_pool)), value_and_gradients(theirs), [x])


@pytest.mark.parametrize("first", [("b", "h", "w", 3), ("b", 6, 7, "c")], ids=["space", "batch"])
@pytest.mark.parametrize("with_window", [True, False], ids=["window", "anywhere"])
def test_unpooling(first, with_window):
    window = ((3, 2), (2, 1), "SAME")

    def ours(x):
        y, positions = jc.max_pool(x, *window, return_positions=True)
        return jc.max_unpool(jnp.sin(y), positions, x.shape[1:3], *(window if with_window else ()))

    def theirs(x):
        y, pull = jax.vjp(partial(lax_pool, "max", *window), x)
        return pull(jnp.sin(y))[0]

    check(value_and_gradients(ours), value_and_gradients(theirs), [first], calls=(1,))


@pytest.mark.parametrize("with_kernels", [False, True])
@pytest.mark.parametrize("first", [("b", "h", "w", 3), ("b", 7, 8, "c")], ids=["space", "batch"])
def test_lax_windows_under_install(first, with_kernels):
    """The gradient of a sum pads an array that has a symbolic dimension with zeros."""

    def sums(x):
        return lax_pool("avg_inside", (3, 2), (2, 1), "SAME", lax_pool("max", (2, 2), (1, 1), "SAME", x))

    f = value_and_gradients(sums)
    expected = jax.jit(f)(*arrays([first], 1))
    try:
        jc.install(export=with_kernels)
        check(f, lambda x: expected, [first], calls=(1,))
    finally:
        jc.uninstall()


# ------------------------------------------------------------------------------------------------------ vmap


@pytest.mark.parametrize(
    ("mapped", "shapes"),
    [
        ((0, None), [("n", "b", 6, 7, 2), W.shape]),
        ((None, 0), [(2, 6, 7, 2), ("n", *W.shape)]),
        ((0, 0), [("n", 2, 6, 7, 2), ("n", *W.shape)]),
        ((0, 0), [(3, "b", 6, 7, 2), (3, *W.shape)]),
    ],
    ids=str,
)
def test_vmap(mapped, shapes):
    ours = jax.vmap(conv_of(jc, window_strides=(2, 2)), mapped)

    def theirs(x, w):
        count = (x if mapped[0] == 0 else w).shape[0]
        layer = conv_of(lax, window_strides=(2, 2))
        each = [layer(x[n] if mapped[0] == 0 else x, w[n] if mapped[1] == 0 else w) for n in range(count)]
        return jnp.stack(each)

    check(value_and_gradients(ours), value_and_gradients(theirs), shapes, calls=(0, 2))


def test_per_example_gradients():
    def of(layer):
        each = jax.grad(lambda w, b, x: jnp.sum(jnp.sin(layer(x[None], w) + b)), (0, 1))
        return jax.vmap(each, (None, None, 0))

    shapes = [W.shape, B.shape, ("b", 6, 7, 2)]
    check(of(conv_of(jc)), of(conv_of(lax)), shapes)

    def with_bias(w, b, x):
        return jnp.sum(jnp.sin(jc.conv(x[None], w, b, padding="SAME", activation="relu")))

    def of_lax(w, b, x):
        return jnp.sum(jnp.sin(jax.nn.relu(conv_of(lax)(x[None], w) + b)))

    each = (jax.vmap(jax.grad(f, (0, 1)), (None, None, 0)) for f in (with_bias, of_lax))
    check(*each, shapes)


def test_many_cotangents_of_a_maximum():
    def of(pool):
        def pulled(x, ts):
            _, pull = jax.vjp(partial(pool, "max", (2, 2), (2, 2), "VALID"), x)
            return jax.vmap(lambda t: pull(t)[0])(ts)

        return pulled

    check(of(our_pool), of(lax_pool), [("b", 6, 7, 2), ("n", "b", 3, 3, 2)])


# ----------------------------------------------------------------------------------------- scopes and errors


def test_the_same_symbols_again():
    """Each program's symbols have their own scope, and nothing is reused from the first program."""
    for constraint in ((), ("h >= 4",)):
        again, _ = reloaded(conv_of(jc, window_strides=(2, 1)), types(SPACE, constraints=constraint))
        x, w = arrays(SPACE, 0)
        expected = conv_of(lax, window_strides=(2, 1))(x, w)
        np.testing.assert_allclose(again.call(x, w), expected, rtol=1e-9, atol=1e-9)


def exports(f, *shapes, **scope):
    return export.export(jax.jit(f), disabled_checks=TARGETS)(*types(shapes, **scope))


def test_what_symbols_leave_open_is_said_of_the_argument():
    crops = ((-3, 0), (0, 0))
    with pytest.raises(ValueError, match=r'padding must not crop.*the constraint "h >= 3"'):
        exports(partial(jc.conv, padding=crops), *SPACE)
    exports(partial(jc.conv, padding=crops), *SPACE, constraints=("h >= 3",))
    with pytest.raises(ValueError, match="padding must not crop"):
        exports(partial(jc.max_pool, window_shape=(2, 2), padding=crops), SPACE[0])
    with pytest.raises(ValueError, match=r"^w must take c input channels"):
        exports(jc.conv, ("b", 6, 7, "c"), W.shape)
    with pytest.raises(ValueError, match=r"^groups must divide the channels of x"):
        exports(partial(jc.conv, groups=2), ("b", 6, 7, "c"), (3, 2, "c", 4))
    with pytest.raises(ValueError, match="batch_group_count must divide the batch of lhs"):
        exports(conv_of(jc, batch_group_count=2), ("b", 6, 7, 2), W.shape)
    with pytest.raises(ValueError, match=r"^b must be of shape"):
        exports(jc.conv, ("b", 6, 7, 2), W.shape, ("n",))
    with pytest.raises(TypeError, match=r"^stride must"):
        exports(lambda x, w: jc.conv(x, w, stride=x.shape[1]), *SPACE)


def test_pads_may_be_symbols():
    def f(x, w):
        return jc.conv(x, w, padding=((x.shape[1], 0), (0, 1)), stride=(2, 1))

    def theirs(x, w):
        x = jnp.pad(x, ((0, 0), (x.shape[1], 0), (0, 1), (0, 0)))
        return conv_of(lax, padding="VALID", window_strides=(2, 1))(x, w)

    check(value_and_gradients(f), value_and_gradients(theirs), SPACE, calls=(0, 1))
