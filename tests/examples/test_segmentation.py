"""The U-Net example: exact sizes, loss and gradients on both kinds of layer, IoU, the command line."""

import re

import jax
import numpy as np
import optax
import pytest
import segmentation
from examples_run import run_example

# The images.


@pytest.mark.parametrize("shape", [1, 2, 3])
def test_a_shape_has_its_area_and_its_center(shape):
    draw = segmentation.SHAPES[shape - 1]
    inside = draw(400, area=9000, center=np.array([180.0, 230.0]), tilt=0.15)
    assert inside.sum() == pytest.approx(9000, rel=0.01)
    y, x = np.nonzero(inside)
    np.testing.assert_allclose((y.mean() + 0.5, x.mean() + 0.5), (180, 230), atol=0.5)


def test_a_triangle_stands_on_a_side_and_a_cross_on_an_arm():
    triangle, cross = (
        shape(400, area=9000, center=np.array([200.0, 200.0]), tilt=0.0).sum(1)
        for shape in (segmentation.triangle, segmentation.cross)
    )
    rows = np.nonzero(triangle)[0]
    assert triangle[rows[0]] <= 3 and triangle.argmax() == rows[-1]
    assert triangle.max() / len(rows) == pytest.approx(2 / np.sqrt(3), rel=0.02)
    assert set(cross) == {0, 42, 128} or set(cross) == {0, 42, 127}  # its squares' side is √(9000/5) = 42.4


def test_a_ring_is_half_as_wide_inside():
    inside = segmentation.ring(400, area=9000, center=np.array([200.0, 200.0]), tilt=0.0)
    columns = np.nonzero(inside[200])[0] + 0.5 - 200
    assert abs(columns).min() == pytest.approx(abs(columns).max() / 2, abs=1)
    assert not inside[200, 200]


def test_images_are_their_labels_and_noise():
    images, labels = segmentation.draw(np.random.default_rng(0), 200, 24)
    assert images.shape == (200, 24, 24, 1) and images.dtype == np.float32
    assert labels.shape == (200, 24, 24) and labels.dtype == np.int32
    counts = np.bincount(labels.ravel(), minlength=4) / labels.size
    assert len(counts) == 4 and (counts[1:] > 0.03).all() and counts[0] > 0.6
    background = images[..., 0][labels == 0]
    assert background.mean() == pytest.approx(0, abs=0.01)
    assert background.std() == pytest.approx(segmentation.NOISE, rel=0.02)
    for shape in (1, 2, 3):
        assert images[..., 0][labels == shape].mean() == pytest.approx(0.7, abs=0.05)


def test_images_are_the_seeds():
    first, again, other = (segmentation.draw(np.random.default_rng(seed), 3, 16)[0] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).all()


# The network.


