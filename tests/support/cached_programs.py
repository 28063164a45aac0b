"""A program, `cached_programs.py FOLDER FLAG WHICH`: runs programs for two devices with JAX's cache.

Programs of one family have the same name and the same shapes, and differ in one parameter. WHICH is "first",
to run the first program of each family, or "all". FLAG is "on" if JAX omits the callback's address from the
text that it hashes. Prints JSON: for each program its largest error against one device, and whether the cache
had it.
"""

import json
import os
import sys

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2 --xla_backend_optimization_level=0"

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import jax_convgrad as jc

SIZE = 4  # the batch, spatial and channel size, so that dimensions in another order give the same shape
X, W = (SIZE, SIZE, SIZE), (SIZE, SIZE, SIZE)
ORDER = ("NHC", "HIO", "NHC")


def general(conv, stride=1, low=1, lhs=1, rhs=1, order=ORDER, precision=None):
    """A layer with 4 input positions, 4 taps and 4 output positions, for any steps."""
    high = (SIZE - 1) * (stride + rhs - lhs) - low
    return lambda x, w: conv(
        x, w, (stride,), [(low, high)], (lhs,), (rhs,), dimension_numbers=order, precision=precision
    )


CONVOLUTIONS = {
    "first": {},
    "pads": {"low": 2},
    "stride": {"stride": 2},
    "input dilation": {"lhs": 2, "stride": 2},
    "filter dilation": {"rhs": 2},
    "order of x": {"order": ("NCH", "HIO", "NHC")},
    "order of w": {"order": ("NHC", "HOI", "NHC")},
    "order of y": {"order": ("NHC", "HIO", "NCH")},
    "precision": {"precision": lax.Precision.HIGHEST},
}


def layer(**options):
    return lambda x, w: jc.conv(x, w, w[0, 0], padding="SAME", **options)


def pooled(pool, **options):
    return lambda x, w: pool(x, (3,), **{"padding": [(1, 1)], **options})


def windows(dimension, padding=(1, 1)):
    """Sums over 3 positions of one dimension."""
    window = tuple(3 if d == dimension else 1 for d in range(len(X)))
    pads = tuple(padding if d == dimension else (0, 0) for d in range(len(X)))
    return lambda x, w: lax.reduce_window(x, 0.0, lax.add, window, (1,) * len(X), pads)


def families():
    """Maps names to programs by name: each a function of x and w, and whether it runs under `install()`."""
    convolutions = {name: (general(lax.conv_general_dilated, **o), True) for name, o in CONVOLUTIONS.items()}
    yield "install", convolutions
    yield "direct", {name: (general(jc.conv_general_dilated, **o), False) for name, o in CONVOLUTIONS.items()}
    yield (
        "replace_convolutions",
        {name: (jc.replace_convolutions(f), False) for name, (f, _) in convolutions.items()},
    )
    yield (
        "layer",
        {
            "first": (layer(), False),
            "relu": (layer(activation="relu"), False),
            "dilation": (layer(dilation=2), False),
        },
    )
    yield (
        "average",
        {
            "first": (pooled(jc.avg_pool), False),
            "count": (pooled(jc.avg_pool, count_include_pad=False), False),
            "pads": (pooled(jc.avg_pool, padding=[(2, 0)]), False),
            "dilation": (pooled(jc.avg_pool, padding=[(2, 2)], window_dilation=(2,)), False),
        },
    )
    yield (
        "maximum",
        {
            "first": (pooled(jc.max_pool), False),
            "pads": (pooled(jc.max_pool, padding=[(0, 2)]), False),
            "dilation": (pooled(jc.max_pool, padding=[(2, 2)], window_dilation=(2,)), False),
        },
    )
    yield (
        "windows",
        {
            "first": (windows(1), True),
            "pads": (windows(1, (2, 0)), True),
            "dimension": (windows(2), True),
        },
    )


def main(folder, flag, which):
    x, w = (
        np.random.default_rng(n).standard_normal(shape).astype(np.float32) for n, shape in enumerate((X, W))
    )
    split = jax.device_put(x, NamedSharding(Mesh(np.array(jax.devices()), ("d",)), P("d")))
    expected = {}
    for family, programs in families():
        for name, (f, _) in programs.items():
            expected[family, name] = jax.jit(with_gradients(f))(x, w)
    jax.config.update("jax_remove_custom_partitioning_ptr_from_cache_key", flag == "on")
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    events = []
    jax.monitoring.register_event_listener(lambda event, **_: events.append(event.rsplit("/", 1)[-1]))
    result = {}
    for family, programs in families():
        for name, (f, installed) in programs.items():
            if which == "first" and name != "first":
                continue
            jc.install() if installed else jc.uninstall()
            events.clear()
            actual = jax.jit(with_gradients(f))(split, w)
            hit = events.count("cache_hits") > 0
            pairs = zip(actual, expected[family, name], strict=True)
            error = max(float(np.abs(np.asarray(a) - np.asarray(e)).max()) for a, e in pairs)
            result[f"{family}, {name}"] = {"error": error, "hit": hit}
    print(json.dumps(result))


def with_gradients(f):
    def step(x, w):
        y, vjp = jax.vjp(f, x, w)
        return y, *vjp(jnp.cos(y))

    return step


if __name__ == "__main__":
    main(*sys.argv[1:])
