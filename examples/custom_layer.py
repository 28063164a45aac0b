"""A custom layer on the gradient kernels: a weight-standardised convolution, checked, then trained with.

python examples/custom_layer.py                     # checks its gradients, then trains with and without it
python examples/custom_layer.py --check             # checks its gradients only
python examples/custom_layer.py --plot curves.png   # draws both runs

The layer convolves with filters that have mean 0 and variance 1 for every output channel, for any values of
its parameters (Qiao, Wang, Liu, Shen and Yuille 2019, "Micro-Batch Training with Batch-Channel Normalization
and Weight Standardization", arXiv:1903.10520). Its backward pass is written by hand: conv_input_grad and
conv_filter_grad through the convolution, the chain rule through the standardisation.
"""

import argparse
import math
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure
from tqdm import tqdm

import jax_convgrad

CLASSES = 10
CHANNELS = (16, 32)
TAPS_AND_INPUTS = (0, 1, 2)  # the axes of a filter [taps, taps, inputs, outputs] that r and c run over
EPSILON = 1e-5


# The layer. In the letters of docs/derivation.md, with J = the number of taps times that of input channels:
#
#     μ[k] = 1/J Σ_{r,c} w[r,c,k]
#     σ[k] = √( 1/J Σ_{r,c} (w[r,c,k] − μ[k])² + ε )
#     ŵ[r,c,k] = (w[r,c,k] − μ[k]) / σ[k]
#     y[n,o,k] = Σ_{r,c} x[n,i,c] ŵ[r,c,k]
#
# The last line is a convolution, whose gradients the kernels compute:
#
#     ∂E/∂x[n,i,c] = Σ_{r,k} ∂E/∂y[n,o,k] ŵ[r,c,k]          conv_input_grad
#     ∂E/∂ŵ[r,c,k] = Σ_{n,o} x[n,i,c] ∂E/∂y[n,o,k]          conv_filter_grad
#
# From ŵ to w, for one k, with one letter for the pair (r, c): ŵ[l] depends on w[j] directly, through μ and
# through σ.
#
#     ∂μ/∂w[j] = 1/J
#     ∂σ/∂w[j] = 1/(2σ) · 2/J · Σ_l (w[l] − μ) (δ[l,j] − 1/J) = (w[j] − μ) / (J σ) = ŵ[j] / J
#                                                   (μ contributes nothing: the w[l] − μ add up to 0)
#     ∂ŵ[l]/∂w[j] = (δ[l,j] − 1/J) / σ − (w[l] − μ) / σ² · ŵ[j] / J
#                 = ( δ[l,j] − 1/J − ŵ[l] ŵ[j] / J ) / σ
#
#     ∂E/∂w[j] = Σ_l ∂E/∂ŵ[l] ∂ŵ[l]/∂w[j]
#              = ( ∂E/∂ŵ[j] − mean_l ∂E/∂ŵ[l] − ŵ[j] · mean_l(∂E/∂ŵ[l] ŵ[l]) ) / σ
#
# So only the part of ∂E/∂ŵ that changes neither the mean nor the variance of a filter goes on.


