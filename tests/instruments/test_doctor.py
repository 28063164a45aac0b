"""``python -m jax_convgrad doctor``: 0 where all is well; 1, with cause and remedy, however it is broken."""

import ast
import importlib.machinery
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jaxlib
import numpy as np
import pytest

import jax_convgrad
from jax_convgrad.instruments.doctor import (
    checks,
    gpu,
    kernels,
    machine,
    packages,
    processes,
    report,
    self_check,
)
from jax_convgrad.instruments.doctor.gpu import gpu_section
from jax_convgrad.instruments.doctor.processes import Failure, Outcome
from jax_convgrad.instruments.doctor.remedies import REMEDIES

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = Path(jax_convgrad.__file__).parent
SUFFIX = importlib.machinery.EXTENSION_SUFFIXES[0]
LIBRARY = next(PACKAGE.glob("_cpu.*"))


def doctor(*options, path="", cwd=None, flags=("-P",), **environment):
    """The finished process, in an environment without settings but those given."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("JAX_", "XLA_", "CUDA_", "PYTHONPATH", "LD_LIBRARY_PATH"))
    }
    return subprocess.run(
        [sys.executable, *flags, "-m", "jax_convgrad", "doctor", *options],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=cwd,
        env={**kept, "PYTHONPATH": str(path), **environment},
    )


def quick(code, **how):
    """The report of a run without the self-check, that ends with this exit code."""
    done = doctor("--quick", "--json", **how)
    assert done.returncode == code, done.stdout + done.stderr
    return json.loads(done.stdout)


def finding(told, problem):
    """The one with this problem, and no other is named before it."""
    assert problem in told["problems"], told["problems"]
    return next(f for section in told["sections"] for f in section["findings"] if f["problem"] == problem)


def finding_of(told, start):
    """The text of the finding that begins so."""
    return next(
        f["text"] for section in told["sections"] for f in section["findings"] if f["text"].startswith(start)
    )


def failures(told):
    """The problems that make the exit code 1, without what this machine warns of."""
    return [
        f["problem"] for section in told["sections"] for f in section["findings"] if f["state"] == "FAILED"
    ]


@pytest.fixture
def copy(tmp_path):
    """A folder for PYTHONPATH with a copy of the installed package."""
    ignored = shutil.ignore_patterns("__pycache__", "*.so", "*.pyd")
    shutil.copytree(PACKAGE, tmp_path / "jax_convgrad", ignore=ignored)
    for library in (*PACKAGE.glob("_c*.so"), *PACKAGE.glob("_c*.pyd")):
        (tmp_path / "jax_convgrad" / library.name).symlink_to(library)
    return tmp_path


# ----------------------------------------------------------------------------------------- where all is well


def test_here_all_is_well():
    done = doctor()
    assert done.returncode == 0, done.stdout
    lines = done.stdout.splitlines()
    assert lines[-1].startswith(
        ("All is well: every op agrees with jax.lax on cpu", "It works: every op agrees")
    )
    ops = (
        "fprop",
        "dgrad",
        "wgrad",
        "bgrad",
        "conv+relu: dw",
        "conv_transpose: dx",
        "max_pool: dx",
        "avg_pool: dx",
    )
    for op in ops:
        (row,) = (line for line in lines if line.split("  ")[0] == "" and line.strip().startswith(op + "  "))
        errors = [float(cell) for cell in row.split()[-4:]]  # in float32, bfloat16, float16, float64
        assert all(0 <= error <= 1 for error in errors)


def test_the_json_report():
    told = quick(0)
    assert told["doctor"] == 1 and told["state"] in ("ok", "warning")
    assert isinstance(told["verdict"], str) and isinstance(told["problems"], list)
    names = [section["name"] for section in told["sections"]]
    assert names == ["Python and platform", "Packages", "Kernels", "CPU", "Settings", "GPU"]
    for section in told["sections"]:
        assert set(section) == {"name", "findings", "facts"} and section["findings"]
        for entry in section["findings"]:
            assert set(entry) == {"state", "text", "problem", "remedy"}
            assert entry["state"] in ("ok", "note", "warning", "FAILED")
            assert (
                bool(entry["problem"]) == bool(entry["remedy"]) == (entry["state"] in ("warning", "FAILED"))
            )
    facts = {section["name"]: section["facts"] for section in told["sections"]}
    assert facts["Packages"]["jaxlib"] == {
        "version": jaxlib.__version__,
        "folder": str(Path(jaxlib.__file__).parent),
        "imports": True,
    }
    from jax_convgrad import _cpu

    assert facts["CPU"]["instruction_sets"] == _cpu.instruction_sets()
    assert facts["CPU"]["common_layer"]["fprop"]["kernel"] == "tiled"
    assert facts["Kernels"]["_cpu"]["steps"]["ffi_api_version"] == list(_cpu.ffi_api_version())


def test_the_ffi_version_is_that_of_jaxlib_s_headers():
    header = (Path(jaxlib.__file__).parent / "include/xla/ffi/api/c_api.h").read_text()
    minor = int(re.search(r"#define XLA_FFI_API_MINOR (\d+)", header)[1])
    assert packages.ffi_version_of_jaxlib(Outcome()) == (0, minor)
    from jax_convgrad import _cpu

    assert _cpu.ffi_api_version() <= (0, minor)


def test_help_and_usage():
    told = doctor("--help")
    assert told.returncode == 0 and "The exit code is 1 where something FAILED" in told.stdout
    assert doctor("--quik").returncode == 2
    overview = subprocess.run(
        [sys.executable, "-P", "-m", "jax_convgrad", "--help"], capture_output=True, text=True, timeout=60
    )
    assert "doctor    whether this machine is set up" in overview.stdout


# -------------------------------------------------------------------------------------- broken installations

BLOCK = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Blocker())
"""


