"""Trains one deep CNN in eight variants, and shows how the gradient reaches its first layer in each.

python examples/gradient_flow.py                         # a table
python examples/gradient_flow.py --plot flow.png         # and a picture

Four architectures, each a stem and 24 convolutions of 3x3: plain, with residual connections (He et al. 2016),
with batch normalisation (Ioffe & Szegedy 2015), with both. Two initialisations: LeCun's variance 1/n, the
default of Flax, and He's 2/n (He et al. 2015), where n is the number of inputs that an output sums over.
Everything else is the same.

In the plain network the gradient's norm changes by a factor of sqrt(n var(w) / 2) from a layer to the one
before it, since relu stops half of it: 0.71 with LeCun's variance, 1 with He's. The taps that see only
padding, at the border of an 8x8 image, contribute another factor of 0.92. So LeCun's 24 layers leave
0.65**24 = 3e-5 of it, and learning never starts. Depth and a library's default are enough for that.
docs/gradient_flow.md derives these factors, and those of the other variants.
"""

import argparse
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure
from tqdm import tqdm

from jax_convgrad import FlowReport, conv, gradient_flow

BLOCKS = 12  # with two convolutions each
CHANNELS = 16
CLASSES = 10


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


# The network: a stem, blocks of two convolutions, the mean over all positions, linear.


class Architecture(NamedTuple):
    residual: bool
    batch_norm: bool


ARCHITECTURES = {
    "plain": Architecture(residual=False, batch_norm=False),
    "residual": Architecture(residual=True, batch_norm=False),
    "batch norm": Architecture(residual=False, batch_norm=True),
    "residual, batch norm": Architecture(residual=True, batch_norm=True),
}
INITIALISATIONS = {"LeCun": 1.0, "He": 2.0}  # n times the variance of a filter with n inputs


def init_params(key: jax.Array, architecture: Architecture, gain: float):
    """Filters normal with variance gain / n, the linear layer's with 1 / n; biases zero, scales one."""
    keys = iter(jax.random.split(key, 2 * BLOCKS + 2))

    def normal(shape, gain):
        n = np.prod(shape[:-1])
        return jax.random.normal(next(keys), shape, jnp.float32) * np.sqrt(gain / n, dtype=np.float32)

    def conv_params(in_channels):
        params = {"w": normal((3, 3, in_channels, CHANNELS), gain), "b": jnp.zeros(CHANNELS, jnp.float32)}
        return params | ({"scale": jnp.ones(CHANNELS, jnp.float32)} if architecture.batch_norm else {})

    return {
        "conv": [conv_params(in_channels) for in_channels in (1, *[CHANNELS] * 2 * BLOCKS)],
        "linear": {"w": normal((CHANNELS, CLASSES), 1.0), "b": jnp.zeros(CLASSES, jnp.float32)},
    }


def conv_layer(params, x, relu: bool):
    """A convolution, normalised over the batch if it has a scale, and optionally a relu."""
    if "scale" not in params:
        return conv(x, params["w"], params["b"], padding="SAME", activation="relu" if relu else None)
    y = conv(x, params["w"], padding="SAME")
    # With the batch's mean and variance. Running averages are for inference, which this example does not do.
    mean, variance = y.mean((0, 1, 2)), y.var((0, 1, 2))
    y = (y - mean) * jax.lax.rsqrt(variance + 1e-5) * params["scale"] + params["b"]
    return jax.nn.relu(y) if relu else y


def stacked(params):
    return jax.tree.map(lambda *arrays: jnp.stack(arrays), *params)


def predict(architecture: Architecture, params, images):
    """The logits [N, 10] of images [N, height, width, 1]."""
    stem, *convs = params["conv"]
    x = conv_layer(stem, images, relu=True)

    def block(x, params):
        first, second = params
        y = conv_layer(first, x, relu=True)
        if architecture.residual:
            return jax.nn.relu(x + conv_layer(second, y, relu=False)), None
        return conv_layer(second, y, relu=True), None

    # A loop compiles one block instead of twelve. scan needs the blocks' parameters stacked.
    x, _ = jax.lax.scan(block, x, (stacked(convs[::2]), stacked(convs[1::2])))
    return x.mean((1, 2)) @ params["linear"]["w"] + params["linear"]["b"]