@pytest.mark.parametrize("size", [1, 2, 5, 8, 9])
def test_upsampling_gives_exactly_the_size_that_was_pooled(size):
    rng = np.random.default_rng(size)
    full = rng.normal(size=(2, size, size + 3, 3))
    pooled = segmentation.LAYERS["handwritten"].max_pool(full)
    assert pooled.shape[1:3] == (-(-size // 2), -(-(size + 3) // 2))
    w = rng.normal(size=(2, 2, 3, 4))
    x = segmentation.upsample(segmentation.LAYERS["handwritten"], pooled, w, full.shape[1:3])
    assert x.shape == (2, size, size + 3, 4)

    # With 2x2 taps at stride 2 every output has one input, o // 2, and one tap: from o·1 + r - 1 = 2i, the
    # relation of an input dilated by 2, r = 1 - o % 2.
    expected = np.zeros(x.shape)
    for row in range(x.shape[1]):
        for column in range(x.shape[2]):
            tap = w[1 - row % 2, 1 - column % 2]
            expected[:, row, column] = np.asarray(pooled)[:, row // 2, column // 2] @ tap
    np.testing.assert_allclose(x, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("size", [16, 19])
def test_loss_and_gradients_are_lax_s(size):
    images, labels = segmentation.draw(np.random.default_rng(0), 2, size)
    with jax.enable_x64(True):
        params = jax.tree.map(lambda p: p.astype(np.float64), segmentation.init_params(jax.random.key(0)))

        def loss_and_gradients(gradients):
            loss_fn = segmentation.make_loss(segmentation.LAYERS[gradients])
            return jax.jit(jax.value_and_grad(loss_fn))(params, images.astype(np.float64), labels)

        loss, grads = loss_and_gradients("handwritten")
        expected_loss, expected = loss_and_gradients("lax")
    assert loss == pytest.approx(float(expected_loss), rel=1e-12)
    for (path, grad), other in zip(
        jax.tree_util.tree_leaves_with_path(grads), jax.tree.leaves(expected), strict=True
    ):
        assert np.abs(other).max() > 0
        np.testing.assert_allclose(grad, other, rtol=0, atol=1e-11 * np.abs(other).max(), err_msg=str(path))


@pytest.mark.parametrize("gradients", ["handwritten", "lax"])
def test_gradients_are_computed_by_what_was_asked_for(gradients):
    optimizer = optax.sgd(0.1)
    images, labels = np.zeros((1, 16, 16, 1), np.float32), np.zeros((1, 16, 16), np.int32)
    params = segmentation.init_params(jax.random.key(0))
    step = segmentation.make_train_step(segmentation.LAYERS[gradients], optimizer)
    text = step.lower(params, optimizer.init(params), images, labels).as_text()
    ops = ("fprop", "dgrad", "wgrad", "bgrad", "max_pool_argmax", "max_pool_grad")
    counts = {op: len(re.findall(rf"@jax_convgrad_{op}\b", text)) for op in ops}
    # 8 convolutions of the encoder, 6 of the decoder, 3 transposed ones and the last. The images need no
    # gradient, which is one dgrad less; the transposed ones add their biases outside.
    kernels = dict(fprop=18, dgrad=17, wgrad=18, bgrad=15, max_pool_argmax=3, max_pool_grad=3)
    assert counts == (kernels if gradients == "handwritten" else dict.fromkeys(ops, 0))
    for op in ("stablehlo.convolution", "stablehlo.select_and_scatter", "stablehlo.reduce_window"):
        assert (op in text) == (gradients == "lax"), op


# The figure of merit.


def test_intersection_over_union_is_scikit_learn_s():
    from sklearn.metrics import jaccard_score

    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, (3, 7, 5))
    predicted = np.where(rng.random(labels.shape) < 0.6, labels, rng.integers(0, 4, labels.shape))
    expected = jaccard_score(labels.ravel(), predicted.ravel(), average=None, labels=range(4))
    np.testing.assert_allclose(segmentation.intersection_over_union(predicted, labels), expected, rtol=1e-12)


def test_intersection_over_union_of_a_class_that_is_nowhere_is_nan():
    labels = np.array([[0, 0, 1, 1]])
    predicted = np.array([[0, 1, 1, 1]])
    ious = segmentation.intersection_over_union(predicted, labels)
    np.testing.assert_allclose(ious, [1 / 2, 2 / 3, np.nan, np.nan])


# The command line.


def test_the_example_learns_and_draws_its_answers(tmp_path):
    from matplotlib.image import imread

    plot = tmp_path / "segmentation.png"
    result = run_example("segmentation", "--steps", 300, "--size", 25, "--plot", plot)
    assert result.returncode == 0, result.stderr
    assert "images of 25x25, 8 new ones per step, handwritten gradients on cpu" in result.stdout
    first, last = map(
        float, re.search(r"^loss: (\S+) in the first step, (\S+) in", result.stdout, re.MULTILINE).groups()
    )
    assert last < first / 3
    names = re.findall(r"^  (\w+) +(\d\.\d+)$", result.stdout, re.MULTILINE)
    assert [name for name, _ in names] == list(segmentation.CLASSES)
    mean = float(re.search(r"^mean IoU: (\d\.\d+)$", result.stdout, re.MULTILINE)[1])
    assert mean == pytest.approx(np.mean([float(iou) for _, iou in names]), abs=1e-4)
    assert float(names[0][1]) > 0.9 and mean > 0.35

    drawn = imread(plot)[..., :3]
    for color in ((0x44, 0x77, 0xAA), (0xCC, 0xBB, 0x44), (0xCC, 0x66, 0x77)):
        hits = np.abs(drawn - np.array(color) / 255).max(-1) < 0.02
        assert hits[drawn.shape[0] // 3 : 2 * drawn.shape[0] // 3].sum() > 100  # in the row of truths


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--size", "8"), "--size must be at least 16 pixels to tell shapes apart, but it is 8"),
        (("--steps", "0"), "argument --steps: 0 is not greater than zero"),
        (("--batch-size", "x"), "argument --batch-size: invalid int value: 'x'"),
        (("--gradients", "torch"), "invalid choice: 'torch'"),
    ],
)
def test_wrong_arguments_are_refused(capsys, arguments, message):
    with pytest.raises(SystemExit) as refused:
        segmentation.parse_arguments(arguments)
    assert refused.value.code == 2
    assert message in capsys.readouterr().err
