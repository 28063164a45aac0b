"""What the tests of ``check_gradients`` share: arguments of a convolution, and ways to look at a report."""

import inspect

import jax.numpy as jnp
import numpy as np

RANDOM = np.random.default_rng(11)
X = RANDOM.standard_normal((2, 6, 5, 3))
W = RANDOM.standard_normal((3, 2, 3, 4))
B = RANDOM.standard_normal(4)


def row_of(report, name, order=1):
    (row,) = [row for row in report.rows if (row.name, row.order) == (name, order)]
    return row


def narrow(f):
    """f as it is where it refuses float64, so that its differences are float32's."""

    def g(*args):
        if any(arg.dtype == jnp.float64 for arg in args):
            raise TypeError("no float64 here")
        return f(*args)

    g.__signature__ = inspect.signature(f)
    return g
