"""Convolution and pooling for JAX whose gradients are handwritten kernels.

``gradients.py`` says which kernel computes which derivative; ``docs/derivation.md`` derives them.
"""

# ruff: noqa: F403, F405  (type checkers find the names below in public_names.py)
import importlib
from typing import TYPE_CHECKING

from jax_convgrad.after_jax import after_jax as _after_jax

__version__ = "0.1.0"

__all__ = [
    "BatchStatistics",
    "Explanation",
    "FlowReport",
    "GradientError",
    "GradientReport",
    "InstalledReport",
    "LaxComparison",
    "avg_pool",
    "batch_norm",
    "check_gradients",
    "compare_with_lax",
    "conv",
    "conv_bias_grad",
    "conv_filter_grad",
    "conv_general_dilated",
    "conv_input_grad",
    "conv_transpose",
    "dots_saveable",
    "explain",
    "export_checks",
    "forward_mode",
    "gradient_flow",
    "install",
    "installed_report",
    "max_pool",
    "max_unpool",
    "replace_convolutions",
    "uninstall",
]

# At run time the names are imported when the first of them is used. So `python -m jax_convgrad doctor`, which
# imports this file first, also runs if JAX or the kernels cannot be imported.
if TYPE_CHECKING:
    from jax_convgrad.public_names import *
else:

    def __getattr__(name):
        if name not in __all__:
            raise AttributeError(f"module 'jax_convgrad' has no attribute {name!r}")
        try:
            public_names = importlib.import_module("jax_convgrad.public_names")
        except ImportError as error:
            error.add_note("`python -m jax_convgrad doctor` reports what is wrong and how to fix it.")
            raise
        except AttributeError as error:  # `from jax_convgrad import` would hide an AttributeError
            raise ImportError(
                f"jax_convgrad cannot be imported with this version of JAX ({error}): "
                "`python -m jax_convgrad doctor` reports how to fix it"
            ) from error
        globals().update({public: getattr(public_names, public) for public in __all__})
        return globals()[name]

    def __dir__():
        return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})


def _register_targets() -> None:
    try:
        importlib.import_module("jax_convgrad.primitives.targets")
    except Exception:  # the first use of a public name raises it again
        pass


# Programs that another process compiled or exported run here, whether JAX or this package is imported first.
_after_jax(_register_targets)
