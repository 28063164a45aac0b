"""Dense problems for 16-bit operands, and the settings that layers are called with."""

import contextlib

import jax
import pytest
from conv_cases import NDHWC, NHWC, NWC
from conv_cases import ConvCase as C

import jax_convgrad as jc

DENSE = [
    C("dense", (2, 9, 10, 5), (3, 3, 5, 7), 2, "SAME", order=NHWC),
    C("a filter of parts", (8, 24, 20, 3), (3, 3, 3, 4), 1, "SAME", order=NHWC),
    C("whole chunks", (2, 8, 9, 64), (3, 3, 64, 64), 1, "SAME", order=NHWC),
    C("channels first", (2, 16, 7, 8), (24, 16, 3, 3), 2, ((1, 1), (0, 2))),
    C("three axes", (1, 5, 6, 7, 8), (2, 3, 2, 8, 8), (2, 1, 2), "SAME", order=NDHWC),
    C("one output channel", (2, 30, 40), (5, 40, 1), order=NWC),
    C("long sums", (1, 3, 3, 640), (3, 3, 640, 16), 1, "SAME", order=NHWC),
]

# Before jax 0.10 lax has no gradient of a convolution with a wider result than operands. install() keeps the
# rules of lax, so it has none either.
needs_lax_gradient = pytest.mark.skipif(
    jax.__version_info__ < (0, 10), reason="lax has no such gradient before jax 0.10"
)
INSTALLED_WITH_GRADIENTS = pytest.param("installed", marks=needs_lax_gradient)


@contextlib.contextmanager
def in_force(way):
    if way == "installed":
        jc.install()
    try:
        with jc.forward_mode() if way == "forward_mode" else contextlib.nullcontext():
            yield
    finally:
        jc.uninstall()
