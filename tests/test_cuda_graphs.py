"""CUDA graphs: what XLA records in command buffers gives, replayed, the bits of plain launches."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import BACKENDS

HERE = Path(__file__).parent
# Which kinds of launch are recorded: custom calls by themselves, all that XLA can, none.
FLAGS = {
    "ours": "--xla_gpu_enable_command_buffer=CUSTOM_CALL --xla_gpu_graph_min_graph_size=1",
    "all": "--xla_gpu_enable_command_buffer=+CUSTOM_CALL --xla_gpu_graph_min_graph_size=1",
    "none": "--xla_gpu_enable_command_buffer=",
}


def digests(flags, folder):
    """What the program prints, and how many of its compiled steps launch a command buffer."""
    env = dict(os.environ, XLA_FLAGS=f"{os.environ.get('XLA_FLAGS', '')} {flags} --xla_dump_to={folder}")
    env["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    done = subprocess.run(
        [sys.executable, HERE / "cuda_graph_digests.py"], env=env, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    # Written where the passes that make command buffers have changed something.
    launches = [path.read_text() for path in folder.glob("*jit_step*thunk_sequence_after_thunk_passes*.txt")]
    return json.loads(done.stdout.splitlines()[-1]), sum("kCommandBuffer" in text for text in launches)


@pytest.mark.cuda_device
def test_replays_give_the_same_bits(tmp_path):
    found = {name: digests(flags, tmp_path / name) for name, flags in FLAGS.items()}
    assert found["none"][1] == 0
    for name in ("ours", "all"):
        assert found[name][1] >= len(BACKENDS), f"{name}: {found[name][1]} steps were recorded"
        assert found[name][0] == found["none"][0]
    for backend, of_backend in found["none"][0].items():
        assert len(set(of_backend["same"])) == 1, backend
        assert of_backend["steps"][0] == of_backend["same"][0]
        assert len(set(of_backend["steps"])) == len(of_backend["steps"]), "the parameters did not change"
