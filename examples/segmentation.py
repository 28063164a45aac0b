"""Trains a small U-Net to classify each pixel as ring, triangle, cross or background.

python examples/segmentation.py                               # generates its images, no download
python examples/segmentation.py --plot segmentation.png       # and draws images with the results
python examples/segmentation.py --gradients lax               # the same run on XLA's convolution, to compare

The encoder consists of conv, relu and max_pool; the decoder doubles the image's sides by conv_transpose until
it has exactly the original size. The handwritten kernels compute all gradients.
"""

import argparse
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from tqdm import tqdm

import jax_convgrad

CHANNELS = (8, 16, 32, 32)  # at full size, at half, a quarter and an eighth of the side
TEST_IMAGES = 128


# The images: rings, triangles and crosses on noise, and the class of every pixel.
# An image is [size, size, 1] float32, its labels [size, size] int32: an index into CLASSES.

CLASSES = ("background", "ring", "triangle", "cross")

NOISE = 0.2  # standard deviation; shapes are 0.4 to 1 brighter than the background
AREAS = (0.05, 0.15)  # the smallest and the largest share of the image that a shape covers
TILT = 0.2  # the largest rotation of a triangle or cross, in radians
MIN_SIZE = 16  # pixels; at this size the smallest cross has arms 1.5 pixels wide


def draw(rng: np.random.Generator, count: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws `count` (images, labels) with one to three shapes each; later shapes cover earlier ones."""
    images = np.zeros((count, size, size), np.float32)
    labels = np.zeros((count, size, size), np.int32)
    for image, label in zip(images, labels, strict=True):
        for _ in range(rng.integers(1, 4)):
            shape = rng.integers(1, len(CLASSES))
            area = rng.uniform(*AREAS) * size**2
            center = rng.uniform(0.15, 0.85, 2) * size
            inside = SHAPES[shape - 1](size, area, center, rng.uniform(-TILT, TILT))
            image[inside] = rng.uniform(0.4, 1.0)
            label[inside] = shape
    images += NOISE * rng.standard_normal(images.shape, np.float32)
    return images[..., None], labels


# The shapes: which pixels [size, size] have their midpoint inside. `center` is (y, x). The area, in pixels,
# sets the size, so that no class of shape is larger than another.


def ring(size: int, area: float, center: np.ndarray, tilt: float) -> np.ndarray:
    """A disc without the inner half of its radius."""
    squares = (_turned(size, center, tilt) ** 2).sum(0)
    square_of_radius = area / (np.pi * (1 - 1 / 4))
    return (squares <= square_of_radius) & (squares > square_of_radius / 4)


def triangle(size: int, area: float, center: np.ndarray, tilt: float) -> np.ndarray:
    """An equilateral triangle that stands on a side."""
    x, y = _turned(size, center, tilt)
    # The intersection of three half planes at the distance r from the centre, with the area 3√3 r².
    distance = np.sqrt(area / np.sqrt(27))
    outward = np.pi / 2 + 2 * np.pi / 3 * np.arange(3)  # the first points down, as y does
    return np.all([np.cos(a) * x + np.sin(a) * y <= distance for a in outward], axis=0)


def cross(size: int, area: float, center: np.ndarray, tilt: float) -> np.ndarray:
    """Five equal squares: one in the middle and one on each of its sides."""
    x, y = np.abs(_turned(size, center, tilt))
    half = np.sqrt(area / 5) / 2
    return ((x <= half) & (y <= 3 * half)) | ((y <= half) & (x <= 3 * half))


def _turned(size: int, center: np.ndarray, tilt: float) -> np.ndarray:
    """The pixels' (x, y) relative to the centre, with the axes rotated by this angle in radians."""
    y, x = np.mgrid[:size, :size] + 0.5 - center[:, None, None]
    return np.stack([np.cos(tilt) * x + np.sin(tilt) * y, np.cos(tilt) * y - np.sin(tilt) * x])


SHAPES = (ring, triangle, cross)  # in the order of CLASSES, without the background


# The layers, twice: on jax_convgrad and on XLA. Nothing else in this file knows the difference.


class Layers(NamedTuple):
    """Activations are [N, height, width, channels], filters [taps, taps, in channels, out channels]."""

    conv: Callable  # (x, w, b, activation), of x's size; the activation is None or "relu"
    max_pool: Callable  # (x): disjoint windows of 2x2; if a side is odd the last one is cut off
    conv_transpose: Callable  # (x, w, padding), at stride 2


DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def _lax_conv(x, w, b, activation):
    y = jax.lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=DIMENSIONS) + b
    return jax.nn.relu(y) if activation == "relu" else y


def _lax_max_pool(x):
    window = (1, 2, 2, 1)
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, window, "SAME")


