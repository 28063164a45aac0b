"""The readers of nvcc's reports, which find a spilled register in a fast kernel."""

import json
import subprocess
import sys
from pathlib import Path

import check
import ptxas
import pytest

FOLDER = Path(__file__).parents[1] / "cuda_compiler"


def report(architecture):
    return f"""\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_Z5tightPf' for '{architecture}'
ptxas info    : Function properties for _Z5tightPf
    712 bytes stack frame, 1240 bytes spill stores, 968 bytes spill loads
ptxas info    : Used 64 registers, used 1 barriers, 712 bytes cumulative stack size, 4096 bytes smem
ptxas info    : Compile time = 61.203 ms
ptxas info    : Compiling entry function '_Z5roomyPf' for '{architecture}'
ptxas info    : Function properties for _Z5roomyPf
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 30 registers, used 0 barriers, 360 bytes cmem[0]
"""


REPORT = "".join(map(report, check.ARCHITECTURES))


def test_spills_registers_and_shared_memory_are_read():
    kernels = ptxas.parse_report(REPORT)
    assert len(kernels) == 2 * len(check.ARCHITECTURES)
    assert kernels[:2] == [
        ptxas.Kernel("_Z5tightPf", "sm_80", registers=64, spill_bytes=1240 + 968, shared_bytes=4096),
        ptxas.Kernel("_Z5roomyPf", "sm_80", registers=30, spill_bytes=0),
    ]


def judged(name, text):
    kernels, losses = ptxas.parse_report(text), ptxas.parse_losses(text)
    return check.judge(ptxas.Compiled(Path(name), Path("none.o"), kernels, losses))


def test_a_spill_is_a_failure_in_a_fast_kernel_only():
    for name in (
        "tiled/filter.cu",
        "grouped/activation.cu",
        "gemm/fprop.cu",
        "wgmma/fprop.cu",
        "bias/bgrad.cu",
    ):
        lines, well = judged(name, REPORT)
        assert not well
        assert "sm_120: tight spills 2208 bytes" in lines
    assert judged("reference/sums.cu", REPORT)[1]


def test_an_architecture_without_a_kernel_is_a_failure():
    lines, well = judged("reference/sums.cu", "".join(map(report, check.ARCHITECTURES[:-1])))
    assert not well
    assert "sm_120: FAILED" in lines


@pytest.mark.parametrize(
    "loss",
    [
        "(C7510) Potential Performance Loss: wgmma.mma_async instructions are serialized due to insufficient "
        "register resources for the wgmma pipeline in the function '_Z5roomyPf'",
        "(C7504) Potential Performance Loss: 'setmaxnreg' ignored to maintain compatibility across "
        "compilation units.",
        "(C7517) warpgroup.wait is injected in around line 2730 by compiler to allow use of registers "
        "defined by GMMA in function '_Z5roomyPf'",
    ],
    ids=lambda loss: loss[1:6],
)
@pytest.mark.parametrize("name", ["wgmma/fprop.cu", "reference/sums.cu"])
def test_what_ptxas_made_slower_is_a_failure(tmp_path, name, loss):
    """A slower choice of ptxas fails in any file, even without spills, and in the launcher's saved report."""
    clean = REPORT.replace("1240 bytes", "0 bytes").replace("968 bytes", "0 bytes")
    assert judged(name, clean)[1]
    # ptxas writes it before the kernels of the last architecture.
    lines = clean.splitlines(keepends=True)
    lines.insert(len(lines) - 11, f"ptxas info    : {loss}\n")
    text = "".join(lines)
    printed, well = judged(name, text)
    assert not well
    assert f"FAILED, ptxas: {loss}" in printed.splitlines()[1]
    assert ptxas.parse_report(text) == ptxas.parse_report(clean)
    ptxas.report_file(Path(name), tmp_path).write_text(json.dumps({"object": "none.o", "report": text}))
    assert ptxas.compiled(Path(name), tmp_path).losses == (loss,)


@pytest.mark.parametrize("above", ["", "/home/ada/cuda_src/", "/home/ada/cuda_src/fork/"])
def test_a_file_is_called_by_its_path_below_the_last_cuda_src(above):
    assert ptxas.label(Path(f"{above}cuda_src/gemm/fprop.cu")) == "gemm/fprop.cu"
    assert ptxas.label(Path("some.cu")) == "some.cu"


def run_launcher(folder, status, source="some.cu"):
    """Runs nvcc_report.py in a separate folder, with a fake nvcc that prints its arguments."""
    launcher = folder / "tests" / "cuda_compiler" / "nvcc_report.py"
    launcher.parent.mkdir(parents=True, exist_ok=True)
    launcher.write_text((FOLDER / "nvcc_report.py").read_text())
    nvcc = folder / "nvcc"
    nvcc.write_text(f'#!/bin/sh\necho "$@" >&2\ncat << "END"\n{REPORT}END\nexit {status}\n')
    nvcc.chmod(0o755)
    command = [sys.executable, launcher, nvcc, "-O3", "-c", source, "-o", "some.o"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_the_launcher_keeps_the_report(tmp_path):
    reports = tmp_path / "build" / "nvcc"
    assert run_launcher(tmp_path, 0).returncode == 0
    kept = ptxas.compiled(Path("cuda_src/some.cu"), reports)
    assert kept.object == tmp_path / "some.o"
    assert kept.kernels == ptxas.parse_report(REPORT)
    asked = json.loads((reports / "some.json").read_text())["report"].splitlines()[0]
    assert asked == "-O3 -c some.cu -o some.o -Xptxas -v -Werror all-warnings"
    # A file whose next compilation fails loses its report.
    failed = run_launcher(tmp_path, 3)
    assert failed.returncode == 3
    assert "-Werror" in failed.stderr
    with pytest.raises(FileNotFoundError):
        ptxas.compiled(Path("cuda_src/some.cu"), reports)


def test_the_launcher_leaves_other_commands_alone(tmp_path):
    ran = run_launcher(tmp_path, 0, "some.cc")
    assert ran.stderr == "-O3 -c some.cc -o some.o\n"
    assert not (tmp_path / "build").exists()


def recipe(*arguments):
    """What make would run."""
    done = subprocess.run(
        ["make", "--dry-run", "--always-make", *arguments],
        cwd=FOLDER.parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


@pytest.mark.parametrize("target", ["cuda-compile", "sass", "cuda-table"])
def test_without_nvcc_make_says_what_it_leaves_out(target):
    left_out = recipe(target, "CUDACXX=", "REQUIRE_NVCC=0")
    assert f"make {target}: no nvcc on this machine" in left_out
    assert "exit 0" in left_out and "tests/cuda_compiler" not in left_out
    assert "exit 1" in recipe(target, "CUDACXX=", "REQUIRE_NVCC=1")
    assert "cmake --build --preset cuda" in recipe(target, "CUDACXX=/some/nvcc")


@pytest.mark.parametrize("target", ["test", "check"])
def test_no_test_waits_for_nvcc(target):
    commands = recipe(target, "CUDACXX=/some/nvcc")
    assert "cmake --build --preset dev" in commands
    assert "preset cuda" not in commands
    presets = json.loads((FOLDER.parents[1] / "CMakePresets.json").read_text())["configurePresets"]
    cuda = {preset["name"]: preset.get("cacheVariables", {}).get("JAX_CONVGRAD_CUDA") for preset in presets}
    assert cuda["base"] == "OFF" and cuda["dev"] is None
