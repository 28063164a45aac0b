"""A flax.nnx model on the handwritten kernels by one line, step by step beside the same model on XLA's.

python examples/flax_model.py                   # the layers are handed our convolution: nnx.Conv's argument
python examples/flax_model.py --by replace      # the model stays as it is: replace_convolutions(loss_fn)
python examples/flax_model.py --by install      # the model stays as it is: install(), for the whole process

Both start with the same parameters and see the same batches: their losses have to agree in every step.
"""

import argparse
import sys
import time
from collections.abc import Callable

import jax
import numpy as np
import optax
from command_line import example_parser
from digits import Digits, load_bundled
from tqdm import tqdm
from train_cnn import add_training_options, check_batch_size, shuffled_batches

import jax_convgrad

try:
    from flax import nnx
except ModuleNotFoundError as error:
    sys.exit(f"{error}: this example needs flax, which comes with: pip install '.[examples]'")


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


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = example_parser(__doc__)
    parser.add_argument(
        "--by",
        choices=("argument", "replace", "install"),
        default="argument",
        help="how the kernels come under the model (default: %(default)s)",
    )
    add_training_options(parser, epochs=12, learning_rate=0.02)
    return parser.parse_args(argv)


def main() -> None:
    args = parse_arguments()
    digits = load_bundled()
    check_batch_size(digits, args.batch_size)
    on_lax, on_ours = prepare(digits, args)
    train(on_lax, on_ours, digits, args)
    report(on_lax, on_ours, digits)


if __name__ == "__main__":
    main()