def test_without_jax(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(BLOCK.format(blocked={"jax"}))
    told = quick(1, path=tmp_path)
    assert failures(told) == ["package-missing"]
    found = finding(told, "package-missing")
    assert found["text"] == "jax is not installed for this Python"
    assert found["remedy"] == f'{sys.executable} -m pip install "jax>=0.9.1"'
    # And not only in JSON:
    done = doctor("--quick", path=tmp_path)
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1] == f"What to do: {found['remedy']}"


def test_without_any_package(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(BLOCK.format(blocked={"jax", "jaxlib", "numpy"}))
    told = quick(1, path=tmp_path)
    assert failures(told) == ["package-missing"] * 3
    assert told["verdict"].startswith("3 problems; the first to mend: ")


def test_the_other_commands_name_the_doctor(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(BLOCK.format(blocked={"jax"}))
    done = subprocess.run(
        [sys.executable, "-P", "-m", "jax_convgrad", "plan", "1x5x5x1, 3x3, 1"],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert done.returncode == 1
    assert "No module named 'jax'" in done.stderr and "python -m jax_convgrad doctor" in done.stderr


def test_an_old_jaxlib(tmp_path):
    folder = Path(jaxlib.__file__).parent
    (tmp_path / "jaxlib").mkdir()
    for path in folder.iterdir():
        if path.name not in ("version.py", "__pycache__"):
            (tmp_path / "jaxlib" / path.name).symlink_to(path)
    version = (folder / "version.py").read_text()
    (tmp_path / "jaxlib" / "version.py").write_text(version.replace(jaxlib.__version__, "0.8.3"))
    told = quick(1, path=tmp_path)
    found = finding(told, "package-too-old")
    assert "jaxlib 0.8.3" in found["text"] and "older than 0.9.1" in found["text"]
    assert found["remedy"].endswith('-m pip install --upgrade "jaxlib>=0.9.1"')
    # jax itself looks at jaxlib's version as well.
    assert "jaxlib is version 0.8.3" in finding(told, "package-broken")["text"]


def test_a_module_that_is_missing(copy):
    for library in copy.glob("jax_convgrad/_c*"):
        library.unlink()
    found = finding(quick(1, path=copy), "module-missing")
    assert found["text"] == f"_cpu is missing in {copy / 'jax_convgrad'}"
    assert "pip install --force-reinstall" in found["remedy"]


def test_a_module_of_another_python(copy):
    (copy / "jax_convgrad" / LIBRARY.name).rename(
        copy / "jax_convgrad" / "_cpu.cpython-39-x86_64-linux-gnu.so"
    )
    found = finding(quick(1, path=copy), "module-of-another-python")
    assert "_cpu.cpython-39-x86_64-linux-gnu.so" in found["text"] and f"_cpu{SUFFIX}" in found["text"]


def test_a_module_that_is_garbage(copy):
    library = copy / "jax_convgrad" / LIBRARY.name
    library.unlink()
    library.write_text("this is no library\n" * 1000)
    told = quick(1, path=copy)
    assert failures(told) == ["module-broken"]
    assert "invalid ELF header" in finding(told, "module-broken")["text"]


@pytest.mark.parametrize("signal", ["SIGSEGV", "SIGABRT"])
def test_a_module_that_kills_the_process(copy, signal):
    (copy / "jax_convgrad" / LIBRARY.name).unlink()
    program = f"import os, signal\nos.kill(os.getpid(), signal.{signal})\n"
    (copy / "jax_convgrad" / "_cpu.py").write_text(program)
    told = quick(1, path=copy)
    assert failures(told) == ["module-kills-python"]
    found = finding(told, "module-kills-python")
    assert f"_cpu.py does not load: the process was killed by {signal}" in found["text"]
    assert found["remedy"].startswith("build it on this machine: ")


def test_a_cuda_module_that_lacks_a_library(copy):
    for library in copy.glob("jax_convgrad/_cuda*"):
        library.unlink()
    message = "libcudart.so.13: cannot open shared object file: No such file or directory"
    (copy / "jax_convgrad" / "_cuda.py").write_text(f"raise ImportError({message!r})\n")
    told = quick(1, path=copy)
    assert failures(told) == ["module-needs-library"]
    assert message in finding(told, "module-needs-library")["text"]
    assert "libcudart.so.13" in finding(told, "module-needs-library")["remedy"]


def replaced(copy, old, new):
    path = copy / "jax_convgrad" / "primitives" / "ffi.py"
    source = path.read_text()
    assert source.count(old) == 1
    path.write_text(source.replace(old, new))


def test_wrong_numbers_of_a_kernel(copy):
    replaced(copy, "relu=relu)[0]", "relu=True)[0]")  # fprop's
    done = doctor("--json", path=copy)
    told = json.loads(done.stdout)
    assert done.returncode == 1
    assert set(failures(told)) == {"numbers-wrong", "install-fails"}
    wrong = [f["text"] for s in told["sections"] for f in s["findings"] if f["problem"] == "numbers-wrong"]
    assert [text.split(":")[0] for text in wrong] == [
        f"cpu, {dtype}" for dtype in ("float32", "bfloat16", "float16", "float64")
    ]
    # A transposed convolution is an fprop, over a dilated input.
    check = told["sections"][-1]["facts"]["steps"]["float32"]["errors"]
    wrong_ops = {op for op, (ratio, _) in check.items() if ratio > 1}
    assert wrong_ops == {"fprop", "conv_transpose: y"}


def test_a_kernel_that_kills_the_process(copy):
    crash = "    import os\n    os.kill(os.getpid(), 11)\n    channels = dy.shape[channel_axis]\n"
    replaced(copy, "    channels = dy.shape[channel_axis]\n", crash)  # bgrad's
    done = doctor(path=copy)
    assert done.returncode == 1
    assert "FAILED   cpu, float32: the process was killed by SIGSEGV" in done.stdout
    assert done.stdout.splitlines()[-1] == f"What to do: {REMEDIES['self-check-dies']}"


def test_a_source_folder_without_an_installation(tmp_path):
    shutil.copytree(
        ROOT / "jax_convgrad", tmp_path / "jax_convgrad", ignore=shutil.ignore_patterns("__pycache__")
    )
    (tmp_path / "CMakeLists.txt").touch()
    done = doctor("--quick", "--json", flags=("-S",), cwd=tmp_path)  # without site-packages
    assert done.returncode == 1
    told = json.loads(done.stdout)
    assert failures(told) == ["source-folder-not-built"]
    assert f'pip install "{tmp_path}"' in told["verdict"]
    assert finding_of(told, "numpy is not installed")


def test_a_clone_whose_own_python_has_the_package(tmp_path):
    shutil.copytree(
        ROOT / "jax_convgrad", tmp_path / "jax_convgrad", ignore=shutil.ignore_patterns("__pycache__")
    )
    (tmp_path / "CMakeLists.txt").touch()
    installed = tmp_path / ".venv" / "lib" / "python3.11" / "site-packages" / "jax_convgrad"
    installed.mkdir(parents=True)
    (installed / "_cpu.abi3.so").touch()
    done = doctor("--quick", "--json", flags=("-S",), cwd=tmp_path)
    told = json.loads(done.stdout)
    assert done.returncode == 1 and failures(told) == ["installed-for-another-python"]
    assert f"{tmp_path}/.venv/bin/python -m jax_convgrad doctor" in told["verdict"]


def test_a_jax_that_ends_the_process_as_if_all_were_well(tmp_path):
    (tmp_path / "jax").mkdir()
    (tmp_path / "jax" / "__init__.py").write_text("import os\nos._exit(0)\n")
    assert "package-broken" in quick(1, path=tmp_path)["problems"]


def test_in_the_clone_the_installed_package_runs():
    assert not list((ROOT / "jax_convgrad").glob("_cpu.*"))
    told = quick(0, cwd=ROOT, flags=("-B",))  # flags of Python's own stay
    assert str(PACKAGE) in finding_of(told, f"jax_convgrad {jax_convgrad.__version__}")


def test_the_source_folder_on_the_path():
    found = finding(quick(1, path=ROOT), "source-folder-shadows")
    assert str(ROOT / "jax_convgrad") in found["text"] and str(PACKAGE) in found["text"]
    assert "PYTHONPATH" in found["remedy"]


# -------------------------------------------------------------------------------------------------- settings


def test_a_flag_that_xla_does_not_know():
    found = finding(quick(1, XLA_FLAGS="--xla_no_such_flag=1"), "xla-flags-unknown")
    assert "--xla_no_such_flag" in found["text"]


def test_a_platform_that_is_not_there():
    told = quick(1, JAX_PLATFORMS="abacus")
    assert "abacus" in finding(told, "jax-has-no-device")["text"]
    assert "unset JAX_PLATFORMS" in finding(told, "jax-has-no-device")["remedy"]


def test_jax_that_raises_without_a_word():
    jax = Outcome(failures={"devices": Failure("", raised="AssertionError")})
    (found,) = [f for f in gpu_section(Outcome(), None, jax, []).findings if f.problem == "jax-has-no-device"]
    assert found.text == "JAX raises AssertionError when it is asked for its devices"


def test_an_instruction_set_that_is_not_there():
    found = finding(quick(1, JAX_CONVGRAD_CPU_ISA="avx9000"), "instruction-set-unknown")
    assert "avx9000" in found["text"] and "plain" in found["remedy"]


def cpu_problems(*sets):
    section = machine.cpu_section(Outcome({"load": "", "instruction_sets": list(sets)}))
    return [(f.state, f.problem) for f in section.findings if f.problem]


def test_instruction_sets(monkeypatch):
    assert cpu_problems("plain", "avx2") == []
    monkeypatch.setattr(machine.platform, "machine", lambda: "x86_64")
    assert cpu_problems("plain") == [("warning", "cpu-without-avx2")]
    monkeypatch.setattr(machine.platform, "machine", lambda: "aarch64")  # where plain vectors are NEON
    assert cpu_problems("plain") == []
    monkeypatch.setenv("JAX_CONVGRAD_CPU_ISA", "plain")
    assert cpu_problems("plain", "avx2") == [("warning", "instruction-set-narrowed")]


def test_settings(monkeypatch):
    for name, value in {"JAX_CONVGRAD_ISA": "avx2", "JAX_DISABLE_JIT": "1", "JAX_ENABLE_X64": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("JAX_DEBUG_NANS", "0")
    section = machine.settings_section()
    assert [f.problem for f in section.findings if f.problem] == ["setting-unknown", "setting-slows"]
    assert "JAX_ENABLE_X64=1" in str(section) and "JAX_DEBUG_NANS=0" in str(section)


# --------------------------------------------------------------------------------------- parts by themselves


def test_a_process_that_hangs_is_ended():
    outcome = processes.look("jax", timeout=0.01)
    (failure,) = outcome.failures.values()
    assert failure.timed_out and str(failure) == "no answer within 0 seconds"


def section_of_kernels(cpu, jax):
    """Of an installation without CUDA kernels, whatever this one has."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "_files", lambda name: [])
        return kernels.kernels_section(cpu, None, jax)


def loading(message):
    """The kernels' section where the CPU module does not load with this message."""
    outcome = Outcome(failures={"load": Failure(message, raised="ImportError")})
    section = section_of_kernels(outcome, Outcome())
    return [f.problem for f in section.findings if f.problem]


def test_a_module_of_an_older_package():
    """Copied over by hand, say: it loads, and lacks what the doctor asks."""
    failure = Failure("no attribute 'ffi_api_version'", raised="AttributeError")
    section = section_of_kernels(Outcome({"load": ""}, {"ffi_api_version": failure}), Outcome())
    assert [f.problem for f in section.findings if f.problem] == ["module-too-old"]


def test_what_a_loader_says():
    assert loading("/lib/libc.so.6: version `GLIBC_2.99' not found (required by _cpu.so)") == [
        "module-of-newer-system"
    ]
    assert loading("libstdc++.so.6: cannot open shared object file: No such file") == ["module-needs-library"]
    assert loading("/x/_cpu.so: undefined symbol: XLA_something") == ["module-broken"]


@pytest.mark.parametrize(
    "compiled, problem", [((0, 1), None), ((0, 99), "ffi-older-than-module"), ((1, 0), "ffi-of-another-kind")]
)
def test_ffi_versions(compiled, problem):
    steps = {"load": "", "ffi_api_version": list(compiled), "targets": []}
    section = section_of_kernels(Outcome(steps), Outcome())
    assert [f.problem for f in section.findings if f.problem] == ([problem] if problem else [])


def test_an_import_that_fails_for_a_reason_of_its_own():
    steps = {"load": "", "ffi_api_version": [0, 0], "targets": []}
    jax = Outcome(failures={"jax_convgrad": Failure("no attribute 'x'", raised="ImportError")})
    section = section_of_kernels(Outcome(steps), jax)
    assert [f.problem for f in section.findings if f.problem] == ["import-fails"]
    assert "ImportError: no attribute 'x'" in str(section)


def test_an_installation_of_another_version(monkeypatch):
    monkeypatch.setattr(jax_convgrad, "__version__", "99.0")
    section = packages.packages_section(Outcome())
    assert [f.problem for f in section.findings if f.problem] == ["versions-differ"]


def checked(outcome):
    """The problems of a self-check that told this."""
    section = checks.check_section("cpu", outcome, 1.0)
    return [f.problem for f in section.findings if f.problem]


def test_the_end_of_a_self_check():
    right = {"errors": {"fprop": [0.5, "a case"]}, "bits_differ": []}
    assert checked(Outcome({"float32": right, "install": ""})) == []
    assert checked(Outcome({"float32": {**right, "bits_differ": ["fprop of a case"]}, "install": ""})) == [
        "numbers-vary"
    ]
    wrong = {**right, "errors": {"fprop": [1.01, "a case"]}}
    assert checked(Outcome({"float32": wrong, "install": ""})) == ["numbers-wrong"]
    assert checked(Outcome({"float32": right, "install": "uninstall() leaves"})) == ["install-fails"]
    for failure, problem in (
        (Failure("no", raised="ValueError"), "self-check-raises"),
        (Failure("killed", signal="SIGSEGV"), "self-check-dies"),
        (Failure("no answer", timed_out=True), "self-check-hangs"),
    ):
        assert checked(Outcome({"float32": right}, {"bfloat16": failure})) == [problem]
    assert checked(Outcome({"float32": right}, {"install": Failure("no", raised="RuntimeError")})) == [
        "install-fails"
    ]


def test_other_bits_in_a_second_run_are_seen():
    errors = self_check._Errors("float32")
    values = iter([1.0, 1.0 + 2.0**-23])
    errors.twice("a case", lambda: {"fprop": np.float32(next(values)), "dgrad": np.float32(1)})
    assert errors.bits_differ == ["fprop of a case"]


@pytest.mark.parametrize("actual, ratio", [(1.0, 0), (1.0 + 2.0**-7, 2), (np.nan, 1e9), (np.inf, 1e9)])
def test_errors_are_in_units_of_their_bound(actual, ratio):
    """Of a bfloat16 that is stored exactly, whose bound is half of its last place and what f32's sum adds."""
    errors = self_check._Errors("bfloat16")
    errors.add("fprop", "a case", np.array([actual]), np.array([1.0]), np.array([1.0]), length=3)
    bound = 2.0**-8 + 4 * 2 * 2.0**-23
    expected = ratio * 2.0**-8 / bound if ratio < 1e9 else 1e9  # what JSON has in place of NaN
    assert errors.found["fprop"][0] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    "version, problem", [("0.12.3", None), ("0.13.0", "package-untested"), ("0.9.0", "package-too-old")]
)
def test_versions_of_jax(version, problem):
    jax = Outcome({name: [version, f"/x/{name}/__init__.py"] for name in ("numpy", "jaxlib", "jax")})
    section = packages.packages_section(jax)
    assert [f.problem for f in section.findings if f.problem] == ([problem] * 2 if problem else [])


@pytest.mark.parametrize("version, warned", [("0.11.1", True), ("0.11.0", False), ("0.11.2", False)])
def test_the_jaxlib_whose_fft_deadlocks(version, warned):
    jax = Outcome({name: [version, f"/x/{name}/__init__.py"] for name in ("numpy", "jaxlib", "jax")})
    section = packages.packages_section(jax)
    found = [(f.problem, f.text) for f in section.findings if f.problem]
    assert [problem for problem, _ in found] == ["jaxlib-fft-deadlocks"] * warned
    for _, text in found:
        assert "jaxlib 0.11.1" in text and "Fourier transform on the CPU" in text
    assert "jaxlib!=0.11.1" in REMEDIES["jaxlib-fft-deadlocks"]


# ------------------------------------------------------------------------------------------------------- GPU

BUILT_FOR = "75-real 80 86-real 89-real 90a-real 100-real 120-real"  # cuda_src/module.cmake


@pytest.mark.parametrize(
    "capability, architectures, way",
    [
        ((7, 5), BUILT_FOR, "binary"),
        ((7, 0), BUILT_FOR, ""),  # older than all
        ((8, 0), BUILT_FOR, "binary"),
        ((8, 7), BUILT_FOR, "binary"),  # 8.6's
        ((9, 0), BUILT_FOR, "binary"),
        ((10, 3), BUILT_FOR, "binary"),
        ((12, 1), BUILT_FOR, "binary"),
        ((11, 0), BUILT_FOR, "ptx"),  # 8.0's
        ((9, 0), "86-real", ""),
        ((8, 0), "86-real", ""),
        ((8, 9), "80-virtual", "ptx"),
        ((10, 0), "90a", ""),  # neither the binary nor the PTX of 90a runs elsewhere
        ((9, 0), "90", "binary"),
        ((10, 3), "100-real", "binary"),
        ((10, 3), "100a-real", ""),
        ((10, 3), "100f-real", "binary"),
    ],
)
def test_which_devices_run_what(capability, architectures, way):
    assert gpu.runs_on(capability, architectures) == way


def on_a_gpu(capability=(9, 0), driver=13000, cuda=("13.0.88", BUILT_FOR), used=True, plugins=("a plugin",)):
    """The problems and the section of a machine with one."""
    device = {"name": "a GPU", "capability": list(capability), "memory": 80 * 2**30}
    kinds = {"cpu": ["cpu"], **({"cuda": ["a GPU"]} if used else {})}
    devices = {"kinds": kinds, "errors": {} if used else {"cuda": "no plugin works"}, "default": "gpu"}
    section = gpu.gpu_section(
        Outcome({"load": "", "version": driver, "init": None, "devices": [device]}),
        Outcome({"load": "", "ffi_api_version": [0, 1], "build": list(cuda)}) if cuda else None,
        Outcome({"devices": devices}),
        list(plugins),
    )
    return [(f.state, f.problem) for f in section.findings if f.problem], section


def test_a_gpu_with_all_that_it_needs():
    problems, section = on_a_gpu()
    assert problems == []
    assert "compute capability 9.0, 80 GiB; driver for CUDA up to 13.0" in str(section)


def test_a_gpu_without_kernels_fails_only_where_jax_uses_it():
    assert on_a_gpu(cuda=None)[0] == [("FAILED", "cuda-kernels-missing")]
    assert "--config-settings cmake.define.JAX_CONVGRAD_CUDA=ON" in str(on_a_gpu(cuda=None)[1])
    assert on_a_gpu(cuda=None, used=False, plugins=())[0] == [
        ("warning", "jax-without-cuda"),
        ("warning", "cuda-kernels-missing"),
    ]


def test_a_gpu_that_jax_does_not_see():
    problems, section = on_a_gpu(used=False, plugins=())
    assert problems == [("warning", "jax-without-cuda")] and '"jax[cuda13]"' in str(section)
    assert '"jax[cuda12]"' in str(
        on_a_gpu(used=False, plugins=(), driver=12080, cuda=("12.8.1", BUILT_FOR))[1]
    )
    problems, section = on_a_gpu(used=False)
    assert problems == [("warning", "jax-cuda-fails")] and "no plugin works" in str(section)


def test_a_gpu_that_jax_is_told_to_leave_alone(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    problems, section = on_a_gpu(used=False)
    assert problems == [] and "as JAX_PLATFORMS=cpu says" in str(section)


def test_kernels_for_other_drivers_and_devices():
    problems, section = on_a_gpu(driver=12040)
    assert problems == [("FAILED", "driver-older-than-toolkit")] and "CUDA 12 toolkit" in str(section)
    problems, section = on_a_gpu(capability=(7, 0))
    assert problems == [("FAILED", "gpu-architecture-missing")]
    assert "CMAKE_CUDA_ARCHITECTURES=70" in str(section)
    assert on_a_gpu(capability=(11, 0))[0] == [("warning", "gpu-compiles-at-first-call")]


def test_platforms_without_kernels_are_told():
    devices = {"kinds": {"cpu": ["cpu"], "tpu": ["TPU v5"]}, "errors": {}, "default": "tpu"}
    section = gpu.gpu_section(
        Outcome(failures={"load": Failure("no libcuda", raised="OSError")}),
        None,
        Outcome({"devices": devices}),
        [],
    )
    assert "tpu (TPU v5): there are no kernels for it, jax.lax computes there" in str(section)


def without_gpu(monkeypatch, on_bus=0, jax=None, **driver):
    monkeypatch.setattr(gpu, "_gpus_on_the_bus", lambda: on_bus)
    section = gpu.gpu_section(Outcome(**driver), None, jax or Outcome(), [])
    return [(f.state, f.problem) for f in section.findings if f.problem]


def test_drivers(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    absent = {"load": Failure("libcuda.so.1: cannot open", raised="OSError")}
    assert without_gpu(monkeypatch, failures=absent) == []
    assert without_gpu(monkeypatch, 1, failures=absent) == [("warning", "driver-missing")]
    no_device = {"init": Failure("cuInit: CUDA_ERROR_NO_DEVICE (100)", raised="RuntimeError")}
    there = {"load": "", "version": 13000}
    assert without_gpu(monkeypatch, steps=there, failures=no_device) == []
    assert without_gpu(monkeypatch, 1, steps=there, failures=no_device) == [("warning", "driver-fails")]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert without_gpu(monkeypatch, 1, steps=there, failures=no_device) == [("warning", "gpu-hidden")]


def test_a_jax_that_crashes_on_its_devices(monkeypatch):
    jax = Outcome(failures={"devices": Failure("the process was killed by SIGSEGV", signal="SIGSEGV")})
    assert without_gpu(monkeypatch, jax=jax, failures={"load": Failure("")}) == [("FAILED", "jax-dies")]


DRIVER = r"""
#include <string.h>
static int devices = 1;
int cuInit(unsigned flags) { return RESULT; }
int cuDriverGetVersion(int* version) { *version = 12040; return 0; }
int cuDeviceGetCount(int* count) { *count = devices; return 0; }
int cuDeviceGet(int* device, int index) { *device = 7 + index; return 0; }
int cuDeviceGetName(char* name, int size, int device) { strncpy(name, "A GPU", size); return device != 7; }
int cuDeviceTotalMem_v2(size_t* bytes, int device) { *bytes = 1ul << 33; return device != 7; }
int cuDeviceGetAttribute(int* value, int which, int device) {
  *value = which == 75 ? 8 : 6;
  return device != 7;
}
int cuGetErrorName(int error, const char** name) { *name = "CUDA_ERROR_UNKNOWN"; return 0; }
"""


def driver(tmp_path, result):
    """What the driver's probe tells of a driver whose cuInit returns this."""
    (tmp_path / "cuda.c").write_text(DRIVER.replace("RESULT", str(result)))
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    library = tmp_path / "libcuda.so.1"
    subprocess.run([compiler, "-shared", "-fPIC", tmp_path / "cuda.c", "-o", library], check=True)
    return processes.look("driver", timeout=60, environment={"LD_LIBRARY_PATH": str(tmp_path)})


@pytest.mark.skipif(sys.platform != "linux", reason="the driver's library is found by Linux' loader")
def test_the_driver_is_asked(tmp_path):
    outcome = driver(tmp_path, 0)
    assert not outcome.failures
    assert outcome.steps["version"] == 12040
    assert outcome.steps["devices"] == [{"name": "A GPU", "capability": [8, 6], "memory": 2**33}]


@pytest.mark.skipif(sys.platform != "linux", reason="the driver's library is found by Linux' loader")
def test_a_driver_that_fails(tmp_path):
    outcome = driver(tmp_path, 999)
    section = gpu.gpu_section(outcome, None, Outcome(), [])
    assert [f.problem for f in section.findings if f.problem] == ["driver-fails"]
    assert "cuInit: CUDA_ERROR_UNKNOWN (999)" in str(section)


# ------------------------------------------------------------------------------------------ problems by name


def test_every_problem_is_found_by_the_code_and_told_in_the_docs():
    used = set()
    for path in (ROOT / "jax_convgrad" / "instruments" / "doctor").glob("*.py"):
        if path.name != "remedies.py":
            used |= {
                node.value
                for node in ast.walk(ast.parse(path.read_text()))
                if isinstance(node, ast.Constant) and node.value in REMEDIES
            }
    assert used == set(REMEDIES)
    table = re.findall(r"^\| `([a-z0-9-]+)` \|", (ROOT / "docs" / "doctor.md").read_text(), re.MULTILINE)
    assert sorted(table) == sorted(REMEDIES)


def test_the_verdict_counts():
    section = report.Section("a section")
    assert report.verdict([section], ["cpu"]) == "All is well: every op agrees with jax.lax on cpu."
    section.warn("gpu-hidden", "a warning")
    assert "the warning above says" in report.verdict([section], ["cpu", "cuda"])
    section.fail("gpu-hidden", "a failure")
    assert report.verdict([section], []) == f"What to do: {REMEDIES['gpu-hidden']}"
