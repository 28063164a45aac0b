"""The training example: the same run on handwritten and lax gradients, its data readers, its command line."""

import gzip
import re
import struct

import jax
import numpy as np
import optax
import pytest
import train_cnn
from examples_run import run_example


def first_losses(gradients, optimizer, steps):
    data = train_cnn.load_bundled()
    train_step = train_cnn.make_train_step(train_cnn.LAYERS[gradients], optimizer)
    params = train_cnn.init_params(jax.random.key(0), data.train_images.shape[1:])
    opt_state = optimizer.init(params)
    batches = train_cnn.shuffled_batches(
        np.random.default_rng(0), data.train_images, data.train_labels, batch_size=16
    )
    losses = []
    for _, (images, labels) in zip(range(steps), batches, strict=False):
        params, opt_state, loss, _ = train_step(params, opt_state, images, labels)
        losses.append(float(loss))
    return np.array(losses)


# Gradient descent passes a gradient's rounding on as it is: 8 steps of a few float32 roundings (6e-8) each.
# Adam divides by the gradient's own size, so that a gradient which is nothing but rounding still moves its
# weight by the learning rate, and losses part sooner. So with Adam the sums are those of precision HIGHEST,
# added as lax adds them; Winograd's, below it, round twice as much.
@pytest.mark.parametrize(
    ("optimizer", "tolerance", "precision"),
    [(optax.sgd(0.02), 2e-6, None), (optax.adam(1e-2), 1e-4, "highest")],
    ids=["sgd", "adam"],
)
def test_losses_agree_with_lax_step_by_step(optimizer, tolerance, precision):
    with jax.default_matmul_precision(precision):
        handwritten = first_losses("handwritten", optimizer, steps=8)
        lax = first_losses("lax", optimizer, steps=8)
    assert len(set(lax)) == 8  # the weights did move
    np.testing.assert_allclose(handwritten, lax, rtol=tolerance, atol=0)


@pytest.mark.parametrize("gradients", ["handwritten", "lax"])
def test_gradients_are_computed_by_what_was_asked_for(gradients):
    optimizer = optax.sgd(0.02)
    images, labels = np.zeros((4, 8, 8, 1), np.float32), np.zeros(4, np.int32)
    params = train_cnn.init_params(jax.random.key(0), images.shape[1:])
    train_step = train_cnn.make_train_step(train_cnn.LAYERS[gradients], optimizer)
    text = train_step.lower(params, optimizer.init(params), images, labels).as_text()
    counts = {
        op: len(re.findall(rf"@jax_convgrad_{op}\b", text)) for op in ("fprop", "dgrad", "wgrad", "bgrad")
    }
    # The images need no gradient, so there is one dgrad less.
    kernels = {"fprop": 2, "dgrad": 1, "wgrad": 2, "bgrad": 2}
    assert counts == (kernels if gradients == "handwritten" else dict.fromkeys(kernels, 0))
    assert ("stablehlo.convolution" in text) == (gradients == "lax")


def test_evaluate_does_not_count_the_filling():
    data = train_cnn.load_bundled()
    images, labels = data.test_images[:37], data.test_labels[:37]
    layers = train_cnn.LAYERS["lax"]
    params = train_cnn.init_params(jax.random.key(0), images.shape[1:])

    logits = np.asarray(train_cnn.predict(layers, params, images), np.float64)
    losses = np.log(np.exp(logits).sum(-1)) - logits[np.arange(37), labels]
    accuracy = (logits.argmax(-1) == labels).mean()

    evaluated = train_cnn.make_evaluate(layers, batch_size=8)(params, images, labels)
    np.testing.assert_allclose(evaluated, (losses.mean(), accuracy), rtol=1e-5)


def test_shifted_images_are_the_images_moved_by_at_most_one_pixel():
    image = np.zeros((1, 5, 5, 1), np.float32)
    image[0, 2, 2] = 1
    shifted = train_cnn.shift_randomly(np.random.default_rng(0), np.repeat(image, 200, axis=0))
    assert shifted.shape == (200, 5, 5, 1)
    assert (shifted.sum(axis=(1, 2, 3)) == 1).all()
    _, rows, columns, _ = np.nonzero(shifted)
    moves = set(zip(rows.tolist(), columns.tolist(), strict=True))
    assert moves == {(row, column) for row in (1, 2, 3) for column in (1, 2, 3)}
    unmoved = ((rows == 2) & (columns == 2)).mean()
    assert 0.4 < unmoved < 0.7  # one half, and a ninth of the other


# idx files.

BYTE = 0x08


def idx(array, type_code=BYTE):
    header = struct.pack(">BBBB", 0, 0, type_code, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.tobytes()


def mnist_arrays():
    rng = np.random.default_rng(0)
    for part, count in (("train", 7), ("t10k", 3)):
        yield f"{part}-images", "idx3-ubyte", rng.integers(0, 256, (count, 6, 5), np.uint8)
        yield f"{part}-labels", "idx1-ubyte", rng.integers(0, 10, count, np.uint8)


@pytest.mark.parametrize("separator", ["-", "."])
@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "gz"])
def test_mnist_files_are_read(tmp_path, separator, compressed):
    arrays = {}
    for stem, kind, array in mnist_arrays():
        arrays[stem] = array
        name = f"{stem}{separator}{kind}"
        if compressed:
            (tmp_path / f"{name}.gz").write_bytes(gzip.compress(idx(array)))
        else:
            (tmp_path / name).write_bytes(idx(array))

    data = train_cnn.load_mnist(tmp_path)

    for images, labels, part in (
        (data.train_images, data.train_labels, "train"),
        (data.test_images, data.test_labels, "t10k"),
    ):
        assert images.dtype == np.float32 and labels.dtype == np.int32
        assert images.shape == (*arrays[f"{part}-images"].shape, 1)
        np.testing.assert_allclose(images[..., 0] * 255, arrays[f"{part}-images"], atol=1e-4)
        np.testing.assert_array_equal(labels, arrays[f"{part}-labels"])


