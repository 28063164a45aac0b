"""``python -m jax_convgrad doctor``: 0 where all is well, else 1 with the cause and a remedy."""

import ast
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np
import pytest
from packaging.requirements import Requirement

import jax_convgrad
from jax_convgrad import native
from jax_convgrad.instruments.doctor import sections, self_check
from jax_convgrad.instruments.doctor.processes import Result, look
from jax_convgrad.instruments.doctor.report import REMEDIES, Report
from jax_convgrad.source_folder import module_file

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = Path(jax_convgrad.__file__).parent
LIBRARY = module_file("_cpu")


def doctor(*options, path=PACKAGE.parent, cwd=None, flags=("-P",), **environment):
    """The finished process, in an environment without other settings."""
    settings = ("JAX_", "XLA_", "CUDA_", "PYTHONPATH", "LD_LIBRARY_PATH")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(settings)}
    kept["PYTHONPATH"] = f"{path}{os.pathsep}{PACKAGE.parent}"
    command = [sys.executable, *flags, "-m", "jax_convgrad", "doctor", *options]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=kept | environment)


def quick(code, **how):
    """The report of a run without the self-check, which ends with this exit code."""
    done = doctor("--quick", "--json", **how)
    assert done.returncode == code, done.stdout + done.stderr
    return json.loads(done.stdout)


def found(report, state="FAILED"):
    return {f["problem"]: f for f in report["findings"] if f["state"] == state}


def sources_in(folder):
    ignored = shutil.ignore_patterns("__pycache__", "*.so", "*.pyd")
    return Path(shutil.copytree(PACKAGE, folder / "jax_convgrad", ignore=ignored))


@pytest.fixture
def copy(tmp_path):
    """A folder for PYTHONPATH with a copy of the package, and its kernels for this Python."""
    (sources_in(tmp_path) / LIBRARY.name).symlink_to(LIBRARY)
    return tmp_path


@pytest.fixture
def clone(tmp_path):
    """Like a clone of the repository, in which nothing is built."""
    (sources_in(tmp_path).parent / "CMakeLists.txt").touch()
    return tmp_path


def test_here_all_is_well():
    done = doctor()
    assert done.returncode == 0, done.stdout
    assert re.search(r"\n\n(All is well|It works): every op agrees with jax.lax on cpu.*\n\Z", done.stdout)
    rows = re.findall(r"^ {11}(\w+ (?:y|dx|dw|db|ddy)) ((?: +\d\.\d{3}){4})$", done.stdout, re.MULTILINE)
    ops = {"conv": "y dx dw db", "conv_transpose": "y dx dw"}
    ops |= dict.fromkeys(("max_pool", "avg_pool"), "y dx") | {"conv_bias_grad": "db ddy"}
    assert {f"{op} {name}" for op, names in ops.items() for name in names.split()} == set(dict(rows))
    assert all(0 <= float(error) <= 1 for _, errors in rows for error in errors.split())


def test_the_json_report_has_findings_and_the_facts_behind_them():
    told = quick(0)
    parts = dict.fromkeys(finding["section"] for finding in told["findings"])
    assert list(parts) == ["Versions", "Kernels", "Devices", "Settings"]
    for entry in told["findings"]:
        assert set(entry) == {"section", "state", "text", "problem", "remedy"}
        assert bool(entry["problem"]) == bool(entry["remedy"]) == (entry["state"] in ("warning", "FAILED"))
    assert told["facts"]["jaxlib"]["value"] == [jaxlib.__version__, jaxlib.__file__]
    _cpu = importlib.import_module("jax_convgrad._cpu")
    assert told["facts"]["_cpu"]["value"] == [list(_cpu.ffi_api_version()), _cpu.instruction_sets()]
    assert told["facts"]["devices"]["value"] == jax.default_backend()


