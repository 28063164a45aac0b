"""The terms of every element, added up: the sums of reference.py and what the kernels return."""

import itertools
import math

import numpy as np
import pool_cases
import pytest
import reference
from conv_cases import CASES

from jax_convgrad import explain
from jax_convgrad.geometry import Axis, ConvGeometry
from jax_convgrad.instruments import terms as terms_module
from jax_convgrad.instruments.layer_text import Layer, parse_layer
from jax_convgrad.instruments.terms import Term, terms_of, winner

SMALL = [
    case
    for case in CASES
    if case.batch_groups == 1 and case.multiply_adds <= 12_000 and np.prod(case.w) <= 2_000
]


class AnyLayer(Layer):
    """A layer of any geometry, which no text says: stride and input dilation at once."""

    geometry = None


def convolution(case):
    """A case of the suite as a layer, channels last."""
    x_order, w_order, _ = case.to_canonical
    axes = tuple(
        Axis(a.input, a.taps, a.output, a.stride, a.pad_lo, a.input_dilation, a.filter_dilation)
        for a in case.axes
    )
    (batch, *inputs, channels), taps = (case.x[n] for n in x_order), [axis.taps for axis in axes]
    layer = AnyLayer(batch, tuple(inputs), channels, taps, case.w[w_order[-1]], (), (), (), case.groups)
    vars(layer)["geometry"] = ConvGeometry(axes, case.groups)
    return layer


def integers(shape, seed):
    return np.random.default_rng(seed).integers(-4, 5, shape)


def listed(terms, **arrays):
    """The element from the listed terms alone, by looking up each one's factors."""
    total = 0
    for term in terms:
        at = {"x": term.x, "w": term.w, "dy": term.y}
        total += np.prod([arrays[name][at[name]] for name in terms.operands])
    return total


def every(layer, array, of_terms):
    shape = layer.shapes[array]
    result = np.empty(shape)
    for index in np.ndindex(*shape):
        result[index] = of_terms(terms_of(layer, array, index))
    return result


@pytest.mark.parametrize("case", SMALL, ids=lambda case: case.name)
def test_every_element_of_a_convolution(case):
    layer = convolution(case)
    shapes = layer.shapes
    arrays = {name: integers(shapes[name], seed) for seed, name in enumerate(("x", "w", "dy"))}
    x, w, dy = arrays.values()
    expected = {
        "y": reference.fprop(x, w, case.axes, case.groups),
        "dx": reference.dgrad(dy, w, case.axes, case.groups),
        "dw": reference.wgrad(x, dy, case.axes, case.groups),
        "db": reference.bgrad(dy),
    }
    for array, sums in expected.items():
        np.testing.assert_array_equal(every(layer, array, lambda t: listed(t, **arrays)), sums, array)
        np.testing.assert_array_equal(every(layer, array, lambda t: t.total(**arrays)), sums, array)


def test_the_cases_have_every_step():
    """Each kind of geometry is among those small enough to be listed."""
    axes = [axis for case in SMALL for axis in case.axes]
    assert {len(case.axes) for case in SMALL} == {1, 2, 3}
    assert any(case.groups > 1 for case in SMALL)
    for what in ("stride", "input_dilation", "filter_dilation"):
        assert any(getattr(axis, what) > 1 for axis in axes), what
    assert any(a.pad_lo < 0 for a in axes) and any(a.pad_hi < 0 for a in axes)


LAYERS = (
    "2x9x3, 3, 4, stride 2, pad 1:0",
    "1x5x6x2, 3x2, 3, pad -1x2, dilation 1x2",
    "2x5x4x4, 3x3, 6, stride 2x1, pad same, groups 2",
    "1x3x4x2, 3x4, 3, stride 2x3, pad 1, transposed",
    "1x4x4, 3, 4, stride 2, groups 4, transposed",
    "1x3x3x4x2, 2x2x3, 2, stride 1x2x1, pad 1",
)


