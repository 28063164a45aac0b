"""What the benchmark makes of its numbers: ratios, the page, the pictures, and the instruction guard."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import instructions
import pytest
import report
from harness import summary
from harness.problems import Bias, Conv
from harness.tasks import Task

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def spread(median):
    return {"median": median, "q1": median * 0.9, "q3": median * 1.1, "samples": 9}


def made_up_results():
    """Ratios of 2, 4, 8 and so on to lax."""
    entries = []
    for power, name in enumerate("abcdef", 1):
        entry = Task(Conv.parse(name, "1x8x8x2, 3x3, 4"), "fprop", "f32").entry()
        seconds = {"ours": spread(0.01), "lax": spread(0.01 * 2**power)}
        entries.append({**entry, "flops": 10**9, "bytes": 10**8, "seconds": seconds})
    entries[0]["unsupported"]["torch"] = "uneven padding"
    scaling = [
        {**entries[0], "series": "batch", "value": n, "seconds": {"ours": spread(seconds)}}
        for n, seconds in ((1, 0.01), (2, 0.012))
    ]
    return {
        "date": "2030-01-02",
        "command": ["python", "benchmarks/run.py", "--shapes", "a b"],
        "state": "complete",
        "machine": {"processor": "one of a kind"},
        "versions": {"jax": "0.0.0"},
        "settings": {
            "device": "cpu", "peers": ["lax", "torch"], "threads": 2, "batch": 8, "arithmetics": ["f32"],
            "seconds": None,
        },
        "peaks": {"flops": {"1": 1e11, "2": 2e11}, "copy": {"1": 2e10, "2": 4e10}},
        "others": 0.01,
        "layers": entries,
        "training": {"ours": {"seconds": spread(0.002)}, "lax": {"seconds": spread(0.01)}},
        "scaling": scaling,
        "left_out": {},
        "failures": [],
    }  # fmt: skip


def test_summary_of_made_up_results():
    results = made_up_results()
    assert summary.peers(results) == ["lax"]
    by_op, of_kind, all_of_them = summary.means(results)  # all are of one class: it is not said again
    assert [row[0] for row in (by_op, of_kind, all_of_them)] == ["conv fprop", "all of conv", "all"]
    assert all_of_them[1]["lax"] == pytest.approx(2**3.5)
    assert [entry["name"] for _, entry in summary.worst(results, "lax")] == list("abcde")
    assert summary.flatness(results) == [("batch", "fprop", pytest.approx(1.2))]


def test_a_busy_machine_is_told():
    results = made_up_results()
    assert summary.disturbed(results) is None
    results["others"] = 0.3
    assert "took 30 % of the machine's processors" in summary.disturbed(results)
    results["peaks"]["flops"]["2"] = 1.2e11
    assert "2 threads reached 60 %" in summary.disturbed(results)
    assert report.sections(results)["A warning"] == summary.disturbed(results)


def test_page_of_made_up_results(tmp_path):
    (tmp_path / "results.json").write_text(json.dumps(made_up_results()))
    (tmp_path / "ratios.png").touch()
    (tmp_path / "notes.md").write_text("## Why\n\nBecause.\n")
    page = tmp_path / "docs" / "page.md"
    page.parent.mkdir()
    subprocess.run(
        [sys.executable, BENCHMARKS / "report.py", tmp_path / "results.json", "-o", page], check=True
    )
    text = page.read_text()
    for said in (
        "python benchmarks/run.py --shapes 'a b'",
        "one of a kind",
        "(../ratios.png)",
        "2030-01-02",
        "a fprop f32, torch: uneven padding",
    ):
        assert said in text
    assert "roofline.png" not in text
    assert text.endswith("## Why\n\nBecause.\n")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line[:1] == "|"]
    # 1e9 FLOPs and 1e8 bytes in 10 ms: half of 200 GFLOP/s and a quarter of 40 GB/s.
    assert ["b", "fprop", "10", "20 %", "4.00", "100.0", "50 %", "10.0", "25 %"] in rows
    assert ["all", "6", "11.3"] in rows
    assert ["lax", "10", "5.00"] in rows


def test_pictures_of_made_up_results(tmp_path):
    plots = pytest.importorskip("harness.plots")
    drawn = plots.draw(made_up_results(), tmp_path)
    assert [path.name for path in drawn] == ["ratios.png", "roofline.png", "scaling.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in drawn)


def counts_file(tmp_path, monkeypatch, allowed):
    file = tmp_path / "counts.toml"
    entry = f'{{ op = "dgrad", layer = "1x4x2, 3, 6", {instructions.ISA} = {allowed} }}'
    file.write_text(f"# what it is\n\ncounts = [{entry}]")
    monkeypatch.setattr(instructions, "COUNTS", file)
    # 1000 to start with, and 3 for each of a run's 2 * 3 * 2 * 6 products.
    monkeypatch.setattr(
        instructions, "working_counter", lambda program: lambda command: 1000 + int(command[3]) * 3 * 72
    )
    return file


@pytest.mark.parametrize("allowed, fails", [(2.7, True), (2.8, False), (3.5, False)])
def test_more_instructions_fail(tmp_path, monkeypatch, capsys, allowed, fails):
    counts_file(tmp_path, monkeypatch, allowed)
    monkeypatch.setattr(sys, "argv", ["instructions.py", "--program", str(tmp_path)])
    if fails:
        with pytest.raises(SystemExit, match="1 kernels take more than"):
            instructions.main()
    else:
        instructions.main()
    assert ("MORE" in capsys.readouterr().out) == fails


def test_counts_are_written(tmp_path, monkeypatch):
    file = counts_file(tmp_path, monkeypatch, 9.9)
    monkeypatch.setattr(sys, "argv", ["instructions.py", "--program", str(tmp_path), "--update"])
    instructions.main()
    assert file.read_text().startswith("# what it is\n")
    assert tomllib.loads(file.read_text()) == {
        "counts": [{"op": "dgrad", "layer": "1x4x2, 3, 6", instructions.ISA: 3.0}]
    }


def test_the_arguments_of_a_count():
    """N, C, K, groups, then for each of three axes what the native problem has, in its order."""
    problem = Conv.parse("", "1x4x8x2, 3x1, 6, stride 1x2, pad 1x0, groups 2")
    whole, rows, columns = "1 1 1 1 0 1 1", "4 3 4 1 1 1 1", "8 1 4 2 0 1 1"
    numbers = f"fprop {instructions.ISA} 3 1 2 6 2 {whole} {rows} {columns}"
    assert instructions.arguments(problem, "fprop", 3) == numbers.split()
    bias = f"bgrad {instructions.ISA} 1 2 3 3 3 {whole} 5 1 5 1 0 1 1 4 1 4 1 0 1 1"
    assert instructions.arguments(Bias("", (2, 5, 4, 3)), "bgrad", 1) == bias.split()


def test_every_counted_kernel_can_be_read():
    entries = tomllib.loads(instructions.COUNTS.read_text())["counts"]
    assert len(entries) > 20
    for entry in entries:
        problem, _ = instructions.read_entry(entry)
        assert problem.text == entry["layer"]
        assert entry["avx2"] > 0.1