def test_help_and_usage():
    told = doctor("--help")
    assert told.returncode == 0 and "The exit code is 1 where something FAILED" in told.stdout
    assert doctor("--quik").returncode == 2


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
    done = doctor("--quick", path=tmp_path)
    assert done.returncode == 1
    remedy = f'{sys.executable} -m pip install "jax>=0.9.1,<0.13"'
    assert f"  FAILED   jax is not installed for this Python\n           -> {remedy}\n" in done.stdout
    assert done.stdout.count("FAILED") == 1 and done.stdout.endswith(f"\n\nWhat to do: {remedy}\n")
    (tmp_path / "sitecustomize.py").write_text(BLOCK.format(blocked={"jax", "jaxlib", "numpy"}))
    assert doctor("--quick", path=tmp_path).stdout.endswith(f"\n3 problems; mend this one first: {remedy}\n")


def test_the_other_commands_name_the_doctor(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(BLOCK.format(blocked={"jax"}))
    plan = [sys.executable, "-P", "-m", "jax_convgrad", "plan", "1x5x5x1, 3x3, 1"]
    path = f"{tmp_path}:{PACKAGE.parent}"
    done = subprocess.run(plan, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path})
    assert done.returncode == 1
    assert "No module named 'jax'" in done.stderr and "python -m jax_convgrad doctor" in done.stderr


def test_a_jax_that_ends_the_process_as_if_all_were_well(tmp_path):
    (tmp_path / "jax").mkdir()
    (tmp_path / "jax" / "__init__.py").write_text("import os\nos._exit(0)\n")
    assert "the process ended: exit code 0" in found(quick(1, path=tmp_path))["package-broken"]["text"]


TOO_OLD = 'raise ImportError("libc.so.6: version `GLIBC_2.99\' not found (required by _cpu)")'


@pytest.mark.parametrize(
    "name, content, text",
    [
        ("README", "", r"no _cpu for this Python in \S+/jax_convgrad"),
        ("_cpu.cpython-39.so", "", r"no _cpu for this Python in \S+, only _cpu\.cpython-39\.so"),
        (LIBRARY.name, "no library\n" * 1000, r"_cpu\S+ does not load: ImportError: .*invalid ELF header"),
        ("_cpu.py", "import os\nos.abort()", r"_cpu\.py does not load: .* ended: signal 6 \(Aborted\)"),
        ("_cpu.py", TOO_OLD, r"_cpu\.py does not load: ImportError: .*not found \(required by _cpu\)"),
        ("_cuda.py", "raise ImportError('lib.so')", r"_cuda\.py does not load: ImportError: lib\.so"),
    ],
)
def test_kernels_that_cannot_be_used(copy, name, content, text):
    """The remedy is that of the ImportError, with this interpreter."""
    if name != "_cuda.py":
        (copy / "jax_convgrad" / LIBRARY.name).unlink()
    (copy / "jax_convgrad" / name).write_text(content)
    told = quick(1, path=copy)
    assert set(found(told)) == {"kernels-unusable"}
    assert re.fullmatch(text, found(told)["kernels-unusable"]["text"])
    reason, module = found(told)["kernels-unusable"]["text"], name.partition(".")[0]
    native_says = native.remedy("jax_convgrad", module if module == "_cuda" else "_cpu", reason)
    pip = f"{sys.executable} -m pip install"
    assert f"What to do: {native_says}".replace("pip install", pip) in told["verdict"]
    assert told["facts"]["devices"]["value"]  # the steps after a crash run


def test_a_cuda_package_of_another_version(copy):
    (copy / "jax_convgrad_cuda13").mkdir()
    (copy / "jax_convgrad_cuda13" / "__init__.py").write_text("__version__ = '9.9'\n")
    (copy / "jax_convgrad_cuda13" / "_cuda.py").write_text(
        "def ffi_api_version():\n    return 0, 3\n\n\ndef build():\n    return '13.0', '80 90a-real'\n"
    )
    told = quick(1, path=copy)
    assert set(found(told)) == {"cuda-package-mismatch"}
    needs = f"jax_convgrad {jax_convgrad.__version__} needs jax_convgrad_cuda13 {jax_convgrad.__version__}"
    assert found(told)["cuda-package-mismatch"]["text"] == f"{needs}, but 9.9 is installed"
    assert told["verdict"].endswith(f'install "jax_convgrad_cuda13=={jax_convgrad.__version__}"')
    line = "_cuda.py loads, built for XLA's FFI 0.3 with CUDA 13.0 for 80 90a-real"
    assert f"{line}\nfrom {copy}/jax_convgrad_cuda13" in [f["text"] for f in told["findings"]]
    assert "needs jax_convgrad_cuda13" in told["facts"]["jax_convgrad"]["failure"]


