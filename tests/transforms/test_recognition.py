"""The contractions that `recognise` finds in lax's convolutions, from shapes alone, and their numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conv_cases import BY_NAME, CASES, ConvCase, has_outputs
from jax import lax

from jax_convgrad.geometry import Axis, ConvGeometry
from jax_convgrad.primitives.conv_spec import Dims
from jax_convgrad.replace.lax_convolution import before_reversals, contraction_of, runner
from jax_convgrad.replace.recognition import recognise

# Orders with the batch first in images, as all libraries use them; filters may be in any order.
IMAGES = {1: ("NCD", "NDC"), 2: ("NCHW", "NHWC", "NHCW"), 3: ("NCDHW", "NDHWC")}
RANDOM_PROBLEMS = 60


def shuffled(random, letters):
    return "".join(random.permutation(list(letters)))


def random_case(seed, any_order=False):
    random = np.random.default_rng(seed)
    rank = int(random.integers(1, 4))
    space = "DHW"[:rank] if rank != 2 else "HW"
    if any_order:
        order = tuple(shuffled(random, space + pair) for pair in ("NC", "IO", "NC"))
    else:
        x, y = random.choice(IMAGES[rank], 2)
        order = (str(x), shuffled(random, space + "IO"), str(y))

    def per_axis(low, high):
        return tuple(int(n) for n in random.integers(low, high, rank))

    groups, batch_groups = [(1, 1), (1, 1), (2, 1), (3, 1), (1, 2)][random.integers(5)]
    of_x = {"N": 2 * batch_groups, "C": int(random.integers(1, 4)) * groups}
    of_w = {"I": of_x["C"] // groups, "O": int(random.integers(1, 4)) * groups * batch_groups}
    of_x |= dict(zip(space, per_axis(4, 8), strict=True))
    of_w |= dict(zip(space, per_axis(1, 5), strict=True))
    low, high = per_axis(-1, 4), per_axis(3, 6)
    return ConvCase(
        f"random_{seed}",
        tuple(of_x[d] for d in order[0]),
        tuple(of_w[d] for d in order[1]),
        per_axis(1, 4),
        tuple(zip(low, high, strict=True)),
        per_axis(1, 3),
        per_axis(1, 3),
        groups,
        batch_groups,
        order,
    )


def layer(case):
    return lambda x, w: lax.conv_general_dilated(x, w, **case.lax_arguments)


def as_lax_writes(f, *shapes):
    """Each convolution in f's jaxpr: its equation, and whether its filter is reversed."""
    jaxpr = jax.make_jaxpr(f)(*(jax.ShapeDtypeStruct(shape, jnp.float64) for shape in shapes)).jaxpr
    makers = {eqn.outvars[0]: eqn for eqn in jaxpr.eqns}
    for eqn in jaxpr.eqns:
        if eqn.primitive is lax.conv_general_dilated_p:
            maker = makers.get(eqn.invars[1])
            yield eqn, maker is not None and maker.primitive is lax.rev_p


def recognised(f, *shapes):
    """The only contraction in f."""
    ((eqn, reversed_),) = as_lax_writes(f, *shapes)
    (lhs, rhs), (out,) = eqn.invars, eqn.outvars
    return contraction_of(lhs.aval, rhs.aval, out.aval, eqn.params, reversed_)


def input_gradient(case):
    return lambda dy, w: jax.linear_transpose(lambda x: layer(case)(x, w), spec(case.x))(dy)[0]


def filter_gradient(case):
    return lambda x, dy: jax.linear_transpose(lambda w: layer(case)(x, w), spec(case.w))(dy)[0]


def spec(shape):
    return jax.ShapeDtypeStruct(shape, jnp.float64)


def geometry_of(case):
    """The layer's own geometry and dimensions, from its arguments."""
    numbers = lax.conv_dimension_numbers(case.x, case.w, case.specs)
    axes = tuple(
        Axis(a.input, a.taps, a.output, a.stride, a.pad_lo, a.input_dilation, a.filter_dilation)
        for a in case.axes
    )
    return ConvGeometry(axes, case.groups * case.batch_groups), Dims(*numbers)


STRICT = [case for case in map(random_case, range(RANDOM_PROBLEMS)) if has_outputs(case)]
STRICT += [case for case in CASES if case.specs[0][0] == case.specs[2][0] == "N" and has_outputs(case)]
LOOSE = [case for case in (random_case(seed, True) for seed in range(1000, 1020)) if has_outputs(case)]
LOOSE += [random_case(seed) for seed in range(10)]


@pytest.mark.parametrize("case", STRICT, ids=lambda case: case.name)
def test_a_layer_and_its_gradients_have_the_layers_own_geometry(case):
    """A layer and its gradients have one geometry, without a flipped filter or a dilation for a stride."""
    geometry, dims = geometry_of(case)
    y = recognised(layer(case), case.x, case.w)
    dx = recognised(input_gradient(case), case.y, case.w)
    dw = recognised(filter_gradient(case), case.x, case.y)
    assert (y.name, dx.name, dw.name) == ("fprop", "dgrad", "wgrad")
    assert y.geometry == dx.geometry == dw.geometry == geometry
    assert y.dimensions == dx.dimensions == dw.dimensions == dims
    assert dx.unreversed
    assert not y.unreversed
    assert not dw.unreversed


def test_there_are_many_and_varied_random_problems():
    assert len(STRICT) > 60
    random = [case for case in STRICT if case.name.startswith("random")]
    assert {case.rank for case in random} == {1, 2, 3}
    assert {case.groups for case in random} == {1, 2, 3}
    assert {case.batch_groups for case in random} == {1, 2}


