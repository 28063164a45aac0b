"""CUDA graphs: launches that XLA records in command buffers and replays give the bits of plain launches.

The handlers show whether something was recorded: a replayed graph does not call them.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from backends import BACKENDS

SUPPORT = Path(__file__).parents[1] / "support"
# The kinds of launches that are recorded: only custom calls, all that XLA can record, none of them. XLA
# refuses to start with a flag that it does not know, so a renamed flag cannot remain unnoticed.
FLAGS = {
    "ours": "--xla_gpu_enable_command_buffer=CUSTOM_CALL --xla_gpu_graph_min_graph_size=1",
    "all": "--xla_gpu_enable_command_buffer=+CUSTOM_CALL --xla_gpu_graph_min_graph_size=1",
    "none": "--xla_gpu_enable_command_buffer=",
}
# Two convolutions and two poolings: each forward pass, dgrad and wgrad of both, and pooling's two gradients.
FEWEST_CALLS = 10
STEPS = 5


def digests(flags):
    """The output of the program."""
    env = dict(os.environ, XLA_FLAGS=f"{os.environ.get('XLA_FLAGS', '')} {flags}")
    env["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    done = subprocess.run(
        [sys.executable, SUPPORT / "cuda_graph_digests.py"],
        env=env,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, f"with {flags!r}:\n{done.stderr[-4000:]}"
    return json.loads(done.stdout.splitlines()[-1])


def check_plain(found):
    """Asserts that without recording every call reaches its handler, and equal steps give equal bits."""
    for backend, of_backend in found.items():
        assert of_backend["calls_a_step"] >= FEWEST_CALLS, backend
        assert of_backend["calls"] == STEPS * of_backend["calls_a_step"], backend
        assert len(set(of_backend["same"])) == 1, backend
        assert of_backend["steps"][0] == of_backend["same"][0]
        assert len(set(of_backend["steps"])) == len(of_backend["steps"]) == STEPS, (
            "the parameters did not change"
        )


def check_recorded(found, plain, flags):
    """Asserts that recorded steps have the bits of plain launches with fewer calls.

    A step may be launched plainly once, to warm up, and is recorded once; the other steps on the same buffers
    are replays.
    """
    assert set(found) == set(plain)
    for backend, of_backend in found.items():
        calls, a_step = of_backend["calls"], of_backend["calls_a_step"]
        assert calls <= (STEPS - 1) * a_step, (
            f"{backend}: of {STEPS * a_step} calls {calls} reached the handlers, so XLA replayed no graph "
            f"with {flags!r}: it did not take our custom calls into a command buffer"
        )
        for part in ("same", "steps"):
            assert of_backend[part] == plain[backend][part], f"{backend}: {part}"


@pytest.mark.cuda_device
def test_replays_give_the_same_bits():
    found = {name: digests(flags) for name, flags in FLAGS.items()}
    check_plain(found["none"])
    assert set(found["none"]) >= set(BACKENDS)
    for name in ("ours", "all"):
        check_recorded(found[name], found["none"], FLAGS[name])


def test_plain_launches_in_the_emulator():
    """The program and its count of calls work without graphs, and the check fails without a graph."""
    found = digests("")
    check_plain(found)
    with pytest.raises(AssertionError, match="replayed no graph"):
        check_recorded(found, found, "")


@pytest.mark.parametrize("flags", FLAGS.values(), ids=FLAGS)
def test_this_xla_knows_the_flags(flags):
    """XLA reads the flags of every platform; without this test a renamed flag would only fail on a GPU."""
    for text, known in ((flags, True), (flags.replace("buffer=", "buffer=NO_SUCH_KIND,"), False)):
        done = subprocess.run(
            [sys.executable, "-c", "import jax; jax.numpy.zeros(1).block_until_ready()"],
            env=dict(os.environ, JAX_PLATFORMS="cpu", XLA_FLAGS=text), capture_output=True, timeout=100,
        )  # fmt: skip
        assert (done.returncode == 0) == known, done.stderr[-500:]