def test_a_source_folder_without_an_installation(clone):
    done = doctor("--quick", cwd=clone, flags=("-S",), PYTHONPATH="")  # without site-packages
    assert done.returncode == 1 and "is the source folder, in which nothing is built" in done.stdout
    assert f'mend this one first: {sys.executable} -m pip install "{clone}"' in done.stdout
    installed = clone / ".venv" / "lib" / "python3.11" / "site-packages" / "jax_convgrad"
    installed.mkdir(parents=True)
    (installed / "_cpu.abi3.so").touch()
    done = doctor("--quick", cwd=clone, flags=("-S",), PYTHONPATH="")
    assert f"mend this one first: {clone}/.venv/bin/python -m jax_convgrad doctor\n" in done.stdout


def test_the_clone_and_an_installed_package(clone):
    remedy = found(quick(1, path=clone))["source-folder"]["remedy"]
    assert remedy == f"take the clone out of PYTHONPATH, so that Python finds {PACKAGE}"
    told = quick(0, cwd=clone, flags=("-B",))  # Python's own flags stay
    assert f"jax_convgrad {jax_convgrad.__version__}, {PACKAGE}" in [f["text"] for f in told["findings"]]


@pytest.mark.parametrize(
    "name, value, problem",
    [
        ("XLA_FLAGS", "--xla_no_such_flag=1", "jax-has-no-device"),
        ("JAX_PLATFORMS", "abacus", "jax-has-no-device"),
        ("JAX_CONVGRAD_CPU_ISA", "avx9000", "instruction-set-unknown"),
    ],
)
def test_settings_that_break(name, value, problem):
    told = quick(1, **{name: value})
    assert set(found(told)) == {problem}
    assert value.rstrip("=1") in found(told)[problem]["text"] and name in found(told)[problem]["remedy"]
    assert f"{name}={value}" in "\n".join(f["text"] for f in told["findings"] if f["section"] == "Settings")


def replaced(copy, old, new):
    path = copy / "jax_convgrad" / "primitives" / "ffi.py"
    source = path.read_text()
    assert source.count(old) == 1
    path.write_text(source.replace(old, new))


def self_checked(results):
    report = Report()
    sections.self_check(report, "cpu", results)
    return report


def test_wrong_numbers_of_a_kernel(copy, monkeypatch):
    replaced(copy, "relu=relu)[0]", "relu=True)[0]")  # fprop's
    monkeypatch.syspath_prepend(copy)
    report = self_checked(look(["self_check cpu float32"], timeout=100))
    assert report.problems("FAILED") == ["self-check-fails"]
    wrong = re.findall(r"(\w+ \w+) of ([^:]+): \S+ bounds off, the same bits", report.findings[0]["text"])
    # Those without relu; a transposed convolution is an fprop over a dilated input.
    titles = ["3x3 alone", "depthwise, stride 2", "1-D, cropped"]
    assert wrong == [*(("conv y", title) for title in titles), ("conv_transpose y", "3x3, stride 2")]


def test_a_kernel_that_kills_the_process(copy, monkeypatch):
    crash = "    import os\n    os.kill(os.getpid(), 11)\n    channels = dy.shape[channel_axis]\n"
    replaced(copy, "    channels = dy.shape[channel_axis]\n", crash)  # bgrad's
    monkeypatch.syspath_prepend(copy)
    report = self_checked(look(["self_check cpu float32", "self_check cpu install"], timeout=100))
    assert report.problems("FAILED") == ["self-check-fails"]
    assert "float32: the process ended: signal 11 (Segmentation fault)" in report.findings[0]["text"]
    assert report.verdict(["cpu"]) == f"What to do: {REMEDIES['self-check-fails']}"


