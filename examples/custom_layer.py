"""A layer of one's own on the gradient kernels: weight-standardised convolution, checked, then trained with.

python examples/custom_layer.py                     # checks its gradients, trains with it and without it
python examples/custom_layer.py --check             # checks its gradients only
python examples/custom_layer.py --plot curves.png   # draws both runs

The layer convolves with filters that have mean 0 and variance 1 for every output channel, whatever its
parameters are (Qiao, Wang, Liu, Shen and Yuille 2019, "Micro-Batch Training with Batch-Channel Normalization
and Weight Standardization", arXiv:1903.10520). Its backward pass is written by hand: conv_input_grad and
conv_filter_grad through the convolution, the chain rule through the standardisation.
"""

import argparse
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from command_line import add_picture_options, check_picture_options, example_parser, hand_over, new_figure
from digits import load_bundled
from train_cnn import LAYERS, Layers, add_training_options, check_batch_size, train

import jax_convgrad

TAPS_AND_INPUTS = (0, 1, 2)  # the axes of a filter [taps, taps, inputs, outputs] that r and c run over
EPSILON = 1e-5


# The layer. In the letters of docs/derivation.md, with J = the number of taps times that of input channels:
#
#     μ[k] = 1/J Σ_{r,c} w[r,c,k]
#     σ[k] = √( 1/J Σ_{r,c} (w[r,c,k] − μ[k])² + ε )
#     ŵ[r,c,k] = (w[r,c,k] − μ[k]) / σ[k]
#     y[n,o,k] = Σ_{r,c} x[n,i,c] ŵ[r,c,k]
#
# The last line is a convolution, whose gradients the kernels know:
#
#     ∂E/∂x[n,i,c] = Σ_{r,k} ∂E/∂y[n,o,k] ŵ[r,c,k]          conv_input_grad
#     ∂E/∂ŵ[r,c,k] = Σ_{n,o} x[n,i,c] ∂E/∂y[n,o,k]          conv_filter_grad
#
# From ŵ to w, for one k, with one letter for the pair (r, c): w[j] is in ŵ[l] by itself, by μ and by σ.
#
#     ∂μ/∂w[j] = 1/J
#     ∂σ/∂w[j] = 1/(2σ) · 2/J · Σ_l (w[l] − μ) (δ[l,j] − 1/J) = (w[j] − μ) / (J σ) = ŵ[j] / J
#                                                   (what μ contributes vanishes: the w[l] − μ add up to 0)
#     ∂ŵ[l]/∂w[j] = (δ[l,j] − 1/J) / σ − (w[l] − μ) / σ² · ŵ[j] / J
#                 = ( δ[l,j] − 1/J − ŵ[l] ŵ[j] / J ) / σ
#
#     ∂E/∂w[j] = Σ_l ∂E/∂ŵ[l] ∂ŵ[l]/∂w[j]
#              = ( ∂E/∂ŵ[j] − mean_l ∂E/∂ŵ[l] − ŵ[j] · mean_l(∂E/∂ŵ[l] ŵ[l]) ) / σ
#
# So of ∂E/∂ŵ there goes on only what changes neither the mean nor the variance of a filter.


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


# The check: against what jax.grad makes of the same layer with no rule of its own, and against differences.


def plain_composition(x, w, stride=1, padding="SAME"):
    """The same layer of jax.lax and jax.numpy alone, whose gradient JAX finds by itself."""
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
    """How far ∂E/∂x and ∂E/∂w are off, in float64 and relative to the largest element of the gradient.

    Returns by the argument's name: (from jax.grad of the plain composition, from finite differences).
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
    """Prints the errors, and ends the program where one is more than rounding."""
    print("gradients of the layer, largest relative difference in float64:")
    print(f"  {'':34}{'from jax.grad':>15}{'from finite differences':>25}")
    for stride, padding in ((1, "SAME"), (1, "VALID"), (2, "SAME")):
        for name, (composed, differences) in gradient_errors(stride, padding, seed).items():
            print(f"  dE/d{name}, stride {stride}, {padding:5} padding{composed:24.1e}{differences:25.1e}")
            if not (composed < 1e-12 and differences < 1e-7):
                sys.exit(f"the gradient of {name} is wrong")


# Training with it: the network of train_cnn.py, and only the layer exchanged.


def standardised_conv_relu(x, w, b):
    """relu(g · conv(x, ŵ) + b), where g = √(2/J) gives y the size that He's initialisation gives it."""
    gain = np.sqrt(2 / np.prod(w.shape[:-1]), dtype=np.float32)
    return jax.nn.relu(gain * standardised_conv(x, w) + b)


RUNS = {
    "standardised": Layers(standardised_conv_relu, LAYERS["handwritten"].max_pool),
    "plain": LAYERS["handwritten"],
}


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = example_parser(__doc__)
    parser.add_argument("--check", action="store_true", help="check the gradients and stop")
    add_training_options(parser, epochs=12)
    add_picture_options(parser, "the loss and accuracy curves of both runs")
    args = parser.parse_args(argv)
    check_picture_options(parser, args)
    return args


def main() -> None:
    args = parse_arguments()
    digits = load_bundled()
    check_batch_size(digits, args.batch_size)
    check_gradients(args.seed)
    if args.check:
        return
    histories = {}
    for name, layers in RUNS.items():
        print(f"training with {name} convolutions")
        histories[name], _ = train(layers, digits, args)
    for name, history in histories.items():
        print(
            f"{name:12}  train loss: {history[0].train_loss:.4f} in the first epoch, "
            f"{history[-1].train_loss:.4f} in the last   test accuracy: {history[-1].test_accuracy:.4f}"
        )
    if args.plot or args.show:
        from curves import SIZE, plot_two_histories

        figure = new_figure(args, figsize=SIZE, dpi=150, layout="constrained")
        plot_two_histories(histories, figure)
        hand_over(figure, args)


if __name__ == "__main__":
    main()
