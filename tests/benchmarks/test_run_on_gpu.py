"""The script of a run on a GPU: its sections and limits with made-up commands, its arguments, and a trial."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from backends import PLATFORM, cuda_backend

from jax_convgrad.primitives import targets

ROOT = Path(__file__).resolve().parents[2]
SCRIPT, SECTIONS = ROOT / "benchmarks" / "run_on_gpu.sh", ROOT / "benchmarks" / "sections.sh"


def sections(tmp_path, text, seconds=60):
    """Runs the lines between sections_begin and sections_end; its status and the summary."""
    program = f"source {SECTIONS}\nsections_begin {seconds} summary\n{text}\nsections_end\n"
    done = subprocess.run(["bash", "-uc", program], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert not done.stderr
    summary = (tmp_path / "summary").read_text()
    assert done.stdout.endswith("\n" + summary)
    rows = [(line[:16].strip(), line[17:39].strip(), line[48:]) for line in summary.splitlines()]
    return done.returncode, rows


@pytest.mark.parametrize("file", [SCRIPT, SECTIONS], ids=lambda file: file.name)
def test_bash_reads_it(file):
    subprocess.run(["bash", "-n", file], check=True)
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", "-x", file], check=True, cwd=ROOT)


def test_each_section_has_its_log_and_its_line(tmp_path):
    status, rows = sections(
        tmp_path, "section one 9 a.log echo well\nsection two 9 a.log printf 'no\\nend\\n\\n'"
    )
    assert status == 0
    assert rows == [("one", "ok", "well"), ("two", "ok", "end")]
    assert (tmp_path / "a.log").read_text() == "well\nno\nend\n\n"


def test_a_failure_does_not_keep_the_next_from_running(tmp_path):
    status, rows = sections(
        tmp_path,
        "section bad 9 a.log bash -c 'echo told >&2; exit 3'\nsection missing 9 b.log no_such_command\n"
        "section good 9 c.log true",
    )
    assert status == 1
    assert rows[0] == ("bad", "FAILED (3)", "told")
    assert rows[1][:2] == ("missing", "FAILED (127)")
    assert rows[2][:2] == ("good", "ok")


def test_what_cannot_be_run_says_so_and_is_no_failure(tmp_path):
    status, rows = sections(tmp_path, "section tool 9 a.log bash -c 'echo not on this machine; exit 77'")
    assert (status, rows) == (0, [("tool", "not run", "not on this machine")])


def test_a_section_is_stopped_at_its_limit(tmp_path):
    status, rows = sections(
        tmp_path, "section slow 1 a.log bash -c 'echo begun; sleep 50'\nsection next 9 b.log true"
    )
    assert status == 1
    assert rows == [("slow", "stopped at its limit", "begun"), ("next", "ok", "")]


def test_no_section_runs_past_the_deadline(tmp_path):
    status, rows = sections(tmp_path, "section slow 50 a.log sleep 50\nsection late 50 b.log echo never", 1)
    assert status == 1
    assert rows == [("slow", "stopped at its limit", ""), ("late", "left out", "the time was over")]
    assert not (tmp_path / "b.log").exists()


def test_an_exported_function_is_a_command(tmp_path):
    status, rows = sections(tmp_path, "f() { echo \"$1 and $2\"; }\nexport -f f\nsection f 9 a.log f 'a b' c")
    assert (status, rows) == (0, [("f", "ok", "a b and c")])


def run_script(*arguments, **environment):
    return subprocess.run(
        [SCRIPT, *arguments], capture_output=True, text=True, env={**os.environ, **environment}, timeout=280
    )


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--fast"], "unknown argument --fast"),
        (["--out"], "--out needs a value"),
        (["--seconds", "many"], "--seconds many is not a number"),
        (["--only", "suite,all", "--trial"], "--only does not know all"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    done = run_script(*arguments)
    assert done.returncode == 2 and message in done.stderr


def test_help_and_a_machine_without_a_gpu():
    assert "--build-only" in run_script("--help").stdout
    inside = subprocess.run(
        ["./run_on_gpu.sh", "--help"], cwd=SCRIPT.parent, capture_output=True, text=True, timeout=60
    )
    assert "--build-only" in inside.stdout and not inside.stderr
    if not shutil.which("nvidia-smi"):
        done = run_script()
        assert done.returncode == 2 and "reports no GPU" in done.stderr


def test_the_files_of_the_suite_exist():
    files = re.findall(r"\b(?:tests|benchmarks)/[\w/]+\.(?:py|sh)", SCRIPT.read_text())
    assert len(files) > 15
    assert all((ROOT / name).exists() for name in files)


@pytest.mark.parametrize("backend", [cuda_backend("reference")], indirect=True)
def test_a_kernel_s_own_file_is_in_the_suite(backend):
    suite = re.search(r"SUITE=\((.*?)\)", SCRIPT.read_text(), re.DOTALL)[1].split()
    for kernel in targets.backends[PLATFORM].module.kernels():
        own = [f"tests/kernels/test_{kernel}.py", f"tests/kernels/test_cuda_{kernel}.py"]
        assert all(name in suite for name in own if (ROOT / name).exists()), kernel


def test_a_package_of_other_sources_is_not_used(tmp_path):
    """Without nvcc it cannot be built, so the run says what is wrong instead of measuring an old package."""
    (tmp_path / "sources.sha256").write_text("0000\n")
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("bash", "find", "sort", "xargs", "sha256sum", "cut", "cat", "date", "dirname", "head", "sed",
                 "awk", "tr"):  # fmt: skip
        (tools / name).symlink_to(shutil.which(name))
    done = run_script("--build-only", "--package", str(tmp_path), PATH=str(tools))
    assert done.returncode == 1
    assert f"nvcc is missing, and {tmp_path} was built from other sources" in done.stdout


@pytest.fixture
def machine_with_a_gpu(tmp_path):
    """Runs the script where GPU, compiler, sanitizer and Python are made up; what they are told is noted."""
    tools = tmp_path / "tools"
    tools.mkdir()

    def put(name, text):
        (tools / name).write_text("#!/bin/bash\n" + text)
        (tools / name).chmod(0o755)

    put("nvidia-smi", 'case "$*" in *=name*) echo "NVIDIA H100 80GB HBM3" ;; *compute_cap*) echo 9.0 ;; esac')
    put("nvcc", "echo 'release 13.0, made up'")
    put(
        "compute-sanitizer",
        '[ "$1" != --help ] || { echo "  --padding arg"; exit; }\n'
        'echo "$1 $2 ${*: -3}"\necho "sanitizer $*" >> "$TOLD"\n[ "$2" != "$BROKEN" ] || exit 9',
    )
    put(
        "python",
        'echo "$JAX_CONVGRAD_TEST_DEVICE|$JAX_PLATFORMS|$PYTHONPATH| $*" >> "$TOLD"\n'
        'case "$*" in *"pip install"*) folder=$(sed "s/.*--target \\([^ ]*\\).*/\\1/" <<< "$*")\n'
        'mkdir -p "$folder/jax_convgrad"; echo made up > "$folder/jax_convgrad/_cuda.abi3.so" ;; esac\n'
        'echo "python is done"',
    )

    def run(*arguments, **environment):
        return run_script(
            "--python", str(tools / "python"), "--package", str(tmp_path / "package"),
            "--out", str(tmp_path / "out"), *arguments,
            PATH=f"{tools}:{os.environ['PATH']}", TOLD=str(tmp_path / "told"), PYTHONPATH="",
            **{"BROKEN": "", **environment},
        )  # fmt: skip

    return run


def test_what_a_gpu_s_run_starts(tmp_path, machine_with_a_gpu):
    done = machine_with_a_gpu()
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line.split()[:2] for line in (tmp_path / "out" / "sections.txt").read_text().splitlines()]
    names = ("package", "machine", "suite", "further", "sanitizer", "benchmark")
    assert rows == [[name, "ok"] for name in names]
    told = (tmp_path / "told").read_text().splitlines()
    (build,) = (line for line in told if "pip install" in line)
    assert "CMAKE_CUDA_ARCHITECTURES=90a-real" in build and "JAX_CONVGRAD_CUDA=ON" in build
    suite, further = (line for line in told if "-m pytest" in line)
    package = f"cuda|cuda,cpu|{tmp_path / 'package'}| "
    assert suite.startswith(package + "-P -m pytest") and "tests/layers/test_gradients.py" in suite
    assert further.startswith(package) and "tests/layers/test_pooling.py" in further
    tools = [line.split()[2] for line in told if line.startswith("sanitizer --tool")]
    assert sorted(tools) == ["memcheck", "racecheck", "synccheck"]
    assert sum("--padding" in line for line in told) == 1
    (benchmark,) = (line for line in told if "benchmarks/run.py" in line)
    assert f"|cuda,cpu|{tmp_path / 'package'}| benchmarks/run.py --device cuda --seconds 4" in benchmark
    assert "three tools found nothing" in (tmp_path / "out" / "sanitizer.log").read_text()


def test_a_built_package_is_used_again_and_a_finding_fails_the_run(tmp_path, machine_with_a_gpu):
    assert machine_with_a_gpu("--build-only").returncode == 0
    done = machine_with_a_gpu("--quick", "--only", "package,sanitizer,benchmark", BROKEN="racecheck")
    assert done.returncode == 1
    lines = (tmp_path / "out" / "sections.txt").read_text().splitlines()
    assert [line.split()[:2] for line in lines] == [
        ["package", "ok"], ["machine", "ok"], ["sanitizer", "FAILED"], ["benchmark", "ok"],
    ]  # fmt: skip
    assert "already built from the same sources" in lines[0]
    told = (tmp_path / "told").read_text()
    assert told.count("pip install") == 1 and "--quick" in told and "-m pytest" not in told
    log = (tmp_path / "out" / "sanitizer.log").read_text()
    assert "racecheck: --tool racecheck" in log and log.endswith("compute-sanitizer: FAILED\n")


def test_a_trial(tmp_path):
    done = run_script(
        "--trial", "--python", sys.executable, "--out", str(tmp_path), "--seconds", "270",
        JAX_PLATFORMS="cpu", XLA_FLAGS="--xla_backend_optimization_level=0",
    )  # fmt: skip
    rows = {line[:16].strip(): line[17:] for line in (tmp_path / "sections.txt").read_text().splitlines()}
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert set(rows) == {"machine", "suite", "further", "sanitizer", "benchmark"}
    assert all(row.startswith("ok ") for row in rows.values())
    assert "passed" in rows["suite"]
    assert re.search(r"[1-9] kernels, 0 wrong results", rows["sanitizer"])
    assert "3 ops measured, 0 troubles, 0 left out" in rows["benchmark"]
    assert {path.name for path in tmp_path.iterdir()} == {
        "machine.txt", "sections.txt", "tests.log", "sanitizer.log", "benchmark.log", "results.json",
        "report.md",
    }  # fmt: skip
    assert "## Goals" in done.stdout and "## Every layer" not in done.stdout
