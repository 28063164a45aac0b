"""``explain --winograd``: every element's tile gives the element, its counts are the plan's, and refusals."""

import itertools
import json

import numpy as np
import pytest

from jax_convgrad import __main__ as command_line
from jax_convgrad import explain
from jax_convgrad.instruments.layer_text import parse_layer
from jax_convgrad.instruments.plan_command import layer_plan
from jax_convgrad.instruments.terms import terms_of
from jax_convgrad.instruments.winograd_plot import plot_tile
from jax_convgrad.instruments.winograd_text import cell_text
from jax_convgrad.instruments.winograd_tile import REACH, _tiles, winograd_tile
from jax_convgrad.instruments.winograd_transforms import POINTS, RESULTS, TAPS, transforms

OPS = {"y": "fprop", "dx": "dgrad", "dw": "wgrad"}
LAYERS = {
    "1x9x10x1, 3x3, 1, pad 1": (0, 1),
    "2x6x5x4, 3x3, 6, pad 1, groups 2": (0, 1),
    "1x11x7x1, 3x3, 2, pad 2, dilation 2": (0, 1),
    "1x7x8x2, 3x1, 1, pad 1x0": (0,),
    "1x7x8x2, 5x3, 1, pad 2x1": (1,),
    "2x9x2, 3, 3": (0,),
    "1x13x1, 3, 1, pad 1, dilation 3": (0,),
    "1x5x4x5x1, 3x3x3, 1, pad 1": (1, 2),
    "1x5x4x5x1, 3x2x3, 1, pad 1x0x1": (2,),
    "1x7x8x1, 3x3, 1, pad 1, stride 2x1": (1,),
}


