"""Trains the network of train_cnn.py data-parallel in several processes, each with a part of every batch.

python examples/train_distributed.py                  # two processes on this machine
python examples/train_distributed.py --processes 1    # the same run in one, to compare

On several machines start it on each, with the same address of the first and a number of its own:

python examples/train_distributed.py --coordinator HOST:PORT --processes 2 --process-id 0
"""

import argparse
import hashlib
import socket
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from command_line import example_parser, positive
from digits import load_bundled
from jax.experimental import multihost_utils
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from train_cnn import LAYERS, init_params, make_evaluate, make_train_step, shuffled_batches


def train(args: argparse.Namespace) -> dict[str, np.ndarray]:
    """Trains for args.steps; returns the parameters."""
    digits = load_bundled()
    mesh = jax.make_mesh((jax.device_count(),), ("batch",), axis_types=(AxisType.Auto,))
    split, same = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in (("batch",), ()))

    def on_all_devices(tree):
        return jax.tree.map(lambda leaf: jax.make_array_from_process_local_data(same, np.asarray(leaf)), tree)

    def part_of_batch(array):
        """The whole batch, of which this process brings its part."""
        mine = np.split(array, args.processes)[args.process_id]
        return jax.make_array_from_process_local_data(split, mine)

    # Every process starts with the same filters and draws the same batches. What the step needs to know of
    # the others is in the arrays' shardings: XLA adds up the gradients of the parts.
    optimizer = optax.sgd(args.learning_rate, momentum=0.9)
    train_step = make_train_step(LAYERS["handwritten"], optimizer)
    params = init_params(jax.random.key(args.seed), digits.train_images.shape[1:])
    opt_state = on_all_devices(optimizer.init(params))
    params = on_all_devices(params)
    rng = np.random.default_rng(args.seed)
    step = 0
    while step < args.steps:
        for images, labels in shuffled_batches(
            rng, digits.train_images, digits.train_labels, args.batch_size
        ):
            params, opt_state, loss, _ = train_step(
                params, opt_state, part_of_batch(images), part_of_batch(labels)
            )
            step += 1
            if args.process_id == 0 and (step == args.steps or step % 20 == 0):
                print(f"step {step:4d}   loss {float(loss):.4f}", flush=True)
            if step == args.steps:
                break

    params = jax.device_get(params)
    if args.process_id == 0:
        evaluate = make_evaluate(LAYERS["handwritten"], args.batch_size)
        _, accuracy = evaluate(params, digits.test_images, digits.test_labels)
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
        jax.distributed.shutdown()  # waits for the others to come here too


def run_all(args: argparse.Namespace) -> None:
    """The whole run on this machine: this process is the first, and starts the others."""
    with socket.socket() as any_free:
        any_free.bind(("localhost", 0))
        args.coordinator = f"localhost:{any_free.getsockname()[1]}"
    args.process_id = 0
    each, s = args.batch_size // args.processes, "" if args.processes == 1 else "es"
    print(f"{args.processes} process{s} on this machine, {each} images each a step", flush=True)
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


def main() -> None:
    parser = example_parser(__doc__)
    option = parser.add_argument
    option("--processes", type=positive(int), default=2, help="default: %(default)s")
    option("--process-id", type=int, help="which of them this is; without it, all are started here")
    option("--coordinator", metavar="HOST:PORT", help="where process 0 listens")
    option("--steps", type=positive(int), default=200, help="default: %(default)s")
    option("--batch-size", type=positive(int), default=32, help="of all processes (default: %(default)s)")
    option("--learning-rate", type=positive(float), default=2e-2, help="default: %(default)s")
    option("--save", type=Path, metavar="DIR", help="write each process's parameters there")
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
