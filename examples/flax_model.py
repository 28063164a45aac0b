"""Puts a flax.nnx model on the handwritten kernels by one line, and compares each step with XLA's.

python examples/flax_model.py                   # nnx.Conv gets our convolution as an argument
python examples/flax_model.py --by replace      # the model does not change: replace_convolutions(loss_fn)
python examples/flax_model.py --by install      # the model does not change: install(), for the whole process

Both models start with the same parameters and get the same batches, so their losses must agree in each step.
"""

import argparse
import math
import sys
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import numpy as np
import optax
from tqdm import tqdm

import jax_convgrad

try:
    from flax import nnx
except ModuleNotFoundError as error:
    sys.exit(f"{error}: this example needs flax: pip install '.[examples]'")


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


# The model. nnx.Conv takes the convolution as an argument.


class CNN(nnx.Module):
    def __init__(self, rngs: nnx.Rngs, conv: Callable = jax.lax.conv_general_dilated):
        self.conv1 = nnx.Conv(1, 16, (3, 3), conv_general_dilated=conv, rngs=rngs)
        self.conv2 = nnx.Conv(16, 32, (3, 3), conv_general_dilated=conv, rngs=rngs)
        self.linear = nnx.Linear(2 * 2 * 32, 10, rngs=rngs)

    def __call__(self, x):
        x = nnx.max_pool(nnx.relu(self.conv1(x)), (2, 2), strides=(2, 2))
        x = nnx.max_pool(nnx.relu(self.conv2(x)), (2, 2), strides=(2, 2))
        return self.linear(x.reshape(len(x), -1))


def loss_fn(model, images, labels):
    return optax.softmax_cross_entropy_with_integer_labels(model(images), labels).mean()


def make_model(seed: int, by: str):
    """The model and its loss function, on the kernels for "argument" and "replace", otherwise unchanged."""
    rngs = nnx.Rngs(seed)
    if by == "argument":
        return CNN(rngs, conv=jax_convgrad.conv_general_dilated), loss_fn  # the one line
    if by == "replace":
        return CNN(rngs), jax_convgrad.replace_convolutions(loss_fn)  # or this one
    return CNN(rngs), loss_fn


# Training both models alternately.


class Run:
    """A model in training, which does not depend on the choice of convolution."""

    def __init__(self, model, loss_fn, learning_rate, example_batch):
        self.model = model
        self.optimizer = nnx.Optimizer(model, optax.sgd(learning_rate, momentum=0.9), wrt=nnx.Param)
        self.losses: list[float] = []
        self.seconds: list[float] = []

        @nnx.jit
        def train_step(model, optimizer, images, labels):
            loss, grads = nnx.value_and_grad(loss_fn)(model, images, labels)
            optimizer.update(model, grads)
            return loss

        # Compiled ahead of time, so that a later install() for the other run does not affect this one.
        self.lowered = train_step.lower(self.model, self.optimizer, *example_batch)
        self.train_step = self.lowered.compile()

    def step(self, images, labels) -> None:
        start = time.perf_counter()
        loss = float(self.train_step(self.model, self.optimizer, images, labels))  # waits for the step's end
        self.seconds.append(time.perf_counter() - start)
        self.losses.append(loss)

    def accuracy(self, images, labels) -> float:
        return float((self.model(images).argmax(-1) == labels).mean())


def prepare(digits: Digits, args: argparse.Namespace) -> tuple[Run, Run]:
    """The same model twice, on lax's convolution and on ours, its training step compiled."""
    steps = args.epochs * (len(digits.train_images) // args.batch_size)
    learning_rate = optax.cosine_decay_schedule(args.learning_rate, steps)
    batch = digits.train_images[: args.batch_size], digits.train_labels[: args.batch_size]
    on_lax = Run(*make_model(args.seed, by="lax"), learning_rate, batch)
    if args.by == "install":
        jax_convgrad.install()  # or this line; uninstall() reverts it
    try:
        on_ours = Run(*make_model(args.seed, args.by), learning_rate, batch)
    finally:
        jax_convgrad.uninstall()
    return on_lax, on_ours


def train(on_lax: Run, on_ours: Run, digits: Digits, args: argparse.Namespace) -> None:
    rng = np.random.default_rng(args.seed)
    steps = args.epochs * (len(digits.train_images) // args.batch_size)
    with tqdm(total=steps, unit="step", file=sys.stderr) as progress:
        for _ in range(args.epochs):
            for batch in shuffled_batches(rng, digits.train_images, digits.train_labels, args.batch_size):
                # Each goes first in every second step, so other load on the machine affects both equally.
                for run in (on_lax, on_ours) if progress.n % 2 else (on_ours, on_lax):
                    run.step(*batch)
                progress.update()
                progress.set_postfix(loss=f"{on_ours.losses[-1]:.4f}", refresh=False)


def relative_differences(on_lax: Run, on_ours: Run) -> np.ndarray:
    return np.abs(np.array(on_ours.losses) / np.array(on_lax.losses) - 1)


def report(on_lax: Run, on_ours: Run, digits: Digits) -> None:
    differences = relative_differences(on_lax, on_ours)
    steps = len(differences)
    print(f"{'step':>6}{'loss on lax':>15}{'on the kernels':>17}{'relative difference':>22}")
    for step in sorted({1, 2, 3, 10, 30, 100, 300, steps} & set(range(steps + 1))):
        print(
            f"{step:6}{on_lax.losses[step - 1]:15.7f}{on_ours.losses[step - 1]:17.7f}"
            f"{differences[step - 1]:22.1e}"
        )
    print(f"largest relative difference of the {steps} steps: {differences.max():.1e}")
    for name, run in (("lax", on_lax), ("the kernels", on_ours)):
        median = np.median(run.seconds)
        print(
            f"on {name:12} {1 / median:6.0f} steps/s (a step's median: {1e3 * median:.3f} ms)   "
            f"test accuracy: {run.accuracy(digits.test_images, digits.test_labels):.4f}"
        )
    # The losses may differ only by rounding, which is still small in the first steps.
    if not (differences[:10] < 1e-5).all():
        sys.exit("the losses of the first steps differ by more than rounding")


def positive(kind: type[int] | type[float]) -> Callable[[str], int | float]:
    """An argparse type: a number of this kind, greater than zero and finite."""

    def parse(text: str) -> int | float:
        value = kind(text)
        if not 0 < value < math.inf:
            raise argparse.ArgumentTypeError(f"{text} is not greater than zero and finite")
        return value

    parse.__name__ = kind.__name__
    return parse


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    option = parser.add_argument
    option(
        "--by",
        choices=("argument", "replace", "install"),
        default="argument",
        help="how the model gets the kernels (default: %(default)s)",
    )
    option("--epochs", type=positive(int), default=12, help="default: %(default)s")
    option("--batch-size", type=positive(int), default=32, help="default: %(default)s")
    option("--learning-rate", type=positive(float), default=0.02, help="initial value (default: %(default)s)")
    option("--seed", type=int, default=0, help="for all random numbers (default: %(default)s)")
    return parser.parse_args(argv)


def main() -> None:
    args = parse_arguments()
    digits = load_bundled()
    if args.batch_size > len(digits.train_images):
        sys.exit(
            f"--batch-size {args.batch_size} is more than the {len(digits.train_images)} training images"
        )
    on_lax, on_ours = prepare(digits, args)
    train(on_lax, on_ours, digits, args)
    report(on_lax, on_ours, digits)


if __name__ == "__main__":
    main()