IMAGES = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("labels-file", idx(IMAGES[0, 0]), "begins with bytes 00 00 08 01"),
        ("floats", idx(IMAGES, type_code=0x0D), "begins with bytes 00 00 0d 03"),
        ("empty", b"", r"begins with bytes \(none\)"),
        ("header-cut", idx(IMAGES)[:10], "ends inside its header: 10 bytes of 16"),
        ("data-cut", idx(IMAGES)[:-1], r"shape \(2, 3, 4\), 24 bytes of data, but holds 23"),
        ("too-long", idx(IMAGES) + b"\0", r"shape \(2, 3, 4\), 24 bytes of data, but holds 25"),
        ("cut.gz", gzip.compress(idx(IMAGES), mtime=0)[:-9], "is not a complete gzip file"),
        ("damaged.gz", gzip.compress(idx(IMAGES), mtime=0)[:-8] + b"12345678", "is not a complete gzip file"),
        ("plain.gz", idx(IMAGES), "is not a complete gzip file"),
    ],
)
def test_a_broken_idx_file_is_refused(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{name} .*{message}"):
        train_cnn.read_idx(tmp_path / name, rank=3)


def test_a_missing_mnist_file_is_named(tmp_path):
    for stem, kind, array in mnist_arrays():
        if stem != "t10k-labels":
            (tmp_path / f"{stem}-{kind}").write_bytes(idx(array))
    with pytest.raises(FileNotFoundError, match=r"t10k-labels-idx1-ubyte, .*t10k-labels\.idx1-ubyte\.gz"):
        train_cnn.load_mnist(tmp_path)


@pytest.mark.parametrize(
    ("stem", "labels", "message"),
    [
        ("train-labels", np.zeros(6, np.uint8), "7 images, .* 6 labels"),
        ("t10k-labels", np.array([0, 10, 9], np.uint8), "has a label 10"),
    ],
)
def test_labels_that_do_not_fit_are_refused(tmp_path, stem, labels, message):
    for name, kind, array in mnist_arrays():
        (tmp_path / f"{name}-{kind}").write_bytes(idx(array))
    (tmp_path / f"{stem}-idx1-ubyte").write_bytes(idx(labels))
    with pytest.raises(ValueError, match=message):
        train_cnn.load_mnist(tmp_path)


# The command line.


def test_the_example_learns_and_draws_its_curves(tmp_path):
    from matplotlib.image import imread

    plot = tmp_path / "curves.png"
    result = run_example("train_cnn", "--plot", plot)
    assert result.returncode == 0, result.stderr
    accuracy = float(re.search(r"^test accuracy: (\d\.\d+)$", result.stdout, re.MULTILINE)[1])
    assert accuracy >= 0.98
    assert len(re.findall(r"^epoch +\d+ ", result.stdout, re.MULTILINE)) == 30
    assert re.search(r"^\d+\.\d+ seconds per step", result.stdout, re.MULTILINE)

    drawn = imread(plot)[..., :3]
    assert min(drawn.shape[:2]) > 300
    for color in ((0x44, 0x77, 0xAA), (0xCC, 0x66, 0x77)):  # the train and the test curves, in both panels
        hits = np.abs(drawn - np.array(color) / 255).max(-1) < 0.02
        halves = np.array_split(hits, 2, axis=1)
        assert all(half.sum() > 100 for half in halves)


def test_the_curves_of_one_epoch():
    """Its number and plain losses on the axes, though no power of ten lies between them."""
    from matplotlib.figure import Figure

    figure = Figure()
    train_cnn.plot_history([train_cnn.Epoch(1.9, 0.4, 1.3, 0.8)], figure)
    figure.draw_without_rendering()
    loss = figure.axes[0]
    assert loss.get_xlim() == (0.5, 1.5)

    def labels(axis):
        """Within the axes."""
        low, high = axis.get_view_interval()
        ticks = [*axis.get_major_ticks(), *axis.get_minor_ticks()]
        return [t.label1.get_text() for t in ticks if low <= t.get_loc() <= high]

    assert labels(loss.xaxis) == ["1"]
    assert len(labels(loss.yaxis)) >= 2 and all(1 < float(label) < 2 for label in labels(loss.yaxis))


def test_a_batch_larger_than_the_data_is_refused():
    result = run_example("train_cnn", "--batch-size", 100_000)
    assert result.returncode != 0
    assert "--batch-size 100000" in result.stderr


def test_missing_folders_are_told_before_training(tmp_path):
    missing = tmp_path / "missing"
    for option, value in (("--data", missing), ("--plot", missing / "curves.png")):
        result = run_example("train_cnn", option, value)
        assert result.returncode == 2
        assert f"{option}: the folder {missing} does not exist" in result.stderr


def test_the_command_line_reads_mnist_files(tmp_path):
    for stem, kind, array in mnist_arrays():
        (tmp_path / f"{stem}-{kind}").write_bytes(idx(array))
    result = run_example(
        "train_cnn", "--data", tmp_path, "--epochs", 1, "--batch-size", 4, "--gradients", "lax"
    )
    assert result.returncode == 0, result.stderr
    assert "7 training and 3 test images of 6x5, lax gradients" in result.stdout
