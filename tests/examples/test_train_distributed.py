"""Two processes over jax.distributed: the same parameters in both, and those of one process to rounding."""

import numpy as np
from examples_run import run_example


def train(folder, *arguments):
    """The parameters that each process ended with, and what was printed."""
    folder.mkdir()
    # One device a process, whatever the suite's own flags say.
    options = ("--steps", 12, "--batch-size", 8, "--save", folder, *arguments)
    done = run_example("train_distributed", *options, XLA_FLAGS="", JAX_PLATFORMS="cpu")
    assert done.returncode == 0, done.stderr
    return [dict(np.load(file)) for file in sorted(folder.iterdir())], done.stdout


def test_two_processes_train_as_one(tmp_path):
    (first, second), printed = train(tmp_path / "two")
    assert printed.startswith("2 processes on this machine, 4 images each per step\n")
    assert "the 2 processes ended with identical parameters" in printed
    (alone,), _ = train(tmp_path / "one", "--processes", "1")
    (shorter,), _ = train(tmp_path / "shorter", "--processes", "1", "--steps", "11")
    for name in alone:
        np.testing.assert_array_equal(first[name], second[name])
        # The mean over a batch is added up in another order, twelve times.
        np.testing.assert_allclose(first[name], alone[name], rtol=0, atol=2e-6)
        assert np.abs(alone[name] - shorter[name]).max() > 2e-5, "one step more or less would not be seen"


def test_a_batch_that_cannot_be_shared_out_is_refused():
    done = run_example("train_distributed", "--batch-size", 9)
    assert done.returncode != 0
    assert "--batch-size 9 is not divisible by --processes 2" in done.stderr
