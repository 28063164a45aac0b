"""Convolution and pooling for JAX whose gradients are handwritten kernels.

``gradients.py`` says which kernel is whose derivative; ``docs/derivation.md`` derives them.
"""

from jax_convgrad import batching as _batching
from jax_convgrad.binding import forward_mode
from jax_convgrad.convolution import conv, conv_general_dilated
from jax_convgrad.gradient_functions import conv_bias_grad, conv_filter_grad, conv_input_grad
from jax_convgrad.installation import install, uninstall
from jax_convgrad.instruments.gradient_check import check_gradients
from jax_convgrad.instruments.gradient_report import GradientError
from jax_convgrad.instruments.lax_comparison import compare_with_lax
from jax_convgrad.pooling import avg_pool, max_pool
from jax_convgrad.replacement import replace_convolutions
from jax_convgrad.transposed import conv_transpose

__version__ = "0.1.0"

__all__ = [
    "GradientError",
    "avg_pool",
    "check_gradients",
    "compare_with_lax",
    "conv",
    "conv_bias_grad",
    "conv_filter_grad",
    "conv_general_dilated",
    "conv_input_grad",
    "conv_transpose",
    "forward_mode",
    "install",
    "max_pool",
    "replace_convolutions",
    "uninstall",
]

_batching.register()
