"""Trains a small convolutional network on handwritten digits; handwritten kernels compute its gradients.

python examples/train_cnn.py                      # scikit-learn's digits, no download
python examples/train_cnn.py --data ~/mnist       # MNIST's four files
python examples/train_cnn.py --gradients lax      # the same run on XLA's convolution, to compare
"""

import argparse
import gzip
import math
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator, PercentFormatter, StrMethodFormatter
from tqdm import tqdm

import jax_convgrad

CLASSES = 10
CHANNELS = (16, 32)


# The digits.


class Digits(NamedTuple):
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray


def load_bundled() -> Digits:
    """Returns scikit-learn's digits, with a fifth of each class held out for the test.

    The split has its own fixed seed, so every run is tested on the same images.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    images = (images / 16.0).astype(np.float32).reshape(-1, 8, 8, 1)  # pixels are 0..16
    train_images, test_images, train_labels, test_labels = train_test_split(
        images, labels.astype(np.int32), test_size=0.2, stratify=labels, random_state=0
    )
    return Digits(train_images, train_labels, test_images, test_labels)


def load_mnist(directory: Path) -> Digits:
    """MNIST's four idx files in `directory`, each plain or .gz."""
    return Digits(
        *_read_pair(directory, "train"),
        *_read_pair(directory, "t10k"),
    )