LAYERS = {
    "handwritten": Layers(
        conv=lambda x, w, b, activation: jax_convgrad.conv(x, w, b, padding="SAME", activation=activation),
        max_pool=lambda x: jax_convgrad.max_pool(x, (2, 2), strides=(2, 2), padding="SAME"),
        conv_transpose=lambda x, w, padding: jax_convgrad.conv_transpose(x, w, (2, 2), padding),
    ),
    "lax": Layers(
        conv=_lax_conv,
        max_pool=_lax_max_pool,
        conv_transpose=lambda x, w, padding: jax.lax.conv_transpose(x, w, (2, 2), padding),
    ),
}


# The network.


def upsample(layers: Layers, x: jax.Array, w: jax.Array, shape: tuple[int, int]) -> jax.Array:
    """Upsamples x, which was pooled from images of `shape`, to exactly that shape.

    conv_transpose puts stride - 1 = 1 zero between the m pixels of a side and convolves with R = 2 taps, so
    the result has (2m - 1) + low + high - (R - 1) pixels: 2m with one zero of padding at either end. SAME
    pooling also reduces a side of 2m - 1 to m. Such a side has no padding at the high end, so that no pixel
    is computed only to be cropped.
    """
    padding = [(1, 1 - size % 2) for size in shape]
    return layers.conv_transpose(x, w, padding)


def init_params(key: jax.Array) -> dict[str, tuple[jax.Array, ...]]:
    """(filter, bias) by the layer's name, with He's initialisation: normal with variance 2 / fan_in."""
    params = {}

    def add(name, taps, inputs, outputs, fan_in):
        shape = (taps, taps, inputs, outputs)
        w = jax.random.normal(jax.random.fold_in(key, len(params)), shape, jnp.float32)
        params[name] = (w * np.sqrt(2 / fan_in, dtype=np.float32), jnp.zeros(outputs, jnp.float32))

    def add_two(name, inputs, outputs):
        add(f"{name}.1", 3, inputs, outputs, 9 * inputs)
        add(f"{name}.2", 3, outputs, outputs, 9 * outputs)

    inputs = 1
    for level, channels in enumerate(CHANNELS):
        add_two(f"down{level}", inputs, channels)
        inputs = channels
    for level in reversed(range(len(CHANNELS) - 1)):
        # At stride 2 an output meets only one of the 2x2 taps.
        add(f"double{level}", 2, inputs, CHANNELS[level], inputs)
        inputs = CHANNELS[level]
        add_two(f"up{level}", 2 * inputs, inputs)
    add("classes", 1, inputs, len(CLASSES), inputs)
    return params


def predict(layers: Layers, params, images: jax.Array) -> jax.Array:
    """The logits [N, height, width, classes] of images [N, height, width, 1], of any height and width."""

    def two_convs(name, x):
        for part in (1, 2):
            x = layers.conv(x, *params[f"{name}.{part}"], "relu")
        return x

    x, skips = images, []
    for level in range(len(CHANNELS) - 1):
        skips.append(two_convs(f"down{level}", x))
        x = layers.max_pool(skips[-1])
    x = two_convs(f"down{len(CHANNELS) - 1}", x)

    for level in reversed(range(len(CHANNELS) - 1)):
        # The encoder's features of the same size restore the exact edges, which pooling has lost.
        skip = skips[level]
        w, b = params[f"double{level}"]
        x = upsample(layers, x, w, skip.shape[1:3]) + b
        x = two_convs(f"up{level}", jnp.concatenate([skip, x], axis=-1))
    return layers.conv(x, *params["classes"], None)


# Training and testing.


def make_loss(layers: Layers):
    """A function (params, images, labels) -> the mean cross-entropy over all pixels."""

    def loss_fn(params, images, labels):
        logits = predict(layers, params, images)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    return loss_fn


def make_train_step(layers: Layers, optimizer: optax.GradientTransformation):
    """One jitted step: (params, opt_state, images, labels) -> (params, opt_state, loss)."""
    loss_fn = make_loss(layers)

    @jax.jit
    def train_step(params, opt_state, images, labels):
        loss, grads = jax.value_and_grad(loss_fn)(params, images, labels)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, loss

    return train_step