def make_loss(architecture: Architecture) -> Callable:
    """A function (params, (images, labels)) -> mean cross-entropy; jitted, so that gradient_flow keeps it."""

    @jax.jit
    def loss_fn(params, batch):
        images, labels = batch
        logits = predict(architecture, params, images)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    return loss_fn


# Training, and the gradients before and after it.


class Run(NamedTuple):
    before: FlowReport
    after: FlowReport
    losses: np.ndarray  # of each step

    @property
    def last_loss(self) -> float:
        """The mean loss of the last tenth of the steps."""
        return float(self.losses[-max(1, len(self.losses) // 10) :].mean())


def run_variants(digits: Digits, args: argparse.Namespace) -> dict[tuple[str, str], Run]:
    """Trains every variant on the same batches; keys are the names of architecture and initialisation."""
    variants = [(name, initialisation) for name in ARCHITECTURES for initialisation in INITIALISATIONS]
    runs = {}
    with tqdm(total=len(variants) * args.steps, unit="step", file=sys.stderr) as progress:
        for name, architecture in ARCHITECTURES.items():
            loss_fn = make_loss(architecture)
            train_step, optimizer = make_train_step(loss_fn, args.learning_rate)  # compiled once for both
            for initialisation, gain in INITIALISATIONS.items():
                progress.set_description(f"{name}, {initialisation}")
                params = init_params(jax.random.key(args.seed), architecture, gain)
                runs[name, initialisation] = run_one(
                    digits, args, loss_fn, train_step, optimizer, params, progress.update
                )
    return runs


def make_train_step(loss_fn: Callable, learning_rate: float):
    """One jitted step (params, opt_state, batch) -> (params, opt_state, loss), and its optimizer."""
    optimizer = optax.adam(learning_rate)

    @jax.jit
    def train_step(params, opt_state, batch):
        loss, grads = jax.value_and_grad(loss_fn)(params, batch)
        updates, opt_state = optimizer.update(grads, opt_state)
        return optax.apply_updates(params, updates), opt_state, loss

    return train_step, optimizer


def run_one(digits, args, loss_fn, train_step, optimizer, params, progressed) -> Run:
    measured_on = digits.train_images[: args.batch_size], digits.train_labels[: args.batch_size]
    before = gradient_flow(loss_fn, params, measured_on)
    opt_state = optimizer.init(params)
    rng = np.random.default_rng(args.seed)
    losses = []
    for _ in range(args.steps):
        chosen = rng.choice(len(digits.train_images), args.batch_size, replace=False)
        batch = digits.train_images[chosen], digits.train_labels[chosen]
        params, opt_state, loss = train_step(params, opt_state, batch)
        losses.append(float(loss))  # float() waits until the step ends
        progressed()
    return Run(before, gradient_flow(loss_fn, params, measured_on), np.array(losses))


def print_table(runs: dict[tuple[str, str], Run]) -> None:
    print(f"{'':29}{'gradient norm at the start':>30}{'after training':>24}{'training loss':>16}")
    print(
        f"{'':29}{'last conv':>10}{'first conv':>11}{'a layer':>9}"
        f"{'last conv':>13}{'first conv':>11}{'start':>9}{'end':>7}"
    )
    for (name, initialisation), run in runs.items():
        first, last = run.before.layers[0], run.before.layers[-2]  # the last layer is the linear one
        after_first, after_last = run.after.layers[0], run.after.layers[-2]
        print(
            f"{name:22}{initialisation:7}{last.gradient_norm:10.1e}{first.gradient_norm:11.1e}"
            f"{factor_a_layer(run.before):8.2f}x{after_last.gradient_norm:13.1e}"
            f"{after_first.gradient_norm:11.1e}{run.losses[0]:9.2f}{run.last_loss:7.2f}"
        )


def factor_a_layer(report: FlowReport) -> float:
    """The factor of the gradient's norm from a convolution to the one before it, as a geometric mean."""
    norms = [layer.gradient_norm for layer in report.layers[:-1]]
    return (norms[0] / norms[-1]) ** (1 / (len(norms) - 1))


# The picture: gradient norms over depth before and after training, and the losses.

STYLES = {
    "plain": dict(color="#cc6677", marker="o"),
    "residual": dict(color="#4477aa", marker="s"),
    "batch norm": dict(color="#117733", marker="^"),
    "residual, batch norm": dict(color="#aa7722", marker="D"),
}


def draw_into(figure, runs) -> None:
    """Draws a row for each initialisation; the columns are gradients before, gradients after, losses."""
    initialisations = list(dict.fromkeys(initialisation for _, initialisation in runs))
    rows = figure.subplots(len(initialisations), 3, sharex="col", squeeze=False)
    for before, after, loss in rows:  # one scale for all norms, and one for all losses
        before.sharey(rows[0][0])
        after.sharey(rows[0][0])
        loss.sharey(rows[0][2])
    for initialisation, (before, after, loss) in zip(initialisations, rows, strict=True):
        for (name, other), run in runs.items():
            if other != initialisation:
                continue
            draw_norms(before, run.before, name)
            draw_norms(after, run.after, name)
            # The mean of each step and up to nine before it, since a single batch's loss fluctuates.
            means = [run.losses[max(0, at - 9) : at + 1].mean() for at in range(len(run.losses))]
            style = {**STYLES[name], "marker": None}
            loss.plot(range(1, len(means) + 1), means, label=name, linewidth=1.4, **style)
        before.set(title=f"{initialisation} initialisation, at the start", ylabel="gradient norm ‖g‖")
        after.set(title=f"{initialisation} initialisation, after training")
        loss.set(
            title=f"{initialisation} initialisation, training loss",
            ylabel="cross-entropy",
            yscale="log",
        )
        loss.axhline(np.log(10), color="#888888", linewidth=0.8, linestyle=":")
        loss.annotate(
            "guessing", (0.99, np.log(10)), xycoords=("axes fraction", "data"), ha="right", va="bottom",
            xytext=(0, 3), textcoords="offset points", fontsize=8, color="#666666",
        )  # fmt: skip
    for before, after, loss in rows[-1:]:
        before.set_xlabel("convolution, from the first to the last")
        after.set_xlabel("convolution, from the first to the last")
        loss.set_xlabel("step (mean of the last ten)")
    for axes in rows.flat:
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(*rows[0][0].get_legend_handles_labels(), loc="outside upper center", ncols=5, frameon=False)


def draw_norms(axes, report, name) -> None:
    """The convolutions' norms; a log scale has no zero, so zeros are on the lower edge."""
    norms = np.array([layer.gradient_norm for layer in report.layers[:-1]])  # without the linear layer
    depth = np.arange(1, len(norms) + 1)
    axes.set_yscale("log")
    axes.plot(
        depth, np.where(norms > 0, norms, np.nan), label=name, markersize=3, linewidth=1.2, **STYLES[name]
    )
    zero = norms == 0
    if zero.any():
        axes.plot(depth[zero], np.zeros(zero.sum()), transform=axes.get_xaxis_transform(), clip_on=False,
                  linestyle="", marker="v", markersize=5, color=STYLES[name]["color"])  # fmt: skip
        axes.annotate("zero", (depth[zero].mean(), 0.03), xycoords=("data", "axes fraction"), ha="center",
                      fontsize=8, color=STYLES[name]["color"])  # fmt: skip


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
    option("--steps", type=positive(int), default=150, help="steps for each variant (default: %(default)s)")
    option("--batch-size", type=positive(int), default=32, help="default: %(default)s")
    option("--learning-rate", type=positive(float), default=1e-3, help="for Adam (default: %(default)s)")
    option("--seed", type=int, default=0, help="for all random numbers (default: %(default)s)")
    option("--plot", type=picture, metavar="FILE.png", help="write gradients and losses to FILE.png")
    return parser.parse_args(argv)


def main() -> None:
    args = parse_arguments()
    digits = load_bundled()
    if args.batch_size > len(digits.train_images):
        sys.exit(
            f"--batch-size {args.batch_size} is more than the {len(digits.train_images)} training images"
        )
    runs = run_variants(digits, args)
    print_table(runs)
    if args.plot:
        figure = Figure(figsize=(10.5, 6.2), dpi=90, layout="constrained")
        draw_into(figure, runs)
        figure.savefig(args.plot)
        print(f"picture written to {args.plot}")


if __name__ == "__main__":
    main()
