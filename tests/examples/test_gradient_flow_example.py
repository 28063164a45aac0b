"""The example on gradient flow: each variant beside the factors that docs/gradient_flow.md derives."""

import itertools
import math
import re
from functools import cache

import gradient_flow as example
import jax
import numpy as np
import pytest
from examples_run import EXAMPLES, run_example

ARCHITECTURES = tuple(example.ARCHITECTURES)
CONVS = 2 * example.BLOCKS + 1


@cache
def batch():
    data = example.load_bundled()
    return data.train_images[:32], data.train_labels[:32]


@cache
def loss_of(name):
    return example.make_loss(example.ARCHITECTURES[name])


@cache
def at_the_start(name, initialisation, seed=0):
    params = example.init_params(
        jax.random.key(seed), example.ARCHITECTURES[name], example.INITIALISATIONS[initialisation]
    )
    return example.gradient_flow(loss_of(name), params, batch())


def norms(report):
    """Of the convolutions, from the first to the last."""
    assert [layer.name for layer in report.layers] == [*(f"conv/{i}" for i in range(CONVS)), "linear"]
    return np.array([layer.gradient_norm for layer in report.layers[:-1]])


# An output of 3x3 taps over 8x8 pixels, zeros around, sees 22 of 24 taps along an axis on average. Gradients
# pass by the same taps: a share of (22/24)**2 of their squares, 22/24 of their norm, is left by a layer.
BORDER = 22 / 24


@pytest.mark.parametrize(("initialisation", "gain"), [("LeCun", 1), ("He", 2)])
def test_plain_norms_change_by_the_derived_factor_a_layer(initialisation, gain):
    factor = example.factor_a_layer(at_the_start("plain", initialisation))
    assert factor == pytest.approx(math.sqrt(gain / 2) * BORDER, rel=0.05)


def test_the_plain_nets_first_layer_gets_next_to_nothing():
    plain, residual, normalised, both = (norms(at_the_start(name, "LeCun")) for name in ARCHITECTURES)
    assert residual[0] >= 100 * plain[0]  # in fact 500,000 times
    assert residual[0] >= 1e5 * plain[0]
    assert normalised[0] >= 1e5 * plain[0] and both[0] >= 1e5 * plain[0]
    report = at_the_start("plain", "LeCun")
    assert report.layers[0].verdict == "vanishing"
    assert not any(layer.verdict for layer in at_the_start("residual", "LeCun").layers)


def test_he_initialisation_mends_the_plain_net():
    lecun, he = (norms(at_the_start("plain", initialisation)) for initialisation in ("LeCun", "He"))
    assert he[0] >= 1000 * lecun[0]
    assert not any(layer.verdict for layer in at_the_start("plain", "He").layers)


@pytest.mark.parametrize("initialisation", ["LeCun", "He"])
@pytest.mark.parametrize("name", ["residual", "residual, batch norm"])
def test_with_residual_connections_norms_are_level(name, initialisation):
    of = norms(at_the_start(name, initialisation))
    assert of.max() / of.min() < 10


@pytest.mark.parametrize("initialisation", ["LeCun", "He"])
def test_batch_norm_lets_the_gradient_grow_by_the_derived_factor(initialisation):
    of = norms(at_the_start("batch norm", initialisation))
    # In the middle: at its end the mean over all positions makes the gradient alike at all of them, and
    # normalising takes away what is.
    growth = (of[3] / of[18]) ** (1 / 15)
    assert growth == pytest.approx(math.sqrt(math.pi / (math.pi - 1)), rel=0.05)


def test_to_batch_norm_the_variance_of_the_filters_is_all_one():
    lecun, he = (at_the_start("batch norm", initialisation) for initialisation in ("LeCun", "He"))
    assert lecun.loss == pytest.approx(he.loss, rel=1e-3)
    # Larger filters have smaller gradients, by the same factor.
    ratio = [
        a.gradient_norm / b.gradient_norm
        for a, b in zip(lecun.parameters, he.parameters, strict=True)
        if re.fullmatch(r"conv/\d+/w", a.name)
    ]
    np.testing.assert_allclose(ratio, math.sqrt(2), rtol=0.02)


def test_he_and_residual_connections_without_normalising_are_too_much():
    assert at_the_start("residual", "He").loss > 10 * at_the_start("residual", "LeCun").loss