@pytest.mark.parametrize("text", LAYERS)
def test_what_the_kernels_return(text):
    """explain() asks them for the very element; integers of this size leave nothing to rounding."""
    layer = parse_layer(text)
    random = np.random.default_rng(1)
    for array, shape in ((name, layer.shapes[name]) for name in ("y", "dx", "dw", "db")):
        for _ in range(3):
            index = tuple(int(random.integers(size)) for size in shape)
            explained = explain(text, array, index, seed=2)
            assert explained.kernel[1] == explained.total == explained.values.sum(), (array, index)


def pool_of(kind, axes, channels, include=True):
    columns = zip(
        *((a.input, a.taps, a.stride, (a.pad_lo, a.pad_hi), a.filter_dilation) for a in axes), strict=True
    )
    inputs, window, stride, pad, dilation = columns
    shape = 2, inputs, channels, window, channels
    return Layer(*shape, stride, pad, dilation, channels, False, kind, include)


def narrowed(axes):
    """The suite's windows along a last axis short enough to be listed."""
    return [*axes[:-1], reference.Axis(**{**vars(axes[-1]), "input": max(7, axes[-1].taps // 3)})]


WINDOWS = {name: narrowed(axes) for name, axes in pool_cases.WINDOWS.items()}


@pytest.mark.parametrize("name", WINDOWS)
def test_every_element_of_max_pooling(name):
    axes = WINDOWS[name]
    pool = pool_of("max", axes, 2)
    x = integers(pool.x_shape, 3).astype(float)
    x[1].reshape(-1)[::3] = -np.inf
    x[1].reshape(-1)[4::11] = np.nan
    dy = integers(pool.y_shape, 4)
    y, position = reference.max_pool(x, axes)
    np.testing.assert_array_equal(every(pool, "y", lambda t: t.total(x=x)), y)
    dx = reference.max_pool_grad(dy, position, axes)
    np.testing.assert_array_equal(every(pool, "dx", lambda t: t.total(x=x, dy=dy)), dx)
    for index in np.ndindex(*pool.y_shape):
        best = winner(pool, x, index)
        flat = -1 if best is None else np.ravel_multi_index(best[1:-1], pool.input)
        assert flat == position[index]


@pytest.mark.parametrize("include", [True, False])
@pytest.mark.parametrize("name", WINDOWS)
def test_every_element_of_average_pooling(name, include):
    axes = WINDOWS[name]
    pool = pool_of("avg", axes, 2, include)
    x, dy = integers(pool.x_shape, 3), integers(pool.y_shape, 4)
    y, dx = reference.avg_pool(x, axes, include), reference.avg_pool_grad(dy, axes, include)
    np.testing.assert_allclose(every(pool, "y", lambda t: t.total(x=x)), y, 1e-12)
    np.testing.assert_allclose(every(pool, "dx", lambda t: t.total(dy=dy)), dx, 1e-12, 1e-12)
    np.testing.assert_allclose(
        every(pool, "dx", lambda t: math.fsum(dy[term.y] / term.count for term in t)), dx, 1e-12, 1e-12
    )


@pytest.mark.parametrize("text", ["2x7x6x2, max 3x2, stride 2x1, pad 1", "1x9x3, max 3, dilation 2, pad 5:2"])
def test_what_max_pooling_returns(text):
    for array, index in itertools.product(("y", "dx"), ((0, 1, 1, 1), (0, 0, 4, 0))):
        index = index if text.startswith("2x") else (0, index[1] + 2, index[3])
        explained = explain(text, array, index, seed=5)
        assert explained.kernel[1] == explained.total


@pytest.mark.parametrize("text", ["2x7x6x2, avg 3x2, stride 2x1, pad 1, exclude pad", "1x9x3, avg 3, pad 2"])
def test_what_average_pooling_returns(text):
    for array, index in itertools.product(("y", "dx"), ((0, 0, 0, 1), (0, 2, 4, 0))):
        index = index if text.startswith("2x") else (0, index[1], index[3])
        explained = explain(text, array, index, seed=5)
        np.testing.assert_allclose(explained.kernel[1], explained.total, 1e-6)


def test_a_tie_goes_to_the_first():
    """Two windows, one with its maximum twice."""
    x = np.array([1, 7, 7, 2, 3]).reshape(1, 5, 1)
    dy = np.array([10, 100]).reshape(1, 2, 1)
    taken = [explain("1x5x1, max 3, stride 2", "dx", (0, i, 0), x=x, dy=dy).total for i in range(5)]
    assert taken == [0, 10, 100, 0, 0]


def test_one_term_by_hand():
    """Input 2 of 5 at stride 2: by tap 0 of output 1 and by tap 2 of output 0; tap 1 has none."""
    terms = terms_of("1x5x1, 3, 1, stride 2", "dx", (0, 2, 0))
    assert list(terms) == [
        Term(y=(0, 1, 0), x=(0, 2, 0), w=(0, 0, 0), r=(0,)),
        Term(y=(0, 0, 0), x=(0, 2, 0), w=(2, 0, 0), r=(2,)),
    ]
    assert [terms.text(term) for term in terms] == ["dy[0,1,0] * w[0,0,0]", "dy[0,0,0] * w[2,0,0]"]
    assert [candidate.miss for candidate in terms.candidates[0]] == ["", "(2 - 1)/2 leaves a remainder", ""]


@pytest.mark.parametrize("case", SMALL[::4], ids=lambda case: case.name)
def test_by_number(case):
    """A term asked for by its number is the one that comes there."""
    layer = convolution(case)
    for array in ("y", "dx", "dw", "db"):
        terms = terms_of(layer, array, (0,) * len(layer.shapes[array]))
        assert [terms[number] for number in range(len(terms))] == list(terms)
        with pytest.raises(IndexError, match="there is no term"):
            terms[len(terms)]


def test_floats_are_added_up_wide():
    """Of 16-bit arrays too: the sum is not rounded on the way."""
    x, dy = np.full((1, 5000, 1), 1.5, np.float16), np.ones((1, 5000, 1), np.float16)
    explained = explain("1x5000x1, 1, 1", "dw", (0, 0, 0), x=x, dy=dy)
    assert explained.total == 7500
    assert explained.kernel[1] == np.float16(7500)


@pytest.mark.parametrize(
    "array, index, error, message",
    [
        ("dz", (0, 0, 0), ValueError, "array must be one of y, dx, dw, db"),
        ("dx", (0, 9, 0), ValueError, r"dx\[0,9,0\] does not exist: i is 9, and dx is of shape \[1,9,2\]"),
        ("dx", (0, -1, 0), ValueError, "i is -1"),
        ("dw", (0, 2, 0), ValueError, r"c is 2, and dw is of shape \[3,2,4\]"),
        ("dx", (0, 1), ValueError, r"has 3 indices, dx\[n,i,c\], not the 2"),
        ("dx", (0, 1.5, 0), TypeError, "index must be a sequence of integers"),
        ("dx", 3, TypeError, "index must be a sequence of integers"),
    ],
)
def test_no_such_element(array, index, error, message):
    with pytest.raises(error, match=message):
        terms_of("1x9x2, 3, 4", array, index)


def test_pooling_has_no_filter():
    with pytest.raises(ValueError, match="array must be one of y, dx, but is 'dw'"):
        explain("1x6x6x1, max 3x3", "dw")


def test_arrays_that_do_not_fit():
    with pytest.raises(ValueError, match=r"w must be of shape \(3, 2, 4\), but is missing"):
        explain("1x9x2, 3, 4", "y", x=np.ones((1, 9, 2)))
    with pytest.raises(ValueError, match=r"dy must be of shape \(1, 7, 4\), but is of shape \(1, 9, 4\)"):
        explain("1x9x2, 3, 4", "db", dy=np.ones((1, 9, 4)))


def test_what_is_too_long(monkeypatch):
    with pytest.raises(ValueError, match="an axis of 4194304 taps is too long to list"):
        terms_of("1x4194304x1, 4194304, 1", "dx", (0, 0, 0))
    monkeypatch.setattr(terms_module, "MOST_CANDIDATES", 6)
    with pytest.raises(ValueError, match="an axis of 7 outputs"):
        terms_of("1x9x1, 3, 1", "dw", (0, 0, 0))
