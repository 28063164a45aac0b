"""A flax.nnx model on the handwritten kernels by one line, step by step beside the same model on XLA's.

python examples/flax_model.py                   # the layers are handed our convolution: nnx.Conv's argument
python examples/flax_model.py --by replace      # the model stays as it is: replace_convolutions(loss_fn)
python examples/flax_model.py --by install      # the model stays as it is: install(), for the whole process

Both start with the same parameters and see the same batches: their losses have to agree in every step.
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
    sys.exit(f"{error}: this example needs flax, which comes with: pip install '.[examples]'")


# The digits.


class Digits(NamedTuple):
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray


def load_bundled() -> Digits:
    """scikit-learn's digits, a fifth of each class held out for the test.

    The split has its own fixed seed, so that every run is judged by the same images.
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
    """One epoch in a fresh order. What is left over after the last whole batch waits for another epoch."""
    order = rng.permutation(len(images))
    for at in range(0, len(images) - batch_size + 1, batch_size):
        chosen = order[at : at + batch_size]
        yield shift_randomly(rng, images[chosen]), labels[chosen]


def shift_randomly(rng: np.random.Generator, images: np.ndarray) -> np.ndarray:
    """Half of the images moved by at most a pixel along each axis, so that a digit keeps looking new."""
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


# The model. Whose convolution it has is an argument of nnx.Conv.


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
    """The model and the function of its loss, on the kernels by "argument" or "replace", else as they are."""
    rngs = nnx.Rngs(seed)
    if by == "argument":
        return CNN(rngs, conv=jax_convgrad.conv_general_dilated), loss_fn  # the one line
    if by == "replace":
        return CNN(rngs), jax_convgrad.replace_convolutions(loss_fn)  # or this one
    return CNN(rngs), loss_fn


# Training both, side by side.


class Run:
    """A model in training. Nothing in here knows whose convolution it has."""

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

        # Ahead of time, so that install() afterwards, for the other run, leaves this one as it is.
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
        jax_convgrad.install()  # or this line; uninstall() takes it back
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
                # Each goes first in every second step: what else the machine does then falls on both alike.
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
    # Rounding is all that may differ, and in the first steps it has had no time to grow.
    if not (differences[:10] < 1e-5).all():
        sys.exit("the losses of the first steps differ by more than rounding")


def positive(kind: type[int] | type[float]) -> Callable[[str], int | float]:
    """An argument's type: a number of this kind, greater than zero and finite."""

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
        help="how the kernels come under the model (default: %(default)s)",
    )
    option("--epochs", type=positive(int), default=12, help="default: %(default)s")
    option("--batch-size", type=positive(int), default=32, help="default: %(default)s")
    option("--learning-rate", type=positive(float), default=0.02, help="at the start (default: %(default)s)")
    option("--seed", type=int, default=0, help="of everything drawn at random (default: %(default)s)")
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