def standardise(w: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(ŵ, σ) of a filter w [taps, taps, inputs, outputs]; σ is [1, 1, 1, outputs]."""
    centred = w - jnp.mean(w, TAPS_AND_INPUTS, keepdims=True)
    sigma = jnp.sqrt((centred**2).mean(TAPS_AND_INPUTS, keepdims=True) + EPSILON)
    return centred / sigma, sigma


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def standardised_conv(x: jax.Array, w: jax.Array, stride: int = 1, padding: str = "SAME") -> jax.Array:
    """y = conv(x, ŵ): x [N, height, width, inputs], w [taps, taps, inputs, outputs]."""
    return _forward(x, w, stride, padding)[0]


def _forward(x, w, stride, padding):
    w_hat, sigma = standardise(w)
    return jax_convgrad.conv(x, w_hat, stride=stride, padding=padding), (x, w_hat, sigma)


def _backward(stride, padding, kept, dy):
    x, w_hat, sigma = kept
    dx = jax_convgrad.conv_input_grad(dy, w_hat, x.shape, stride=stride, padding=padding)
    dw_hat = jax_convgrad.conv_filter_grad(x, dy, w_hat.shape, stride=stride, padding=padding)

    mean = dw_hat.mean(TAPS_AND_INPUTS, keepdims=True)
    along_w_hat = (dw_hat * w_hat).mean(TAPS_AND_INPUTS, keepdims=True)
    dw = (dw_hat - mean - w_hat * along_w_hat) / sigma
    return dx, dw


standardised_conv.defvjp(_forward, _backward)


# The check: against jax.grad of the same layer without a custom rule, and against finite differences.


def plain_composition(x, w, stride=1, padding="SAME"):
    """The same layer on jax.lax and jax.numpy, whose gradient JAX derives."""
    w_hat, _ = standardise(w)
    return jax.lax.conv_general_dilated(
        x, w_hat, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def finite_differences(f, argument: jax.Array, step: float = 1e-5) -> jax.Array:
    """(f(v + h) − f(v − h)) / 2h for each element of the argument; the error is of order h²."""
    unit_vectors = jnp.eye(argument.size, dtype=argument.dtype).reshape(-1, *argument.shape)
    difference = jax.jit(lambda unit: (f(argument + step * unit) - f(argument - step * unit)) / (2 * step))
    return jax.lax.map(difference, unit_vectors, batch_size=32).reshape(argument.shape)


def gradient_errors(stride: int, padding: str, seed: int = 0) -> dict[str, tuple[float, float]]:
    """The errors of ∂E/∂x and ∂E/∂w, in float64 and relative to the largest element of the gradient.

    Returns (from jax.grad of the plain composition, from finite differences) by the argument's name.
    """
    with jax.enable_x64(True):
        rng = np.random.default_rng(seed)
        x, w = jnp.array(rng.normal(size=(2, 7, 6, 3))), jnp.array(rng.normal(size=(3, 3, 3, 4)))
        dy = jnp.array(rng.normal(size=plain_composition(x, w, stride, padding).shape))

        def error(layer, x, w):  # an E with this ∂E/∂y
            return (layer(x, w, stride, padding) * dy).sum()

        ours = jax.grad(partial(error, standardised_conv), argnums=(0, 1))(x, w)
        plain = jax.grad(partial(error, plain_composition), argnums=(0, 1))(x, w)
        differences = (
            finite_differences(lambda x: error(standardised_conv, x, w), x),
            finite_differences(lambda w: error(standardised_conv, x, w), w),
        )
        return {
            name: tuple(float(abs(own - other).max() / abs(other).max()) for other in others)
            for name, own, *others in zip(("x", "w"), ours, plain, differences, strict=True)
        }


def check_gradients(seed: int) -> None:
    """Prints the errors, and ends the program if one is larger than rounding."""
    print("gradients of the layer, largest relative difference in float64:")
    print(f"  {'':34}{'from jax.grad':>15}{'from finite differences':>25}")
    for stride, padding in ((1, "SAME"), (1, "VALID"), (2, "SAME")):
        for name, (composed, differences) in gradient_errors(stride, padding, seed).items():
            print(f"  dE/d{name}, stride {stride}, {padding:5} padding{composed:24.1e}{differences:25.1e}")
            if not (composed < 1e-12 and differences < 1e-7):
                sys.exit(f"the gradient of {name} is wrong")


# Training with it: the network of train_cnn.py, where only the layer differs.


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


def predict(conv_relu, params, images):
    """The logits [N, 10] of images [N, height, width, 1]: conv, relu, pool, conv, relu, pool, linear."""
    x = jax_convgrad.max_pool(conv_relu(images, params["w1"], params["b1"]), (2, 2), strides=(2, 2))
    x = jax_convgrad.max_pool(conv_relu(x, params["w2"], params["b2"]), (2, 2), strides=(2, 2))
    return x.reshape(len(x), -1) @ params["w3"] + params["b3"]


def make_train_step(conv_relu, optimizer: optax.GradientTransformation):
    """One jitted step: (params, opt_state, images, labels) -> (params, opt_state, loss)."""

    def loss_fn(params, images, labels):
        logits = predict(conv_relu, params, images)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    @jax.jit
    def train_step(params, opt_state, images, labels):
        loss, grads = jax.value_and_grad(loss_fn)(params, images, labels)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, loss

    return train_step


class Epoch(NamedTuple):
    train_loss: float
    test_accuracy: float


def train(conv_relu, digits: Digits, args: argparse.Namespace) -> list[Epoch]:
    """Trains for args.epochs: Adam with a learning rate that falls to zero by a cosine."""
    steps = args.epochs * (len(digits.train_images) // args.batch_size)
    optimizer = optax.adam(optax.cosine_decay_schedule(args.learning_rate, steps))
    train_step = make_train_step(conv_relu, optimizer)
    classify = jax.jit(lambda params, images: predict(conv_relu, params, images).argmax(-1))
    params = init_params(jax.random.key(args.seed), digits.train_images.shape[1:])
    opt_state = optimizer.init(params)
    rng = np.random.default_rng(args.seed)
    history = []
    for _ in tqdm(range(args.epochs), unit="epoch", file=sys.stderr):
        losses = []
        for batch in shuffled_batches(rng, digits.train_images, digits.train_labels, args.batch_size):
            params, opt_state, loss = train_step(params, opt_state, *batch)
            losses.append(float(loss))
        accuracy = float((classify(params, digits.test_images) == digits.test_labels).mean())
        history.append(Epoch(float(np.mean(losses)), accuracy))
    return history


def plot(histories: dict[str, list[Epoch]], figure: Figure) -> None:
    """The training loss and the test accuracy of both runs."""
    loss, accuracy = figure.subplots(1, 2)
    for (name, history), color in zip(histories.items(), ("#4477aa", "#cc6677"), strict=True):
        epochs = range(1, len(history) + 1)
        loss.plot(epochs, [epoch.train_loss for epoch in history], "o-", color=color, label=name)
        accuracy.plot(epochs, [epoch.test_accuracy for epoch in history], "o-", color=color, label=name)
    loss.set(title="Training loss during the epoch", xlabel="epoch", ylabel="cross-entropy", yscale="log")
    accuracy.set(title="Test accuracy after the epoch", xlabel="epoch", ylabel="correct digits")
    for axes in (loss, accuracy):
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)


def standardised_conv_relu(x, w, b):
    """relu(g · conv(x, ŵ) + b), where g = √(2/J) gives y the size that He's initialisation gives it."""
    gain = np.sqrt(2 / np.prod(w.shape[:-1]), dtype=np.float32)
    return jax.nn.relu(gain * standardised_conv(x, w) + b)


def plain_conv_relu(x, w, b):
    """relu(conv(x, w) + b), in one call of a kernel."""
    return jax_convgrad.conv(x, w, b, padding="SAME", activation="relu")


RUNS = {"standardised": standardised_conv_relu, "plain": plain_conv_relu}


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
    option("--check", action="store_true", help="check the gradients and stop")
    option("--epochs", type=positive(int), default=12, help="default: %(default)s")
    option("--batch-size", type=positive(int), default=32, help="default: %(default)s")
    option("--learning-rate", type=positive(float), default=1e-2, help="initial value (default: %(default)s)")
    option("--seed", type=int, default=0, help="for all random numbers (default: %(default)s)")
    option("--plot", type=picture, metavar="FILE.png", help="write both runs' curves to FILE.png")
    return parser.parse_args(argv)


def main() -> None:
    args = parse_arguments()
    digits = load_bundled()
    if args.batch_size > len(digits.train_images):
        sys.exit(
            f"--batch-size {args.batch_size} is more than the {len(digits.train_images)} training images"
        )
    check_gradients(args.seed)
    if args.check:
        return
    histories = {}
    for name, conv_relu in RUNS.items():
        print(f"training with {name} convolutions")
        histories[name] = train(conv_relu, digits, args)
    for name, history in histories.items():
        print(
            f"{name:12}  train loss: {history[0].train_loss:.4f} in the first epoch, "
            f"{history[-1].train_loss:.4f} in the last   test accuracy: {history[-1].test_accuracy:.4f}"
        )
    if args.plot:
        figure = Figure(figsize=(9, 3.6), dpi=150, layout="constrained")
        plot(histories, figure)
        figure.savefig(args.plot)
        print(f"picture written to {args.plot}")


if __name__ == "__main__":
    main()
