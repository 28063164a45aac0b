"""The benchmark of whole training steps: models in both libraries, profile, tables, on tiny nets."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import steps
from whole_steps import jax_steps, memory, running, start, table, trace
from whole_steps.layers import Layers, own_layers
from whole_steps.registry import NETS, batch_of

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
TINY = [net for net in NETS.values() if net.hidden]


def first_step(net, layers):
    """A function as start.py takes it."""
    step = jax.jit(jax_steps.step_of(net, layers))
    return lambda arrays, batch: jax_steps.found(*step(jax_steps.state_of(arrays), batch))


def written(net, folder):
    """The net's initial variables, when lax's first step lies in the folder."""
    start.write(folder, jax_steps.initial(net), net, first_step(net, Layers()))
    return start.read(folder)


@pytest.mark.parametrize("name", ["tiny.resnet", "tiny.dcgan", "tiny.dilated"])
def test_own_layers_make_the_same_step(name, tmp_path):
    net = NETS[name]
    arrays = written(net, tmp_path)
    assert start.compared(tmp_path, arrays, net, first_step(net, own_layers()))["disagreement"] <= 1


@pytest.mark.parametrize("net", TINY, ids=lambda net: net.name)
def test_torch_makes_the_same_step(net, tmp_path):
    torch_peer = pytest.importorskip("whole_steps.torch_peer", reason="PyTorch is not installed")
    written(net, tmp_path)
    peer = torch_peer.Peer(net, ["contiguous", "channels_last"], tmp_path, 1)
    assert list(peer.ways) == ["contiguous", "channels_last"][: 1 + (len(net.x) > 3)]
    assert all(of["disagreement"] <= 1 for of in peer.prepared["compared"].values())


def test_another_step_is_told(tmp_path):
    net = NETS["tiny.dilated"]
    right = first_step(net, Layers())
    start.write(tmp_path, jax_steps.initial(net), net, right)

    def wrong(arrays, batch):
        result = dict(right(arrays, batch))
        result["model/params/dilated0/kernel"] = result["model/params/dilated0/kernel"] * np.float32(1.01)
        return result

    found = start.compared(tmp_path, start.read(tmp_path), net, wrong)
    assert found["disagreement"] > 1
    assert found["difference"] == pytest.approx(0.01, rel=0.05)


def test_the_full_nets_have_the_published_sizes():
    """Their papers round them; these are the numbers of parameters in torchvision, with 1000 classes."""
    published = {"resnet50": 25_557_032, "mobilenetv2": 3_504_872, "efficientnet": 5_288_548}
    for name, count in published.items():
        model = NETS[name].models["model"]
        module = jax_steps.made(model, Layers())
        x = jax.ShapeDtypeStruct(NETS[name].x, np.float32)
        variables = jax.eval_shape(module.init, jax.random.key(0), x)
        assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == count


PROGRAM = """HloModule jit_step

%fused_computation (p: f32[4]) -> f32[4] {
  %p = f32[4]{0} parameter(0)
  %sub.1 = f32[4]{0} subtract(%p, %p), metadata={op_name="jit(step)/jvp(Net)/block1_0/bn2/sub"}
  ROOT %max.1 = f32[4]{0} maximum(%sub.1, %p), metadata={op_name="jit(step)/jvp(Net)/jit(relu)/max"}
}

ENTRY %main (x: f32[4]) -> (f32[4], f32[4]) {
  %x = f32[4]{0} parameter(0)
  %copy.3 = f32[4]{0} copy(%x)
  %jax_convgrad_fprop.2 = (f32[4]{0}, u8[0]{0}) custom-call(%copy.3), custom_call_target="jax_convgrad_fprop"
  %fusion.7 = f32[4]{0} fusion(%copy.3), kind=kLoop, calls=%fused_computation, \
metadata={op_name="jit(step)/jvp(Net)/jit(relu)/max"}
  %dot.1 = f32[4]{0} dot(%fusion.7, %x), metadata={op_name="jit(step)/transpose(jvp(N))/level1_0/dot_general"}
  %add.5 = f32[4]{0} add(%dot.1, %x), metadata={op_name="jit(step)/add"}
  ROOT %tuple.1 = (f32[4]{0}, f32[4]{0}) tuple(%add.5, /*index=1*/%x)
}
"""


def test_operations_are_told_apart():
    known = trace.operations(PROGRAM)
    kinds = {
        name: known[name].kind() for name in ("copy.3", "jax_convgrad_fprop.2", "fusion.7", "dot.1", "add.5")
    }
    assert list(kinds.values()) == ["copies", table.OURS, "norms", "matrix products", "optimizer"]
    assert known["fusion.7"].origin() == "forward: max"
    assert known["dot.1"].origin() == "backward: level dot_general"
    assert known["add.5"].origin() == "update: add"


def test_operations_at_the_same_time_share_it():
    of_run = [trace.Span(1, "a", 0.0, 4.0), trace.Span(1, "b", 1.0, 2.0), trace.Span(1, "a", 6.0, 7.0)]
    assert trace.shares(of_run) == {"a": 4.5, "b": 0.5}


def test_the_profile_finds_our_calls():
    net = NETS["tiny.dilated"]
    arrays, batch = jax_steps.initial(net), jax.device_put(batch_of(net))
    step = jax.jit(jax_steps.step_of(net, own_layers())).lower(jax_steps.state_of(arrays), batch).compile()
    state = jax_steps.state_of(arrays)
    found = trace.profile(step.as_text(), lambda: jax.block_until_ready(step(state, batch)), 3)
    # Six convolutions, each forward and by its filter and its bias; all but the first by their inputs.
    assert found["kinds"][table.OURS]["count"] == 6 + 6 + 6 + 5
    assert 0 < found["kinds"][table.OURS]["seconds"] < found["seconds"]
    assert found["seconds"] == pytest.approx(sum(kind["seconds"] for kind in found["kinds"].values()))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells")
def test_memory_of_a_step_is_measured():
    def run():
        np.ones(50 << 20, np.uint8).sum()

    assert 49 << 20 < memory.growth(run) < 60 << 20


def agrees(disagreement):
    return {"disagreement": disagreement, "difference": 0.001}


def entry(name="unet", **changed):
    """A net of which ours takes 20 ms, half of them XLA's."""
    least = {"lax": 0.06, "install": 0.02, "own": 0.01, "contiguous": 0.04, "channels_last": 0.03}
    kinds = {table.OURS: {"seconds": 0.5, "count": 3}, "norms": {"seconds": 0.5, "count": 2}}
    group = {
        "kind": "norms",
        "origin": "forward: bn sub",
        "example": "sub.1 f32[2]",
        "seconds": 0.5,
        "count": 2,
    }
    cost = {"compiling": 1.0, "program_bytes": 3 << 20}
    return {
        "name": name,
        "what": f"a {name}",
        "prepared": {
            "lax": cost,
            "install": {**cost, "compared": {"install": agrees(0.1)}},
            "torch": {"compared": {"contiguous": agrees(0.2), "channels_last": agrees(9.0)}},
        },
        "seconds": {way: {"least": time, "median": time, "steps": 3} for way, time in least.items()},
        "memory": {"lax": 5 << 20, "install": None, "contiguous": 7 << 20},
        "profile": {"install": {"seconds": 1.0, "kinds": kinds, "largest": [group]}},
        "errors": {},
        **changed,
    }