def intersection_over_union(predicted: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Intersection over union of each class' pixels in labels and prediction; nan if the union is empty."""
    pairs = np.bincount(len(CLASSES) * labels.ravel() + predicted.ravel(), minlength=len(CLASSES) ** 2)
    confusion = pairs.reshape(len(CLASSES), len(CLASSES))  # [class by the labels, class predicted]
    both = np.diag(confusion)
    either = confusion.sum(0) + confusion.sum(1) - both
    return np.divide(both, either, out=np.full(len(CLASSES), np.nan), where=either > 0)


class Result(NamedTuple):
    losses: np.ndarray  # of each step
    step_seconds: np.ndarray  # the first includes the compilation
    images: np.ndarray  # held out
    labels: np.ndarray
    predicted: np.ndarray


def train(layers: Layers, args: argparse.Namespace) -> Result:
    """Trains for args.steps with new images in each step, and predicts the held-out images."""
    optimizer = optax.adam(optax.cosine_decay_schedule(args.learning_rate, args.steps))
    train_step = make_train_step(layers, optimizer)
    params = init_params(jax.random.key(args.seed))
    opt_state = optimizer.init(params)
    rng = np.random.default_rng(args.seed)
    losses, step_seconds = [], []
    with tqdm(range(args.steps), unit="step", file=sys.stderr) as progress:
        for _ in progress:
            images, labels = draw(rng, args.batch_size, args.size)
            start = time.perf_counter()
            params, opt_state, loss = train_step(params, opt_state, images, labels)
            losses.append(float(loss))  # float() waits until the step ends
            step_seconds.append(time.perf_counter() - start)
            progress.set_postfix(loss=f"{losses[-1]:.4f}", refresh=False)

    # Their fixed seed is not the seed of any run, so every run is tested on the same unseen images.
    images, labels = draw(np.random.default_rng([2015, 5, 18]), TEST_IMAGES, args.size)
    classify = jax.jit(lambda images: predict(layers, params, images).argmax(-1))
    predicted = np.concatenate([classify(part) for part in np.split(images, 8)])
    return Result(np.array(losses), np.array(step_seconds), images, labels, predicted)


def plot(result: Result, figure, columns: int = 6) -> None:
    """Draws three rows: held-out images, the truth, the network's prediction."""
    colors = ListedColormap(["#eeeeee", "#4477aa", "#ccbb44", "#cc6677"])
    truth_and_prediction = dict(cmap=colors, vmin=0, vmax=len(CLASSES) - 1)
    rows = [
        ("image", result.images[:columns, ..., 0], dict(cmap="gray")),
        ("truth", result.labels[:columns], truth_and_prediction),
        ("prediction", result.predicted[:columns], truth_and_prediction),
    ]
    for row, (name, pictures, options) in zip(figure.subplots(3, columns), rows, strict=True):
        row[0].set_ylabel(name)
        for axes, picture in zip(row, pictures, strict=True):
            axes.imshow(picture, interpolation="nearest", **options)
            axes.set(xticks=[], yticks=[])
    patches = [
        Patch(facecolor=colors(index), edgecolor="gray", label=name) for index, name in enumerate(CLASSES)
    ]
    figure.legend(handles=patches, loc="outside lower center", ncols=len(CLASSES), frameon=False)


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
    option("--steps", type=positive(int), default=1600, help="default: %(default)s")
    option("--batch-size", type=positive(int), default=8, help="default: %(default)s")
    option(
        "--size", type=positive(int), default=40, help="pixels per side, may be odd (default: %(default)s)"
    )
    option("--learning-rate", type=positive(float), default=3e-3, help="initial value (default: %(default)s)")
    option("--seed", type=int, default=0, help="for all random numbers (default: %(default)s)")
    option(
        "--plot",
        type=picture,
        metavar="FILE.png",
        help="write a picture of held-out images, truth and prediction to FILE.png",
    )
    args = parser.parse_args(argv)
    if args.size < MIN_SIZE:
        parser.error(f"--size must be at least {MIN_SIZE} pixels to tell shapes apart, but it is {args.size}")
    return args


def main() -> None:
    args = parse_arguments()
    print(
        f"images of {args.size}x{args.size}, {args.batch_size} new ones per step, "
        f"{args.gradients} gradients on {jax.devices()[0].platform}"
    )
    result = train(LAYERS[args.gradients], args)
    print(f"loss: {result.losses[0]:.4f} in the first step, {result.losses[-20:].mean():.4f} in the last 20")
    print(f"{np.median(result.step_seconds):.4f} seconds per step of {args.batch_size} images (median)")
    print(f"intersection over union on {TEST_IMAGES} held-out images:")
    ious = intersection_over_union(result.predicted, result.labels)
    for name, iou in zip(CLASSES, ious, strict=True):
        print(f"  {name:10}  {iou:.4f}")
    print(f"mean IoU: {np.nanmean(ious):.4f}")
    if args.plot:
        figure = Figure(figsize=(8, 4.6), dpi=100, layout="constrained")
        plot(result, figure)
        figure.savefig(args.plot)
        print(f"picture written to {args.plot}")


if __name__ == "__main__":
    main()