def test_how_a_self_check_may_end():
    right = {"self_check cpu float32": Result(({"conv y": 0.5}, []))}
    right["self_check cpu install"] = Result(({}, []))
    assert [f["state"] for f in self_checked(right).findings] == ["ok", "note"]
    for step, result, problem in (
        ("float32", Result(({"conv y": 0.5}, ["other bits"])), "self-check-fails"),
        ("float32", Result(failure="the process ended: no answer in 400 seconds"), "self-check-fails"),
        ("float32", Result(failure="INTERNAL: jax_convgrad: CUDA: no kernel image"), "cuda-kernels-misfit"),
        ("install", Result(({}, ["jax.lax's convolution stays on jax.lax"])), "install-fails"),
    ):
        assert self_checked({**right, f"self_check cpu {step}": result}).problems("FAILED") == [problem]


def test_other_bits_in_a_second_run_are_seen(monkeypatch):
    noise = iter([0.0, 1.0])

    def ours(x):
        shape = jax.ShapeDtypeStruct((), np.float32)
        return x + jax.pure_callback(lambda: np.float32(next(noise)), shape)

    case = self_check._Case("an op", "a case", ((3,),), ours, lambda y, x: x)
    monkeypatch.setattr(self_check, "_CASES", [case])
    errors, wrong = self_check._ops("float32")
    assert errors == {"an op y": 0, "an op dx": 0}
    assert wrong == ["an op y of a case: 0 bounds off, other bits in a second run"]


@pytest.mark.parametrize("actual, ratio", [(1.0, 0), (1.0 + 2.0**-7, 2), (np.nan, 1e9), (np.inf, 1e9)])
def test_errors_are_in_units_of_their_bound(actual, ratio):
    """For a bfloat16, whose bound is half of its last place and what a float32 sum adds."""
    found = self_check.largest_error(np.array([actual], jnp.bfloat16), np.ones(1), np.ones(1))
    bound = 2.0**-8 + 64 * 2.0**-23
    assert found == pytest.approx(ratio * 2.0**-8 / bound if ratio < 1e9 else 1e9, rel=1e-6)


WELL = {name: Result([version, "/x/it.py"]) for name, version in (("numpy", "2.4.0"), ("jaxlib", "0.12.1"))}
WELL |= {"jax": WELL["jaxlib"], "_cpu": Result([[0, 3], ["plain"]]), "_cuda": Result(failure="no module")}
WELL |= {"jax_convgrad": Result(["cpu"]), "devices": Result("cpu"), "devices cuda": Result(failure="no cuda")}
WELL |= {"nvidia-smi": Result(failure="no file")}


def problems(section, changed):
    """The problems of a section where these results differ from those of a machine where all is well."""
    report = Report()
    section(report, WELL | changed)
    texts = "\n".join(f"{f['text']} -> {f['remedy']}" for f in report.findings)
    return [(f["state"], f["problem"]) for f in report.findings if f["problem"]], texts


def test_versions_of_jax():
    old, new = (Result([version, "/x/jax/__init__.py"]) for version in ("0.9.0", "0.13.0"))
    assert problems(sections.versions, {})[0] == []
    assert problems(sections.versions, {"jax": old})[0] == [("FAILED", "package-too-old")]
    found, texts = problems(sections.versions, {"jax": new})
    assert found == [] and "jax 0.13.0, /x/jax\nis newer than 0.12, the newest that is tested" in texts


def test_an_import_that_fails_for_a_reason_of_its_own():
    broken = Result(failure="ImportError: no attribute 'x'")
    found, texts = problems(sections.kernels, {"jax_convgrad": broken})
    assert found == [("FAILED", "package-broken")] and "ImportError: no attribute 'x'" in texts