def _read_pair(directory: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    images_path = _find(directory, f"{part}-images", "idx3-ubyte")
    labels_path = _find(directory, f"{part}-labels", "idx1-ubyte")
    images, labels = read_idx(images_path, rank=3), read_idx(labels_path, rank=1)
    if len(images) != len(labels):
        raise ValueError(f"{images_path} has {len(images)} images, {labels_path} has {len(labels)} labels")
    if len(labels) and labels.max() > 9:
        raise ValueError(f"{labels_path} has a label {labels.max()}, but digits end at 9")
    return images[..., None].astype(np.float32) / 255.0, labels.astype(np.int32)


def _find(directory: Path, stem: str, kind: str) -> Path:
    # Both spellings exist: train-images-idx3-ubyte and train-images.idx3-ubyte.
    names = [f"{stem}{separator}{kind}{suffix}" for separator in "-." for suffix in ("", ".gz")]
    for name in names:
        if (directory / name).is_file():
            return directory / name
    raise FileNotFoundError(f"{directory} has none of {', '.join(names)}")


def read_idx(path: Path, rank: int) -> np.ndarray:
    """One idx file of unsigned bytes: two zero bytes, the type's code, the rank, the sizes, then the data.

    Numbers in the header are big-endian. Raises ValueError unless the file has `rank` axes of unsigned bytes.
    """
    unsigned_byte = 0x08
    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
        try:
            content = file.read()
        except (EOFError, gzip.BadGzipFile) as error:
            raise ValueError(f"{path} is not a complete gzip file: {error}") from error

    expected_magic = bytes([0, 0, unsigned_byte, rank])
    if content[:4] != expected_magic:
        raise ValueError(
            f"{path} begins with bytes {content[:4].hex(' ') or '(none)'}; "
            f"an idx file of unsigned bytes with {rank} axes begins with {expected_magic.hex(' ')}"
        )
    header_bytes = 4 + 4 * rank
    if len(content) < header_bytes:
        raise ValueError(f"{path} ends inside its header: {len(content)} bytes of {header_bytes}")
    shape = tuple(int(size) for size in np.frombuffer(content, ">u4", count=rank, offset=4))
    if len(content) != header_bytes + math.prod(shape):
        raise ValueError(
            f"{path} announces shape {shape}, {math.prod(shape)} bytes of data, "
            f"but holds {len(content) - header_bytes}"
        )
    return np.frombuffer(content, np.uint8, offset=header_bytes).reshape(shape)


# The layers, twice: on jax_convgrad and on XLA. Nothing else in this file knows the difference.


class Layers(NamedTuple):
    """Activations are [N, height, width, channels], filters [3, 3, in channels, out channels]."""

    conv_relu: Callable[[jax.Array, jax.Array, jax.Array], jax.Array]  # relu(conv(x, w) + b)
    max_pool: Callable[[jax.Array], jax.Array]  # disjoint windows of 2x2


def _lax_conv_relu(x, w, b):
    y = jax.lax.conv_general_dilated(
        x, w, window_strides=(1, 1), padding="SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return jax.nn.relu(y + b)


def _lax_max_pool(x):
    window = (1, 2, 2, 1)
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, window, "VALID")


LAYERS = {
    "handwritten": Layers(
        conv_relu=lambda x, w, b: jax_convgrad.conv(x, w, b, padding="SAME", activation="relu"),
        max_pool=lambda x: jax_convgrad.max_pool(x, (2, 2), strides=(2, 2)),
    ),
    "lax": Layers(conv_relu=_lax_conv_relu, max_pool=_lax_max_pool),
}


# The network: conv, relu, pool, conv, relu, pool, linear.


def init_params(key: jax.Array, image_shape: tuple[int, int, int]) -> dict[str, jax.Array]:
    """He initialisation: normal with variance 2 / fan_in, which keeps the signal's size through relu."""

    def he_normal(key, shape):
        fan_in = np.prod(shape[:-1])
        return jax.random.normal(key, shape, jnp.float32) * np.sqrt(2 / fan_in, dtype=np.float32)

    height, width, image_channels = image_shape
    features = (height // 4) * (width // 4) * CHANNELS[1]  # two pools halve each side, rounding down
    keys = jax.random.split(key, 3)
    return {
        "w1": he_normal(keys[0], (3, 3, image_channels, CHANNELS[0])),
        "b1": jnp.zeros(CHANNELS[0], jnp.float32),
        "w2": he_normal(keys[1], (3, 3, CHANNELS[0], CHANNELS[1])),
        "b2": jnp.zeros(CHANNELS[1], jnp.float32),
        "w3": he_normal(keys[2], (features, CLASSES)),
        "b3": jnp.zeros(CLASSES, jnp.float32),
    }


def predict(layers: Layers, params, images):
    """The logits [N, 10] of images [N, height, width, 1]."""
    x = layers.max_pool(layers.conv_relu(images, params["w1"], params["b1"]))
    x = layers.max_pool(layers.conv_relu(x, params["w2"], params["b2"]))
    return x.reshape(len(x), -1) @ params["w3"] + params["b3"]


# Training and testing.


def make_train_step(layers: Layers, optimizer: optax.GradientTransformation):
    """One jitted step: (params, opt_state, images, labels) -> (params, opt_state, loss, accuracy)."""

    def loss_and_accuracy(params, images, labels):
        logits = predict(layers, params, images)
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
        return loss, (logits.argmax(-1) == labels).mean()

    @jax.jit
    def train_step(params, opt_state, images, labels):
        # Here the handwritten kernels compute the gradient of every convolution, bias, relu and pool.
        (loss, accuracy), grads = jax.value_and_grad(loss_and_accuracy, has_aux=True)(params, images, labels)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, loss, accuracy

    return train_step


def make_evaluate(layers: Layers, batch_size: int):
    """A function (params, images, labels) -> (mean loss, accuracy) over any number of images."""

    @jax.jit
    def totals(params, images, labels):
        logits = predict(layers, params, images)
        real = labels >= 0
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.where(real, labels, 0))
        return jnp.where(real, losses, 0).sum(), (logits.argmax(-1) == labels).sum()

    def evaluate(params, images, labels):
        # The last batch is filled up with images labelled -1, which are ignored, so that one compiled
        # function serves all batches.
        fill = -len(images) % batch_size
        images = np.pad(images, ((0, fill), (0, 0), (0, 0), (0, 0)))
        padded_labels = np.pad(labels, (0, fill), constant_values=-1)
        sums = [
            totals(params, images[at : at + batch_size], padded_labels[at : at + batch_size])
            for at in range(0, len(images), batch_size)
        ]
        loss, correct = np.sum(sums, axis=0)
        return float(loss) / len(labels), float(correct) / len(labels)

    return evaluate


def shuffled_batches(
    rng: np.random.Generator, images: np.ndarray, labels: np.ndarray, batch_size: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields an epoch's batches in a new order, without the images left over after the last whole batch."""
    order = rng.permutation(len(images))
    for at in range(0, len(images) - batch_size + 1, batch_size):
        chosen = order[at : at + batch_size]
        yield shift_randomly(rng, images[chosen]), labels[chosen]


def shift_randomly(rng: np.random.Generator, images: np.ndarray) -> np.ndarray:
    """Shifts half of the images by at most a pixel along each axis, so that digits vary between epochs."""
    _, height, width, _ = images.shape
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    moved = rng.integers(0, 2, size=len(images))
    tops, lefts = 1 + moved * rng.integers(-1, 2, size=(2, len(images)))
    return np.stack(
        [
            image[top : top + height, left : left + width]
            for image, top, left in zip(padded, tops, lefts, strict=True)
        ]
    )


class Epoch(NamedTuple):
    train_loss: float
    train_accuracy: float
    test_loss: float
    test_accuracy: float


def train(layers: Layers, digits: Digits, args: argparse.Namespace) -> tuple[list[Epoch], float]:
    """Trains for args.epochs; returns each epoch's figures and the median time of a step in seconds."""
    steps_per_epoch = len(digits.train_images) // args.batch_size
    schedule = optax.cosine_decay_schedule(args.learning_rate, args.epochs * steps_per_epoch)
    optimizer = optax.adam(schedule)
    train_step = make_train_step(layers, optimizer)
    evaluate = make_evaluate(layers, args.batch_size)

    params = init_params(jax.random.key(args.seed), digits.train_images.shape[1:])
    opt_state = optimizer.init(params)
    rng = np.random.default_rng(args.seed)
    history, step_seconds = [], []

    with tqdm(total=args.epochs * steps_per_epoch, unit="step", file=sys.stderr) as progress:
        for epoch in range(1, args.epochs + 1):
            figures = []
            for images, labels in shuffled_batches(
                rng, digits.train_images, digits.train_labels, args.batch_size
            ):
                start = time.perf_counter()
                params, opt_state, loss, accuracy = train_step(params, opt_state, images, labels)
                figures.append((float(loss), float(accuracy)))  # float() waits until the step ends
                step_seconds.append(time.perf_counter() - start)
                progress.update()
                progress.set_postfix(loss=f"{figures[-1][0]:.4f}", refresh=False)
            train_loss, train_accuracy = np.mean(figures, axis=0)
            test_loss, test_accuracy = evaluate(params, digits.test_images, digits.test_labels)
            history.append(Epoch(train_loss, train_accuracy, test_loss, test_accuracy))
            progress.write(
                f"epoch {epoch:3d}   train: loss {train_loss:.4f}, accuracy {train_accuracy:.4f}"
                f"   test: loss {test_loss:.4f}, accuracy {test_accuracy:.4f}"
            )
    return history, float(np.median(step_seconds))  # the mean would count the first step, which compiles


# The curves.


BLUE = dict(color="#4477aa", linestyle="-", marker="o", markersize=3)
RED = dict(color="#cc6677", linestyle="--", marker="s", markersize=3)


def plot_history(history, figure) -> None:
    """Draws one run's loss and accuracy on the training and the test images."""
    loss, accuracy = figure.subplots(1, 2)
    for part, style in (("train", BLUE), ("test", RED)):
        label = {"train": "train (during the epoch)", "test": "test (after the epoch)"}[part]
        _plot(loss, history, f"{part}_loss", label, style)
        _plot(accuracy, history, f"{part}_accuracy", label, style)
    loss.set_title("Loss")
    accuracy.set_title(f"Accuracy (test, at the end: {history[-1].test_accuracy:.2%})")
    _finish(loss, accuracy)


def _plot(axes, history, figure_of_epoch, label, style):
    values = [getattr(epoch, figure_of_epoch) for epoch in history]
    axes.plot(range(1, len(history) + 1), values, label=label, **style)


def _finish(loss, accuracy):
    loss.set(ylabel="mean cross-entropy", yscale="log")
    _ticks_within_a_decade(loss.yaxis)
    accuracy.set_ylabel("correct digits")
    accuracy.yaxis.set_major_formatter(PercentFormatter(1.0))
    for axes in (loss, accuracy):
        axes.set_xlabel("epoch")
        axes.set_xlim(0.5, max(len(line.get_xdata()) for line in axes.lines) + 0.5)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)


def _ticks_within_a_decade(axis):
    """Labels the ticks with plain numbers, since a short log axis may contain no power of ten."""
    low, high = axis.get_view_interval()
    if high < 10 * low:
        axis.set_major_locator(MaxNLocator(5))
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.set_minor_locator(NullLocator())
        axis.axes.set_ylim(low, high)


# The command line.


def positive(kind: type[int] | type[float]) -> Callable[[str], int | float]:
    """An argparse type: a number of this kind, greater than zero and finite."""

    def parse(text: str) -> int | float:
        value = kind(text)
        if not 0 < value < math.inf:
            raise argparse.ArgumentTypeError(f"{text} is not greater than zero and finite")
        return value

    parse.__name__ = kind.__name__
    return parse


def picture(text: str) -> Path:
    """An argparse type: the path of a picture that can be written, checked before the work begins."""
    path = Path(text)
    if path.suffix.lower() not in (".png", ".pdf", ".svg"):
        raise argparse.ArgumentTypeError(f"the name {text} should end in .png, .pdf or .svg")
    if not path.absolute().parent.is_dir():
        raise argparse.ArgumentTypeError(f"the folder {path.absolute().parent} does not exist")
    return path


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    option = parser.add_argument
    option("--gradients", choices=LAYERS, default="handwritten", help="which kernels (default: %(default)s)")
    option("--data", type=Path, metavar="DIR", help="read MNIST's four idx files, plain or .gz, from DIR")
    option("--epochs", type=positive(int), default=30, help="default: %(default)s")
    option("--batch-size", type=positive(int), default=32, help="default: %(default)s")
    option("--learning-rate", type=positive(float), default=1e-2, help="initial value (default: %(default)s)")
    option("--seed", type=int, default=0, help="for all random numbers (default: %(default)s)")
    option("--plot", type=picture, metavar="FILE.png", help="write the loss and accuracy curves to FILE.png")
    args = parser.parse_args(argv)
    if args.data and not args.data.is_dir():
        parser.error(f"--data: the folder {args.data} does not exist")
    return args


def main() -> None:
    args = parse_arguments()
    digits = load_mnist(args.data) if args.data else load_bundled()
    if args.batch_size > len(digits.train_images):
        sys.exit(
            f"--batch-size {args.batch_size} is more than the {len(digits.train_images)} training images"
        )
    print(
        f"{len(digits.train_images)} training and {len(digits.test_images)} test images of "
        f"{digits.train_images.shape[1]}x{digits.train_images.shape[2]}, "
        f"{args.gradients} gradients on {jax.devices()[0].platform}"
    )
    history, seconds_per_step = train(LAYERS[args.gradients], digits, args)
    print(f"{seconds_per_step:.5f} seconds per step of {args.batch_size} images")
    print(f"test accuracy: {history[-1].test_accuracy:.4f}")
    if args.plot:
        figure = Figure(figsize=(9, 3.6), dpi=150, layout="constrained")
        plot_history(history, figure)
        figure.savefig(args.plot)
        print(f"picture written to {args.plot}")


if __name__ == "__main__":
    main()