def test_training_follows_the_flow():
    data = example.load_bundled()
    args = example.parse_arguments(["--steps", "60"])
    last = {}
    for name in ("plain", "residual, batch norm"):
        train_step, optimizer = example.make_train_step(loss_of(name), args.learning_rate)
        params = example.init_params(jax.random.key(0), example.ARCHITECTURES[name], 1.0)
        steps = itertools.count()
        run = example.run_one(data, args, loss_of(name), train_step, optimizer, params, steps.__next__)
        assert next(steps) == len(run.losses) == 60
        np.testing.assert_array_equal(norms(run.before), norms(at_the_start(name, "LeCun")))
        assert (norms(run.after) != norms(run.before)).all()
        last[name] = run.last_loss
        assert run.last_loss == run.losses[-6:].mean()
    assert last["plain"] > 2.2  # guessing is log(10) = 2.303
    assert last["residual, batch norm"] < 1


# The command line.


def test_the_command_prints_its_table_and_draws_its_picture(tmp_path):
    from matplotlib.image import imread

    plot = tmp_path / "flow.png"
    result = run_example("gradient_flow", "--steps", 2, "--batch-size", 16, "--plot", plot)
    assert result.returncode == 0, result.stderr
    number = r"[\d.]+(?:e[+-]\d+)?"
    for name in ARCHITECTURES:
        for initialisation in example.INITIALISATIONS:
            row = rf"^{name} +{initialisation} +{number} +{number} +[\d.]+x(?: +{number}){{4}}$"
            assert re.search(row, result.stdout, re.MULTILINE), result.stdout
    assert f"picture written to {plot}" in result.stdout
    assert "16/16" in result.stderr  # the progress bar, over all variants

    drawn = imread(plot)[..., :3]
    assert min(drawn.shape[:2]) > 300
    rows = np.array_split(drawn[60:], 2, axis=0)
    for before, after, loss in (np.array_split(row, 3, axis=1) for row in rows):
        for color in ("cc6677", "4477aa", "117733", "aa7722"):  # a curve for each architecture
            rgb = np.array([int(color[at : at + 2], 16) for at in (0, 2, 4)]) / 255
            for panel in (before, after, loss):
                # Two steps' losses lie on each other.
                if panel is not loss or color in ("4477aa", "aa7722"):
                    assert (np.abs(panel - rgb).max(-1) < 0.02).sum() > 20, color


def test_the_picture_holds_the_numbers():
    from matplotlib.figure import Figure

    reports = {name: at_the_start(name, "LeCun") for name in ARCHITECTURES}
    losses = np.arange(30.0) + 1
    runs = {(name, "LeCun"): example.Run(of, of, losses) for name, of in reports.items()}
    figure = Figure()
    example.draw_into(figure, runs)
    before, _, loss = figure.axes
    assert before.get_yscale() == loss.get_yscale() == "log"
    lines = {line.get_label(): line for line in before.get_lines()}
    for name, of in reports.items():
        np.testing.assert_array_equal(lines[name].get_ydata(), norms(of))
        np.testing.assert_array_equal(lines[name].get_xdata(), np.arange(1, CONVS + 1))
    smooth = {line.get_label(): line for line in loss.get_lines()}["plain"]
    np.testing.assert_allclose(smooth.get_ydata()[9:], losses[9:] - 4.5)  # the mean of ten in a row
    np.testing.assert_allclose(smooth.get_ydata()[:9], (losses[:9] + 1) / 2)  # of all until there are ten
    np.testing.assert_array_equal(smooth.get_xdata(), np.arange(1, 31))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--plot", "/no/such/folder/flow.png"], "--plot: the folder /no/such/folder does not exist"),
        (["--steps", "0"], "--steps: 0 is not greater than zero"),
        (["--plot", "flow.gif"], "--plot: the name flow.gif should end in .png, .pdf or .svg"),
    ],
)
def test_wrong_options_are_told_before_training(arguments, message):
    result = run_example("gradient_flow", *arguments, MPLBACKEND="agg")
    assert result.returncode == 2
    assert message in result.stderr
    assert "step/s" not in result.stderr


def test_a_batch_larger_than_the_data_is_refused():
    result = run_example("gradient_flow", "--batch-size", 100_000)
    assert result.returncode == 1
    assert "--batch-size 100000 is more than" in result.stderr


def test_the_pages_numbers_are_the_examples():
    page = (EXAMPLES.parent / "docs" / "gradient_flow.md").read_text()
    number = r"([\d.]+(?:e[+-]\d+)?)"
    rows = re.findall(
        rf"^\| ([^|]+) \| (LeCun|He) \| {number} \| {number} \| {number} \|$", page, re.MULTILINE
    )
    assert [row[:2] for row in rows] == [(name, how) for name in ARCHITECTURES for how in ("LeCun", "He")]
    for name, initialisation, last, first, factor in rows:
        of = norms(at_the_start(name, initialisation))
        assert float(last) == pytest.approx(of[-1], rel=0.06)  # two digits
        assert float(first) == pytest.approx(of[0], rel=0.06)
        assert float(factor) == pytest.approx((of[0] / of[-1]) ** (1 / (CONVS - 1)), abs=0.006)