@pytest.mark.parametrize("array", OPS)
@pytest.mark.parametrize("text", LAYERS)
def test_every_tile_gives_its_element(text, array):
    layer, random = parse_layer(text), np.random.default_rng(1)
    arrays = {name: random.standard_normal(layer.shapes[name]) for name in ("x", "w", "dy")}
    elements = list(np.ndindex(*layer.shapes[array]))
    for index in elements[:: max(len(elements) // 20, 1)]:
        terms = terms_of(layer, array, index)
        tile = winograd_tile(terms, arrays)
        assert tile.transformed == LAYERS[text]
        assert tile.value == pytest.approx(terms.total(**arrays), abs=1e-9), index


@pytest.mark.parametrize("array", OPS)
@pytest.mark.parametrize("text", LAYERS)
def test_the_plan_has_the_same_tiles(text, array):
    layer = parse_layer(text)
    tile = explain(layer, array).winograd()
    facts = layer_plan(layer, kernel="winograd")["ops"][OPS[array]]
    assert (tile.products, RESULTS ** len(tile.axes)) == (facts["tile_products"], facts["tile_results"])
    assert tile.tiles == facts["tiles"]


def test_the_tile_of_a_result_lists_each_once():
    """Along a dilated axis the tiles of all results are the axis's tiles, and each result is in one."""
    axis = parse_layer("1x13x1, 3, 1, pad 1, dilation 3").geometry.axes[0]
    listed = list(itertools.chain.from_iterable(tile.results for tile in _tiles(axis, True)))
    assert sorted(o for o in listed if o is not None) == list(range(axis.output))


def test_the_numbers_are_those_of_the_formula():
    explained = explain("1x6x6x1, 3x3, 1, pad 1", "y", (0, 1, 2, 0), seed=0)
    tile, (c, e4, e3) = explained.winograd(), transforms(POINTS, RESULTS, TAPS)
    padded = np.pad(explained.arrays["x"][0, ..., 0], ((1, 5), (1, 5)))
    np.testing.assert_array_equal(tile.patch, padded[:REACH, :REACH])
    v, u = c.T @ tile.patch @ c, e3 @ explained.arrays["w"][..., 0, 0] @ e3.T
    np.testing.assert_allclose(tile.sums, v * u, atol=1e-12)
    np.testing.assert_allclose(tile.results, e4.T @ (v * u) @ e4, atol=1e-12)


def test_the_text_and_the_json(capsys):
    line = ["explain", "1x5x6x2, 3x3, 1, pad 1", "--dx", "0,4,5,1", "--winograd"]
    assert command_line.main(line) == 0
    told = capsys.readouterr().out
    assert "36 products instead of 144 for a pair of channels" in told
    assert "axis 0: i = 4 - - - of o = 3 4 - - - -, where - is padding" in told
    assert "E4, whose transpose gives dx" in told and "The patch" not in told
    assert command_line.main([*line, "--values"]) == 0
    told = capsys.readouterr().out
    assert "The patch of dy:" in told and ", where - is past the end:" in told
    assert told.rstrip().endswith("as the terms above add up to.")
    assert command_line.main([*line, "--values", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["winograd"]["value"] == pytest.approx(told["total"])
    assert told["winograd"]["axes"][0] == {
        "axis": 0,
        "results": [4, None, None, None],
        "inputs": [3, 4, None, None, None, None],
    }


def test_the_sums_are_over_channels_or_tiles(capsys):
    assert command_line.main(["explain", "1x9x9x4, 3x3, 2", "--y", "0,1,1,0", "--winograd", "--values"]) == 0
    told = capsys.readouterr().out
    assert "The patch of x, of the first channel:" in told and "added up over 4 channels:" in told
    assert command_line.main(["explain", "2x9x9x1, 3x3, 2", "--dw", "0,1,0,0", "--winograd", "--values"]) == 0
    told = capsys.readouterr().out
    assert 'The first of 8 tiles of "winograd"' in told and "added up over tiles:" in told


@pytest.mark.parametrize(
    "line, message",
    [
        (["1x6x6x1, 5x5, 1"], "needs an axis of 3 taps without stride or input dilation"),
        (["1x6x6x1, 3x3, 1, stride 2"], "needs an axis of 3 taps"),
        (["1x6x6x1, max 3x3"], "not a pooling layer"),
        (["1x6x6x1, 3x3, 1", "--db", "0"], "and not db"),
    ],
)
def test_what_has_no_tile(line, message, capsys):
    with pytest.raises(SystemExit) as ended:
        command_line.main(["explain", *line, "--winograd"])
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert message in told and told.count("\n") == 1


def test_complex_numbers_have_no_tile():
    x, w = np.ones((1, 6, 6, 1), np.complex64), np.ones((3, 3, 1, 1), np.complex64)
    explained = explain("1x6x6x1, 3x3, 1", "y", x=x, w=w)
    with pytest.raises(ValueError, match="x is complex"):
        explained.winograd()


@pytest.mark.parametrize("points, results, taps", [((0, 1, -1), 2, 3), ((0, 1, -1, 2, -2), 3, 3)])
def test_transforms_have_as_many_points_as_coefficients(points, results, taps):
    if len(points) == results + taps - 2:
        c, e_m, e_r = transforms(points, results, taps)
        x, w, y = (np.random.default_rng(0).standard_normal(n) for n in (results + taps - 1, taps, results))
        direct = sum(x[o + r] * w[r] * y[o] for o in range(results) for r in range(taps))
        assert (c.T @ x * (e_r @ w) * (e_m @ y)).sum() == pytest.approx(direct)
    else:
        with pytest.raises(ValueError, match=r"F\(3, 3\) needs 4 points besides infinity, not 5"):
            transforms(points, results, taps)


@pytest.mark.parametrize("array, shape", [("y", (4, 4)), ("dx", (4, 4)), ("dw", (3, 3))])
def test_the_picture_has_every_number(array, shape):
    explained = explain("1x5x6x2, 3x3, 3, pad 1", array, seed=0)
    tile = explained.winograd()
    figure = plot_tile(tile)
    cells = [patch.get_gid() for patch in figure.axes[0].patches]
    assert len(cells) == len(set(cells)) == 4 * 36 + np.prod(shape)
    texts = [text.get_text() for text in figure.axes[0].texts]
    for numbers in (tile.patch, tile.transformed_patch, tile.transformed_second, tile.sums, tile.stored):
        assert all(cell_text(number, 3) in texts for row in numbers for number in row)
    assert any(text.endswith(f"] = {explained.total:g}") for text in texts)


def test_a_picture_needs_numbers(capsys, tmp_path):
    line = ["explain", "1x6x6x1, 3x3, 1", "--winograd", "--plot", str(tmp_path / "tile.svg")]
    with pytest.raises(SystemExit) as ended:
        command_line.main(line)
    assert ended.value.code == 2
    assert "explain: a tile is drawn with its numbers: give --values, or arrays" in capsys.readouterr().err