@pytest.mark.parametrize("case", LOOSE, ids=lambda case: case.name)
def test_the_contraction_computes_what_lax_does(case):
    """Values are lax's in any order of dimensions, also if the batch is not first."""
    x, w, dy = case.arrays(np.float64)
    for f, args in (
        (layer(case), (x, w)),
        (input_gradient(case), (dy, w)),
        (filter_gradient(case), (x, dy)),
    ):
        assert_computes(f, args)


def assert_computes(f, args):
    ours = jax.jit(evaluate_on_ours(jax.make_jaxpr(f)(*args).jaxpr))(*args)
    np.testing.assert_allclose(ours, jax.jit(f)(*args), rtol=1e-11, atol=1e-11)


def evaluate_on_ours(jaxpr):
    """A simple interpreter of a jaxpr that runs each convolution as the recognised contraction."""

    def evaluate(*args):
        values = dict(zip(jaxpr.invars, args, strict=True))
        before = {}
        for eqn in jaxpr.eqns:
            operands = [values[var] for var in eqn.invars]
            (out,) = eqn.outvars
            if eqn.primitive is lax.rev_p:
                before[out] = operands[0]
            if eqn.primitive is not lax.conv_general_dilated_p:
                values[out] = eqn.primitive.bind(*operands, **eqn.params)
                continue
            lhs, rhs = eqn.invars
            contraction = contraction_of(lhs.aval, rhs.aval, out.aval, eqn.params, rhs in before)
            if contraction.unreversed:
                operands[1] = before[rhs]
            values[out] = runner(contraction, eqn.params, out.aval)(*operands)
        return values[jaxpr.outvars[0]]

    return evaluate


@pytest.mark.parametrize(
    "name", ["2d_stride2_same", "2d_both_dilations", "2d_groups", "2d_batch_groups", "3d_all"]
)
def test_derivatives_of_the_derivatives(name):
    """The gradients of dw(x, dy) with the cotangent t of dw: dx = dgrad(dy, t) and d(dy) = fprop(x, t)."""
    case = BY_NAME[name]
    geometry, dims = geometry_of(case)
    dw = filter_gradient(case)

    def of_x(dy, t):
        return jax.linear_transpose(lambda x: dw(x, dy), spec(case.x))(t)[0]

    def of_dy(x, t):
        return jax.linear_transpose(lambda dy: dw(x, dy), spec(case.y))(t)[0]

    dx, ddy = recognised(of_x, case.y, case.w), recognised(of_dy, case.x, case.w)
    assert (dx.name, ddy.name) == ("dgrad", "fprop")
    assert dx.operands == ("rhs", "lhs")  # dy, t
    assert ddy.operands == ("lhs", "rhs")
    assert dx.geometry == ddy.geometry == geometry
    assert dx.dimensions == ddy.dimensions == dims
    x, t, dy = case.arrays(np.float64)
    assert_computes(of_x, (dy, t))
    assert_computes(of_dy, (x, t))


def test_an_old_order_is_told_by_its_sizes():
    """With the batch last in all images the orders decide nothing, but a filter is smaller than an image."""
    case = ConvCase("chwn", (3, 9, 8, 2), (4, 3, 3, 3), 2, "SAME", order=("CHWN", "OIHW", "CHWN"))
    assert recognised(layer(case), case.x, case.w).name == "fprop"
    assert recognised(input_gradient(case), case.y, case.w).name == "dgrad"
    assert recognised(filter_gradient(case), case.x, case.y).name == "wgrad"


def test_one_axis_in_numbers():
    """A layer with 10 inputs, 3 taps, stride 2, pads of 1 and so 5 outputs; dx and dw as lax writes them."""
    layer = Axis(input=10, taps=3, output=5, stride=2, pad_lo=1)
    images, filters = (0, 1, 2), (1, 0, 2)
    ncw = (images, (0, 1, 2), images)
    numbers = {"lhs_dilation": (1,), "rhs_dilation": (1,), "window_strides": (1,)}
    y = recognise(
        (2, 3, 10),
        (4, 3, 3),
        (2, 4, 5),
        **numbers | {"window_strides": (2,)},
        padding=((1, 1),),
        dimension_numbers=ncw,
    )
    dx = recognise(
        (2, 4, 5),
        (4, 3, 3),
        (2, 3, 10),
        **numbers | {"lhs_dilation": (2,)},
        padding=((1, 2),),
        dimension_numbers=(images, filters, images),
        rhs_reversed=True,
    )
    dw = recognise(
        (2, 3, 10),
        (2, 4, 5),
        (4, 3, 3),
        **numbers | {"rhs_dilation": (2,)},
        padding=((1, 0),),
        dimension_numbers=(filters, filters, filters),
    )
    assert (y.name, dx.name, dw.name) == ("fprop", "dgrad", "wgrad")
    assert y.geometry == dx.geometry == dw.geometry == ConvGeometry((layer,))
    assert y.dimensions == dx.dimensions == dw.dimensions == Dims(*ncw)


def test_reversals_add_up():
    """A chain of reversals is one reversal of all spatial dimensions, or none, or is left as it is."""
    chain = {"c": ("b", (2, 3)), "b": ("a", (2, 3)), "d": ("a", (2,)), "e": ("d", (3,)), "f": ("d", (1,))}

    def before(value, sizes=(5, 5, 3, 3)):
        return before_reversals(value, chain.get, sizes, (0, 1, 2, 3))

    assert before("a") == ("a", False)
    assert before("b") == ("a", True)
    assert before("c") == ("a", False)
    assert before("e") == ("a", True)
    assert before("d") == ("d", False)  # one dimension of two
    assert before("d", (5, 5, 3, 1)) == ("a", True)  # the other dimension has one tap
    assert before("f") == ("f", False)  # channels are reversed too
