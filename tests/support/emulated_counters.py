"""The costs of launches of the emulated CUDA kernels on a GPU.

tests/cuda_emulator/README.md says what the emulator counts.
"""

import importlib.util
import sys
from contextlib import contextmanager
from functools import cache


@cache
def _module():
    """The module _cuda_counters, from the library that the backend has loaded as _cuda_emulated."""
    library = sys.modules["_cuda_emulated"].__file__
    spec = importlib.util.spec_from_file_location("_cuda_counters", library)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextmanager
def counting():
    """Yields a dict that contains the counters after the block; the block has to wait for all its results."""
    counters = {}
    _module().counters_start()
    try:
        yield counters
    finally:
        _module().counters_stop()
        counters.update(_module().counters())
