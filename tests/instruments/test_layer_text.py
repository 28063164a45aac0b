"""A layer, and one that pools, as text: what each part means, reading it back, errors that name the part."""

import pytest

from jax_convgrad.instruments.layer_text import Layer, parse_layer, parse_layer_or_pool


def test_all_parts():
    layer = parse_layer("8x56x48x64, 3x5, 32, stride 2x1, pad 1x0:2, dilation 2, groups 4")
    assert layer == Layer(8, (56, 48), 64, (3, 5), 32, (2, 1), ((1, 1), (0, 2)), (2, 2), 4, False)
    assert layer.x_shape == (8, 56, 48, 64)
    assert layer.w_shape == (3, 5, 16, 32)
    assert layer.y_shape == (8, 27, 42, 32)


def test_what_is_not_said():
    layer = parse_layer("1x7x2,3,4")
    assert layer == Layer(1, (7,), 2, (3,), 4, (1,), ((0, 0),), (1,))
    assert layer.y_shape == (1, 5, 4)


def test_transposed_undoes_the_strided_layer():
    layer = parse_layer("2x8x6x3, 4x4, 5, stride 2, pad 1, transposed")
    assert layer.y_shape == (2, 16, 12, 5)
    undone = parse_layer("2x16x12x5, 4x4, 3, stride 2, pad 1")
    assert undone.y_shape == layer.x_shape
    assert layer.geometry == undone.geometry.transpose()


def test_words_of_padding():
    assert parse_layer("1x7x8x2, 3x3, 4, stride 2, pad same").pad == ((1, 1), (0, 1))
    assert parse_layer("1x7x8x2, 3x3, 4, pad valid").pad == ((0, 0), (0, 0))


@pytest.mark.parametrize(
    "text",
    [
        "8x56x48x64, 3x5, 32, stride 2x1, pad 1x0:2, dilation 2, groups 4",
        "8x16x64, 3, 64",
        "8x16x64, 3, 64, pad 1:-2",
        "8x4x16x16x64, 3x1x3, 64, pad 1x0x1, dilation 1x1x2",
        "8x64x64x128, 2x2, 64, stride 2, transposed",
    ],
)
def test_reads_back(text):
    assert str(parse_layer(text)) == text


@pytest.mark.parametrize(
    "text, message",
    [
        ("8x56x56x64, 3x3", "should have an input, a filter and output channels"),
        ("8x64, 3, 64", "the input '8x64' should be at least 3 numbers"),
        ("8x2x2x2x2x64, 3, 64", "1 to 3 spatial dimensions, not 4"),
        ("8x5.6x56x64, 3x3, 64", "the input '8x5.6x56x64' should be positive numbers"),
        ("8x0x56x64, 3x3, 64", "the input .* should be positive"),
        ("8x56x56x64, 3, 64", "the filter '3' should have 2 sizes"),
        ("8x56x56x64, 3x, 64", "the filter '3x'"),
        ("8x56x56x64, 3x3, 64x2", "the output channels '64x2' should be 1 number"),
        ("8x56x56x64, 3x3, 64, strides 2", "'strides 2' is not known"),
        ("8x56x56x64, 3x3, 64, stride", "'stride' should be a name and a value"),
        ("8x56x56x64, 3x3, 64, stride 2x2x2", "stride '2x2x2' should be one number, or 2"),
        ("8x56x56x64, 3x3, 64, stride 0", "stride '0'"),
        ("8x56x56x64, 3x3, 64, stride 2, stride 2", "stride is given twice"),
        ("8x56x56x64, 3x3, 64, pad 1.5", "pad '1.5' should be numbers or low:high"),
        ("8x56x56x64, 3x3, 64, pad 1x1x1", "pad '1x1x1' should be one, or 2"),
        ("8x56x56x64, 3x3, 64, dilation two", "dilation 'two'"),
        ("8x56x56x64, 3x3, 64, groups 3", "groups 3 should divide the 64 input channels"),
        ("8x56x56x64, 3x3, 66, groups 4", "groups 4 should divide the 66 output channels"),
        ("8x56x56x64, 3x3, 64, transposed yes", "'transposed yes' should be without a value"),
        ("8x56x56x64, 3x3, 64, transposed, pad same", "pad of a transposed layer should be numbers"),
        ("8x2x2x64, 3x3, 64", "has no output"),
    ],
)
def test_errors_name_the_part(text, message):
    with pytest.raises(ValueError, match=message):
        parse_layer(text)


def test_pooling():
    pool = parse_layer_or_pool("8x56x48x64, avg 3x5, stride 2x1, pad 1x0:2, dilation 2, exclude pad")
    shape = 8, (56, 48), 64, (3, 5), 64
    assert pool == Layer(*shape, (2, 1), ((1, 1), (0, 2)), (2, 2), 64, False, "avg", False)
    assert set(pool.shapes) == {"x", "y", "dx", "dy"}
    assert pool.x_shape == (8, 56, 48, 64) and pool.y_shape == (8, 27, 42, 64)
    for text in (str(pool), "1x6x6x1, max 3x3", "2x9x3, avg 3, stride 3, pad 1:2"):
        assert str(parse_layer_or_pool(text)) == text
    assert parse_layer_or_pool("1x7x8x2, Max 3x3, stride 2, pad same").pad == ((1, 1), (0, 1))


@pytest.mark.parametrize(
    "text, same",
    [
        ("max 8x56x56x64, 3x3", "8x56x56x64, max 3x3"),
        ("Avg 2x9x3, 3, stride 3, pad 1:2, exclude pad", "2x9x3, avg 3, stride 3, pad 1:2, exclude pad"),
    ],
)
def test_the_word_of_pooling_may_come_first(text, same):
    """As in the benchmarks' tables of shapes."""
    assert parse_layer_or_pool(text) == parse_layer_or_pool(same)


@pytest.mark.parametrize(
    "text, message",
    [
        ("1x6x6x1", "an input, a filter and output channels"),
        ("1x6x6x1, mean 3x3", "the window 'mean 3x3' should begin with max or avg"),
        ("1x6x6x1, max", "the window '' should be positive numbers"),
        ("1x6x6x1, max 3", "the window '3' should have 2 sizes"),
        ("max 1x6x6x1, 3", "the window '3' should have 2 sizes"),
        ("avg 1x6x6, , stride 2", "the window '' should be positive numbers"),
        ("1x6x6x1, max 3x3, groups 2", "'groups 2' is not known; a pooling layer is"),
        ("1x6x6x1, max 3x3, exclude pad", "'exclude pad' is for avg"),
        ("1x6x6x1, avg 3x3, exclude input", "'exclude input' is not known"),
        ("1x6x6x1, avg 7x7", "has no output: the window is larger"),
        ("1x6x6x1, avg 3x3, pad two", "pad 'two' should be numbers"),
    ],
)
def test_errors_of_pooling_name_the_part(text, message):
    with pytest.raises(ValueError, match=message):
        parse_layer_or_pool(text)


def test_a_convolution_where_one_is_needed():
    assert parse_layer_or_pool("1x6x6x1, 3x3, 4") == parse_layer("1x6x6x1, 3x3, 4")
    with pytest.raises(ValueError, match="is a pooling layer, and here a convolution is needed"):
        parse_layer("1x6x6x1, max 3x3")
