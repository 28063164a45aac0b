"""Trains the network of train_cnn.py in several processes, each with a part of every batch.

python examples/train_distributed.py                  # two processes on this machine
python examples/train_distributed.py --processes 1    # the same run in one, to compare

On several machines, start it on each one with the address of the first machine and a different number:

python examples/train_distributed.py --coordinator HOST:PORT --processes 2 --process-id 0
"""

import argparse
import hashlib
import math
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.experimental import multihost_utils
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jax_convgrad import conv, max_pool

CLASSES = 10
CHANNELS = (16, 32)


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


# The network.


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


def predict(params, images):
    """The logits [N, 10] of images [N, height, width, 1]: conv, relu, pool, conv, relu, pool, linear."""
    x = images
    for w, b in ("w1", "b1"), ("w2", "b2"):
        x = max_pool(conv(x, params[w], params[b], padding="SAME", activation="relu"), (2, 2), strides=(2, 2))
    return x.reshape(len(x), -1) @ params["w3"] + params["b3"]


def make_train_step(optimizer: optax.GradientTransformation):
    """One jitted step: (params, opt_state, images, labels) -> (params, opt_state, loss)."""

    def loss_fn(params, images, labels):
        logits = predict(params, images)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    @jax.jit
    def train_step(params, opt_state, images, labels):
        loss, grads = jax.value_and_grad(loss_fn)(params, images, labels)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, loss

    return train_step


# The run.


def train(args: argparse.Namespace) -> dict[str, np.ndarray]:
    """Trains for args.steps; returns the parameters."""
    digits = load_bundled()
    mesh = jax.make_mesh((jax.device_count(),), ("batch",), axis_types=(AxisType.Auto,))
    split, same = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in (("batch",), ()))

    def on_all_devices(tree):
        return jax.tree.map(lambda leaf: jax.make_array_from_process_local_data(same, np.asarray(leaf)), tree)

    def part_of_batch(array):
        """The whole batch, of which this process supplies its part."""
        mine = np.split(array, args.processes)[args.process_id]
        return jax.make_array_from_process_local_data(split, mine)

    # Every process starts with the same filters and draws the same batches. The arrays' shardings contain all
    # that the step needs to know about the others: XLA adds up the gradients of the parts.
    optimizer = optax.sgd(args.learning_rate, momentum=0.9)
    train_step = make_train_step(optimizer)
    params = init_params(jax.random.key(args.seed), digits.train_images.shape[1:])
    opt_state = on_all_devices(optimizer.init(params))
    params = on_all_devices(params)
    rng = np.random.default_rng(args.seed)
    step = 0
    while step < args.steps:
        for images, labels in shuffled_batches(
            rng, digits.train_images, digits.train_labels, args.batch_size
        ):
            params, opt_state, loss = train_step(
                params, opt_state, part_of_batch(images), part_of_batch(labels)
            )
            step += 1
            if args.process_id == 0 and (step == args.steps or step % 20 == 0):
                print(f"step {step:4d}   loss {float(loss):.4f}", flush=True)
            if step == args.steps:
                break

    params = jax.device_get(params)
    if args.process_id == 0:
        accuracy = (predict(params, digits.test_images).argmax(-1) == digits.test_labels).mean()
        print(f"test accuracy: {accuracy:.4f}")
    return params


def digest(params: dict[str, np.ndarray]) -> bytes:
    return hashlib.sha256(b"".join(params[name].tobytes() for name in sorted(params))).digest()


def run(args: argparse.Namespace) -> None:
    """One process's part of the run."""
    if args.processes > 1:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(args.coordinator, args.processes, args.process_id)
    params = train(args)
    if args.save:
        np.savez(args.save / f"parameters-{args.process_id}.npz", **params)
    if args.processes > 1:
        mine = jnp.asarray(np.frombuffer(digest(params), np.uint8))
        digests = multihost_utils.process_allgather(mine)
        if (digests != digests[0]).any():
            sys.exit("the processes ended with different parameters")
        if args.process_id == 0:
            print(f"the {args.processes} processes ended with identical parameters")
        jax.distributed.shutdown()  # waits until the others are here too


def run_all(args: argparse.Namespace) -> None:
    """The whole run on this machine: this process is the first, and starts the others."""
    with socket.socket() as any_free:
        any_free.bind(("localhost", 0))
        args.coordinator = f"localhost:{any_free.getsockname()[1]}"
    args.process_id = 0
    each, s = args.batch_size // args.processes, "" if args.processes == 1 else "es"
    print(f"{args.processes} process{s} on this machine, {each} images each per step", flush=True)
    command = [sys.executable, __file__, *sys.argv[1:], "--coordinator", args.coordinator]
    others = [subprocess.Popen([*command, "--process-id", str(i)]) for i in range(1, args.processes)]
    try:
        run(args)
        failed = [code for other in others if (code := other.wait())]
        if failed:
            sys.exit(f"{len(failed)} of the processes failed")
    finally:
        for other in others:
            other.kill()


def positive(kind: type[int] | type[float]) -> Callable[[str], int | float]:
    """An argparse type: a number of this kind, greater than zero and finite."""

    def parse(text: str) -> int | float:
        value = kind(text)
        if not 0 < value < math.inf:
            raise argparse.ArgumentTypeError(f"{text} is not greater than zero and finite")
        return value

    parse.__name__ = kind.__name__
    return parse


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    option = parser.add_argument
    option("--processes", type=positive(int), default=2, help="default: %(default)s")
    option("--process-id", type=int, help="this process' number; without it, all processes start here")
    option("--coordinator", metavar="HOST:PORT", help="the address where process 0 listens")
    option("--steps", type=positive(int), default=200, help="default: %(default)s")
    option("--batch-size", type=positive(int), default=32, help="for all processes (default: %(default)s)")
    option("--learning-rate", type=positive(float), default=2e-2, help="default: %(default)s")
    option("--save", type=Path, metavar="DIR", help="write each process' parameters to this folder")
    option("--seed", type=int, default=0, help="for all random numbers (default: %(default)s)")
    args = parser.parse_args()
    if args.batch_size % args.processes:
        parser.error(f"--batch-size {args.batch_size} is not divisible by --processes {args.processes}")
    if args.process_id is None:
        run_all(args)
    elif args.coordinator is None:
        parser.error("--process-id needs --coordinator")
    else:
        run(args)


if __name__ == "__main__":
    main()