def test_a_jaxlib_whose_ffi_is_older_than_the_kernels():
    failure = "ImportError: jax_convgrad._cpu was compiled for XLA's FFI 0.5, but that of jaxlib 0.9.1 is 0.3"
    found, texts = problems(sections.kernels, {"jax_convgrad": Result(failure=failure)})
    assert found == [("FAILED", "package-too-old")] and failure in texts
    said = "the handler's API version (0.5) is incompatible with the framework's API version (0.3)"
    found, texts = problems(sections.devices, {"devices": Result(failure=said)})
    assert found == [("FAILED", "package-too-old")] and 'install --upgrade "jax>=' in texts


def test_gpus(monkeypatch):
    monkeypatch.setattr(native, "has_cuda_wheels", lambda: True)
    gpu = {"nvidia-smi": Result("550.54.14, NVIDIA H200, 9.0")}
    used = gpu | {"devices": Result("gpu"), "devices cuda": Result("gpu")}
    built = {"_cuda": Result([[0, 3], ["13.0.88", "80 90a-real"]])}
    found, texts = problems(sections.devices, used | built)
    assert found == [] and "550.54.14, NVIDIA H200, 9.0" in texts and "JAX computes on gpu" in texts
    found, texts = problems(sections.devices, used)
    assert found == [("FAILED", "cuda-kernels-missing")] and '-m pip install "jax_convgrad[cuda13]"' in texts
    found, texts = problems(sections.devices, gpu | built)
    assert found == [("warning", "jax-without-gpu")] and '"jax[cuda12]"' in texts
    found, texts = problems(sections.devices, {})
    assert found == [] and "a container needs --gpus all" in texts
    found, texts = problems(sections.devices, {"devices": Result("tpu")})
    assert found == [] and "there are no kernels for tpu: jax.lax computes there" in texts


def test_a_gpu_that_only_nvidia_smi_sees(tmp_path):
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho 580.65.06, NVIDIA H200, 9.0\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    told = quick(0, PATH=f"{tmp_path}:{os.environ['PATH']}", JAX_PLATFORMS="cpu")
    warning = found(told, "warning")["jax-without-gpu"]
    assert warning["text"].startswith("JAX does not use the GPU: RuntimeError: ")
    assert "unset JAX_PLATFORMS" in warning["remedy"] and '"jax[cuda13]"' in warning["remedy"]


def test_a_step_that_hangs_is_ended_and_the_next_one_runs(tmp_path, monkeypatch):
    (tmp_path / "sleeper.py").write_text("import time\ntime.sleep(100)\n")
    monkeypatch.syspath_prepend(tmp_path)
    results = look(["sleeper", "json"], timeout=3)
    assert results["sleeper"].failure == "the process ended: no answer in 3 seconds"
    assert results["json"].value == [json.__version__, json.__file__]


def test_every_problem_is_found_by_the_code_and_explained_in_the_docs():
    tree = ast.parse(Path(sections.__file__).read_text())
    constants = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    assert set(REMEDIES) <= constants
    table = re.findall(r"^\| `([a-z0-9-]+)` \|", (ROOT / "docs" / "doctor.md").read_text(), re.MULTILINE)
    assert sorted(table) == sorted(REMEDIES)


def test_what_remedies_tell_pip_to_install_can_be_parsed():
    quoted = [name for remedy in REMEDIES.values() for name in re.findall(r'install.* "([^"]+)"', remedy)]
    details = {"major": "13", "package": "kernels", "version": "1.0", "remedy": ""}
    parsed = [Requirement(name.format(**details)) for name in quoted]
    assert len(parsed) == 5 and {requirement.name for requirement in parsed} == {"jax", "kernels"}


def test_the_verdict():
    report = Report()
    assert report.verdict(["cpu"]) == "All is well: every op agrees with jax.lax on cpu."
    report.add("warning", "a warning", "install-fails")
    assert report.verdict(["cpu", "cuda"]).startswith(
        "It works: every op agrees with jax.lax on cpu and cuda"
    )
    report.add("FAILED", "a failure", "self-check-fails")
    assert report.verdict([]) == f"What to do: {REMEDIES['self-check-fails']}"
