"""Random calls over the whole signature of conv_general_dilated: the same results and errors as lax.

Each call has its own seed instead of a search: a failing seed is the failing call, and the suite's time stays
the same.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from lax_answers import lax_conv_widened

import jax_convgrad as jc

# The largest difference between two correct results, relative to the largest number.
CLOSE = {"float64": 1e-12, "float32": 1e-5, "bfloat16": 2e-2, "float16": 4e-3, "complex64": 1e-5}
CLOSE["complex128"] = CLOSE["float64"]
WIDER = {
    "float32": ["float64"],
    "bfloat16": ["float32", "float64", "float16"],
    "float16": ["float32"],
    "complex64": ["complex128"],
}


def permuted(random, letters):
    return "".join(random.permutation(list(letters)))


def sequence(random, values):
    """The values as one of the kinds of sequence that lax accepts."""
    return [tuple, list, np.array][random.integers(3)](values)


def draw(random):
    """Shapes of x and w, a dtype, and the other arguments; the call is nearly always valid."""
    rank = int(random.choice([0, 1, 1, 2, 2, 2, 3]))
    spatial = "HWD"[:rank]
    groups, batch_groups = [(1, 1), (1, 1), (2, 1), (3, 1), (1, 2)][random.integers(5)]
    group_in, group_out = (int(n) for n in random.integers(1, 4, 2))
    sizes = {
        "N": int(random.integers(1, 3)) * batch_groups,
        "C": groups * group_in,
        "I": group_in,
        "O": groups * batch_groups * group_out,
    }
    inputs = dict(zip(spatial, map(int, random.integers(1, 7, rank)), strict=True))
    taps = dict(zip(spatial, map(int, random.integers(1, 4, rank)), strict=True))

    form = random.integers(3)
    if form == 0:
        specs = ("NC" + spatial, "OI" + spatial, "NC" + spatial)
        numbers = None
    else:
        specs = tuple(permuted(random, letters + spatial) for letters in ("NC", "OI", "NC"))
        numbers = (
            specs if form == 1 else lax.conv_dimension_numbers((1,) * (rank + 2), (1,) * (rank + 2), specs)
        )
    x = tuple((sizes | inputs)[letter] for letter in specs[0])
    w = tuple((sizes | taps)[letter] for letter in specs[1])

    dilated = random.random() < 0.4
    arguments = {
        "window_strides": sequence(random, [int(s) for s in random.integers(1, 4, rank)]),
        "padding": sequence(random, [[int(p) for p in random.integers(-1, 4, 2)] for _ in range(rank)]),
        "lhs_dilation": sequence(random, [int(d) for d in random.integers(1, 4, rank)]) if dilated else None,
        "rhs_dilation": sequence(random, [int(d) for d in random.integers(1, 3, rank)]),
        "dimension_numbers": numbers,
        "feature_group_count": groups,
        "batch_group_count": batch_groups,
        "precision": [None, "highest", lax.Precision.HIGHEST, ("highest", "float32")][random.integers(4)],
    }
    if not dilated and random.random() < 0.6:
        arguments["padding"] = str(random.choice(["SAME", "VALID", "SAME_LOWER", "same"]))
    dtype = str(random.choice(["float64", "float64", "float32", "bfloat16", "complex64", "complex128"]))
    if dtype in WIDER and random.random() < 0.4:
        arguments["preferred_element_type"] = str(random.choice(WIDER[dtype]))
    return x, w, dtype, arguments


def numbers(random, shape, dtype):
    array = random.standard_normal(shape)
    if "complex" in dtype:
        array = array + 1j * random.standard_normal(shape)
    return jnp.asarray(array).astype(dtype)


def everything(conv, arguments, axes):
    """The result y, both gradients, the jvp, and the first two under vmap."""

    def f(x, w):
        return conv(x, w, **arguments)

    def g(x, w, tx, tw, dy, xs, ws):
        y, vjp = jax.vjp(f, x, w)
        vs = [xs if axes[0] is not None else x, ws if axes[1] is not None else w]

        def value_and_gradients(x, w):
            y, vjp = jax.vjp(f, x, w)
            return y, vjp(dy)

        return y, vjp(dy), jax.jvp(f, (x, w), (tx, tw))[1], jax.vmap(value_and_gradients, axes)(*vs)

    return jax.jit(g)


def assert_same(ours, theirs, tolerance):
    ours, theirs = jax.tree.leaves(ours), jax.tree.leaves(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert (a.shape, a.dtype, a.weak_type) == (b.shape, b.dtype, b.weak_type)
        a, b = (np.asarray(c, np.complex128) for c in (a, b))
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * np.abs(b).max(initial=0) + 1e-30)


def outcome(conv, x, w, arguments, errors=(TypeError, ValueError)):
    """The shape and dtype of a result, or None if tracing or lowering raises one of the errors."""
    try:
        lowered = jax.jit(lambda x, w: conv(x, w, **arguments)).lower(x, w)
    except errors:
        return None
    return lowered.out_info.shape, lowered.out_info.dtype


@pytest.mark.parametrize("seed", range(40))
def test_values_and_derivatives(seed):
    random = np.random.default_rng(seed)
    x_shape, w_shape, dtype, arguments = draw(random)
    described = jax.ShapeDtypeStruct(x_shape, dtype), jax.ShapeDtypeStruct(w_shape, dtype)
    result = outcome(lax.conv_general_dilated, *described, arguments)
    assert outcome(jc.conv_general_dilated, *described, arguments) == result
    if result is None:
        return
    axes = [None, None]
    over = [[0], [1], [0, 1]][random.integers(3)]
    stacked = [list(x_shape), list(w_shape)]
    for operand in over:
        axes[operand] = int(random.integers(-len(x_shape) - 1, len(x_shape) + 1))
        stacked[operand].insert(axes[operand] % (len(x_shape) + 1), 2)
    shapes = (x_shape, w_shape, x_shape, w_shape, result[0], *stacked)
    dtypes = [dtype] * 4 + [str(result[1])] + [dtype] * 2
    arrays = [numbers(random, shape, d) for shape, d in zip(shapes, dtypes, strict=True)]
    with jc.forward_mode():
        ours = everything(jc.conv_general_dilated, arguments, tuple(axes))(*arrays)
    by_lax = everything(lax_conv_widened, arguments, tuple(axes))
    if 0 in result[0]:
        # In some of these XLA divides by zero and ends the process; sums over nothing are known to be zero.
        theirs = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), jax.eval_shape(by_lax, *arrays))
    else:
        theirs = by_lax(*arrays)
    assert_same(ours, theirs, max(CLOSE[dtype], CLOSE[str(result[1])]))


def spoiled(random, x, w, dtype, arguments):
    """The call with one change that makes it invalid, or only different."""
    rank = len(x) - 2

    def shape(of, axis, by):
        return (*of[:axis], max(of[axis] + by, 0), *of[axis + 1 :])

    x_axis, w_axis, by = (int(n) for n in random.integers([0, 0, -2], [rank + 2, rank + 2, 3]))
    pairs = [(1, 0)] * rank
    changes = [
        lambda: {"x": shape(x, x_axis, by)},
        lambda: {"w": shape(w, w_axis, by)},
        lambda: {"x": (*x, 2)},
        lambda: {"w": w[:-1]},
        lambda: {"w_dtype": "float16"},
        lambda: {"feature_group_count": int(random.integers(-1, 5))},
        lambda: {"batch_group_count": int(random.integers(-1, 5))},
        lambda: {"window_strides": [1] * (rank + by)},
        lambda: {"window_strides": [by] * rank},
        lambda: {"rhs_dilation": [by] * rank},
        lambda: {"lhs_dilation": [by] * rank},
        lambda: {"padding": str(random.choice(["FULL", "CAUSAL", "valid"])), "lhs_dilation": None},
        lambda: {"padding": pairs[:-1]},
        lambda: {"padding": [*pairs, (0, 0)]},
        lambda: {"padding": [(-by - 3, -2)] * rank},
        lambda: {"padding": [(1, 1, 1)] * rank},
        lambda: {"padding": [1] * rank},
        lambda: {"dimension_numbers": [("NHWC", "HWIO", "NHWC"), ("NCW", "OIW", "NWC"), ("NC",) * 3][by % 3]},
        lambda: {"dimension_numbers": ("NCHW", "OIHX", "NCHW")},
        lambda: {"dimension_numbers": "NCHW"},
        lambda: {"precision": [1, "HIGHEST", ("high", None), "F32_F32_F32", ["default"] * 2][by % 5]},
        lambda: {"preferred_element_type": ["bool", "int32", "float16", "float64", "complex128"][by % 5]},
    ]
    change = changes[random.integers(len(changes))]()
    x, w, w_dtype = change.pop("x", x), change.pop("w", w), change.pop("w_dtype", dtype)
    return jax.ShapeDtypeStruct(x, dtype), jax.ShapeDtypeStruct(w, w_dtype), arguments | change


@pytest.mark.parametrize("seed", range(12))
def test_the_same_calls_raise(seed):
    """Runs 25 calls per seed, each with one spoiled argument."""
    random = np.random.default_rng(seed)
    raised = 0
    for _ in range(25):
        call = spoiled(random, *draw(random))
        theirs = outcome(lax.conv_general_dilated, *call, errors=Exception)
        assert outcome(jc.conv_general_dilated, *call) == theirs, call
        raised += theirs is None
    assert 0 < raised < 25
