"""What `compare_with_lax` finds in a model: convolutions, their texts and times, rules of its own."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jax_convgrad as jc
from jax_convgrad import compare_with_lax
from jax_convgrad.instruments.convolutions_found import found_in, interleaved
from jax_convgrad.instruments.layer_text import parse_layer

RANDOM = np.random.default_rng(3)


def test_equal_convolutions_are_counted_and_scans_multiply():
    w = jnp.asarray(RANDOM.standard_normal((3, 3, 3, 3)) * 0.2)

    def loss(w, x):
        layer = partial(jc.conv, padding="SAME")
        x = lax.scan(lambda x, _: (jnp.tanh(layer(x, w)), None), x, length=5)[0]
        return jnp.sum(layer(jax.jit(layer)(x, w), w, dilation=2) ** 2)

    comparison = compare_with_lax(loss, w, jnp.asarray(RANDOM.standard_normal((3, 8, 8, 3))), repeats=0)
    assert comparison.ok
    assert [(found.text, count) for found, count, _ in comparison.convolutions] == [
        ("3x8x8x3, 3x3, 3, pad 1", 6),
        ("3x8x8x3, 3x3, 3, pad 2, dilation 2", 1),
    ]
    assert comparison.step is None
    assert "forward" not in str(comparison)


@pytest.mark.parametrize(
    "text",
    [
        "2x7x6x4, 3x2, 6, stride 2x1, pad 1:0x0:1, dilation 1x2, groups 2",
        "2x9x2, 4, 3, stride 3, pad -1:0",
        "1x4x3x5x2, 2x2x3, 4, pad 0x0x1",
        "2x5x4x6, 3x3, 4, stride 2, pad 1, transposed",
        "2x5x4x4, 3x3, 6, stride 3x1, pad 1:0, groups 2, transposed",
    ],
)
@pytest.mark.parametrize("by", ["ours", "lax"])
def test_a_layer_is_found_as_it_is_written(text, by):
    """Its text read back is the same relation, by whichever of the two contractions it is run."""
    layer = parse_layer(text)
    ones = (1,) * len(layer.taps)
    spec = "N" + "DHW"[-len(ones) :] + "C", "DHW"[-len(ones) :] + "IO", "N" + "DHW"[-len(ones) :] + "C"
    conv = jc.conv_general_dilated if by == "ours" else jc.replace_convolutions(lax.conv_general_dilated)

    def f(x, w):
        return conv(
            x,
            w,
            window_strides=ones if layer.transposed else layer.stride,
            padding=layer.padding,
            lhs_dilation=layer.stride if layer.transposed else ones,
            rhs_dilation=layer.dilation,
            dimension_numbers=spec,
            feature_group_count=layer.groups,
        )

    with jc.forward_mode():
        traced = jax.make_jaxpr(f)(jnp.ones(layer.x_shape), jnp.ones(layer.w_shape))
    found, of_lax = found_in(traced)
    ((one, count),) = found.items()
    assert (count, of_lax) == (1, 0)
    again = parse_layer(one.text)
    assert (again.geometry, again.x_shape, again.w_shape) == (layer.geometry, layer.x_shape, layer.w_shape)


def test_what_no_layer_text_says():
    """Stride and input dilation at once; a filter's gradient as a forward pass: told by shapes, and timed."""

    def loss(w, x):
        y = jc.conv_general_dilated(x, w, (2,), [(1, 1)], lhs_dilation=(3,))
        return jnp.sum(y**2) + jnp.sum(jc.conv_filter_grad(x, x, (1, 6, 6), padding=0) ** 2)

    x = jnp.asarray(RANDOM.standard_normal((2, 6, 6)))
    comparison = compare_with_lax(loss, jnp.asarray(RANDOM.standard_normal((4, 6, 2))), x, repeats=1)
    assert comparison.ok, comparison
    first, second = comparison.convolutions
    assert first[0].text == "fprop of [2, 6, 6] and [4, 6, 2]"
    assert second[0].text == "dW of 2x6x6, 1, 6"
    assert first[2]["dW"].ours > 0 and second[2]["dX"].ours > 0


def test_what_stays_with_lax_is_told():
    def loss(w, x):
        y = lax.conv_general_dilated(x, w, (1,) * 4, "VALID")
        return jnp.sum(y**2)

    comparison = compare_with_lax(loss, jnp.ones((1, 1, 2, 2, 2, 2)), jnp.ones((1, 1, 3, 3, 3, 3)))
    assert comparison.ok and "1 of its convolutions run on lax both ways" in str(comparison)


def test_rules_of_the_models_own_are_named():
    @jax.custom_vjp
    def doubled(x):
        return 2 * x

    doubled.defvjp(lambda x: (2 * x, None), lambda _, dy: (-dy,))

    def loss(w, x):
        return jax.nn.relu(doubled(jc.conv(x, w))).sum()

    arguments = jnp.ones((3, 2, 2)), jnp.ones((1, 5, 2))
    report = str(compare_with_lax(loss, *arguments, repeats=0))
    assert "the derivative rules of doubled; check_gradients(model_fn, params, batch) does" in report
    assert not jc.check_gradients(loss, *arguments).ok
    report = str(compare_with_lax(lambda w, x: jax.nn.relu(jc.conv(x, w)).sum(), *arguments, repeats=0))
    assert "rules" not in report


def test_times_are_of_the_functions_given():
    """A slow function takes longer than a fast one, which are timed by turns."""
    calls = []

    def slow(x):
        return lax.fori_loop(0, 20000, lambda i, x: jnp.sin(x), x)

    times = interleaved(slow, lambda x: calls.append(0) or x, [jnp.ones(100)], 3)
    assert len(calls) == 1  # traced once
    assert times.ours > times.lax > 0
    assert times.ratio == times.lax / times.ours
