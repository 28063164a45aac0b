"""The terms of every element, added up: the sums of reference.py and what the kernels return."""

import numpy as np
import pytest
import reference
from conv_cases import CASES

from jax_convgrad.geometry import Axis, ConvGeometry
from jax_convgrad.instruments.elements import Convolution, shapes_of
from jax_convgrad.instruments.terms import terms_of

SMALL = [
    case
    for case in CASES
    if case.batch_groups == 1 and case.multiply_adds <= 12_000 and np.prod(case.w) <= 2_000
]


def convolution(case):
    """A case of the suite as shapes, channels last."""
    x_order, w_order, _ = case.to_canonical
    axes = tuple(
        Axis(a.input, a.taps, a.output, a.stride, a.pad_lo, a.input_dilation, a.filter_dilation)
        for a in case.axes
    )
    return Convolution(
        ConvGeometry(axes, case.groups), case.x[x_order[0]], case.x[x_order[-1]], case.w[w_order[-1]]
    )


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
    shape = shapes_of(layer)[array]
    result = np.empty(shape)
    for index in np.ndindex(*shape):
        result[index] = of_terms(terms_of(layer, array, index))
    return result


@pytest.mark.parametrize("case", SMALL, ids=lambda case: case.name)
def test_every_element_of_a_convolution(case):
    layer = convolution(case)
    shapes = shapes_of(layer)
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