def test_the_tables_have_ratios_means_and_bounds():
    results = {"nets": [entry(), entry("dcgan", profile={})]}
    text = table.markdown(results)
    rows = {
        tuple(cell.strip() for cell in line.strip("|").split("|"))
        for line in text.splitlines()
        if "|" in line
    }
    # lax, install(), own, PyTorch, compiled; lax / install(), PyTorch / install(), PyTorch / own
    assert ("a unet", "60", "20", "10", "30", "", "3.00", "1.50", "3.00") in rows
    assert ("geometric mean", *[""] * 5, "3.00", "1.50", "3.00") in rows
    # our calls, norms, XLA's part; step, lax, PyTorch by XLA's part
    assert ("unet", "10", "10", "10", "2.00", "6.00", "3.00") in rows
    assert ("unet", "norms", "forward: bn sub", "sub.1 f32[2]", "2", "50 %") in rows
    assert not table.troubles(results["nets"][0])
    assert not table.troubles(entry(**compared("install", disagreement=0.9, difference=0.1)))
    assert not table.troubles(entry(**compared("compile", disagreement=3.0, difference=0.01)))


def compared(peer, **found):
    return {"prepared": {peer: {"compared": {"a way": found}}}}


@pytest.mark.parametrize(
    "changed, words",
    [
        (compared("install", disagreement=3.0, difference=0.01), "3 times"),
        (compared("torch", disagreement=3.0, difference=0.01), "3 times"),
        (compared("compile", disagreement=3.0, difference=0.1), "by 0.1 of"),
        (compared("compile", disagreement=3.0, difference=np.nan), "by nan of"),
        ({"errors": {"compile": "RuntimeError: no compiler"}}, "no compiler"),
    ],
)  # fmt: skip
def test_troubles_are_told(changed, words):
    wrong = entry(**changed)
    (trouble,) = table.troubles(wrong)
    assert words in trouble
    assert trouble in table.markdown({"nets": [wrong]}) and trouble in table.line(wrong)


def test_a_peer_that_fails_is_told_and_the_others_are_measured(monkeypatch):
    monkeypatch.setitem(running._LIBRARIES, "own", "no_such")
    found = running.measure(NETS["tiny.dilated"], ["own"], 0.0, 1, False)
    assert "No module named 'whole_steps.no_such_peer'" in found["errors"]["own"]
    assert found["seconds"]["lax"]["steps"] >= 1


def test_the_command_writes_results_beside_those_of_other_nets(tmp_path):
    out = tmp_path / "steps.json"
    out.write_text(json.dumps({"nets": [entry()]}))
    command = [sys.executable, BENCHMARKS / "steps.py", "--only", "tiny.dilated", "--peers", "install"]
    done = subprocess.run([*command, "--seconds", "0", "--out", out], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    results = json.loads(out.read_text())
    assert [net["name"] for net in results["nets"]] == ["unet", "tiny.dilated"]
    measured = results["nets"][1]
    assert measured["prepared"]["install"]["compared"]["install"]["disagreement"] <= 1
    assert measured["prepared"]["install"]["kernels"] > 0 and not measured["prepared"]["install"]["on_lax"]
    assert {"date", "others"} <= measured.keys()
    assert {"command", "machine", "versions", "settings"} <= results.keys()
    assert set(measured["profile"]) == {"lax", "install"}
    assert done.stdout.strip() == table.markdown(results)
    shown = subprocess.run([*command[:2], "--show", out], capture_output=True, text=True)
    assert shown.stdout == done.stdout


def test_nets_and_peers_are_chosen_by_name(capsys):
    assert [net.hidden for net in map(NETS.get, steps.parse_arguments([]).only)] == [False] * 10
    with pytest.raises(SystemExit):
        steps.parse_arguments(["--only", "resnet19"])
    assert "'resnet19' is not one of" in capsys.readouterr().err
