"""Installs the wheels of dist/ as a user does, without a compiler, and runs them: make test-wheels.

On each Python, pip chooses the wheel; then the import, the doctor, some of the tests and the training example
run. The AArch64 wheel runs in qemu, with the Python of --arm64. Nothing here runs macOS's wheels. The last
lines say what ran on which wheel; --write puts them into docs/wheels.md.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DIST = ROOT / "dist"
BUILD = ROOT / "build" / "wheels"
TRIED = BUILD / "tried.json"
PAGE = ROOT / "docs" / "wheels.md"
BEGIN, END = "<!-- wheels: begin -->\n", "<!-- wheels: end -->\n"
PIP = ("-m", "pip", "install", "-q", "--disable-pip-version-check", "--only-binary", ":all:")
OWN_WHEEL = ("--no-index", "--no-deps", "--find-links")  # no other package of this name
# The extra "examples" has flax too, parts of which have no wheels for free-threaded Python.
TRAINING = ("jax_convgrad[plot]", "optax", "scikit-learn", "tqdm")
# Some of each: layers' and pooling's gradients, a training step, threads, kernels by name on each instruction
# set, handlers, versions.
TESTS = [
    "layers/test_gradients.py::test_layer_defaults_are_channels_last",
    "layers/test_gradients.py::test_nothing_to_sum",
    "layers/test_pooling.py::test_first_of_equals",
    "layers/test_pooling.py::test_nan_is_the_maximum",
    "layers/test_training_step.py",
    "kernels/test_threads.py",
    "kernels/test_cpu_kernels.py::test_grouped_in_parts",
    "kernels/test_cpu_kernels.py::test_pairs_of_many_channels",
    "kernels/test_handlers.py::test_every_target_is_called",
    "kernels/test_handlers.py::test_refused",
    "kernels/test_handlers.py::test_refused_inside_a_program",
    "kernels/test_versions.py",
]
KERNELS_RAN = "the same compiled kernels in their own tests (`tests/cpu_kernels`){}"
VERSIONS = """
import importlib.metadata, jaxlib, platform, re
wheel = importlib.metadata.distribution("jax_convgrad").read_text("WHEEL")
print(re.search("Tag: (.*)", wheel)[1], "Python", platform.python_version() + ", jaxlib", jaxlib.__version__)
"""
GRADIENTS = """
import jax, jax.numpy as jnp, numpy as np, jax_convgrad
random = np.random.default_rng(0)
x, w = (random.standard_normal(shape).astype(np.float32) for shape in ((2, 9, 9, 5), (3, 3, 5, 7)))
def lax(x, w, padding):
    return jax.lax.conv_general_dilated(x, w, (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))
ours, theirs = (
    jax.grad(lambda x, w: jnp.sum(conv(x, w, padding="SAME") ** 2), (0, 1))(x, w)
    for conv in (jax_convgrad.conv, lax)
)
for a, b in zip(ours, theirs):
    np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-4)
"""


def run(*command: str | Path, **options: object) -> str:
    print("+", *(part if "\n" not in str(part) else "..." for part in command), flush=True)
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)
    if done.returncode:
        sys.exit(f"{done.stdout}\n{command[0]} failed ({done.returncode})")
    return done.stdout


@dataclass
class Place:
    """A Python, and the folder that is its /: another one than ours if debootstrap made it."""

    root: Path
    python: str

    def run(self, folder: Path, *command: str) -> str:
        """Runs a command in the folder, with nothing on PATH but its virtual environment."""
        inside = f"/{folder.relative_to(self.root)}"
        keep = {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_"))}
        environment = {
            "HOME": "/tmp/jax_convgrad_wheels",
            "PATH": f"{inside}/venv/bin",
        }  # pip's cache is in HOME
        environment |= keep | {"JAX_PLATFORMS": "cpu"}
        chroot = [] if self.root == Path("/") else [str(shutil.which("chroot")), str(self.root)]
        shell = ["/bin/sh", "-c", f'cd "{inside}" && exec "$@"', "sh"]
        return run(*chroot, *shell, *command, env=environment)


def try_python(place: Place) -> tuple[str, str]:
    """The tag of the wheel that pip chose on this Python, and what ran on it."""
    folder = place.root / "tmp" / "jax_convgrad_wheels" / str(os.getpid())
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        shutil.copytree(DIST, folder / "dist")
        for name in ("tests", "examples", "benchmarks", "docs"):  # and not the package's sources
            shutil.copytree(ROOT / name, folder / name)
        shutil.copy(ROOT / "pyproject.toml", folder)
        place.run(folder, place.python, "-m", "venv", "venv")
        python = ("venv/bin/python", "-P")
        place.run(folder, *python, *PIP, *OWN_WHEEL, "dist", "jax_convgrad")
        place.run(folder, *python, *PIP, *TRAINING, "pytest")
        started = time.monotonic()
        tag, versions = place.run(folder, *python, "-c", VERSIONS).strip().split(maxsplit=1)
        place.run(folder, *python, "-c", GRADIENTS)
        place.run(folder, *python, "-m", "jax_convgrad", "doctor")
        tests = [f"tests/{test}" for test in TESTS]
        summary = place.run(folder, *python, "-m", "pytest", "-q", "-k", "not emulated", *tests)
        passed = re.findall(r"\d+ passed", summary)[-1]
        trained = place.run(folder, *python, "examples/train_cnn.py").splitlines()[-1]
        print(f"{tag} on {versions}: {passed}; {trained} ({time.monotonic() - started:.0f} s)")
        return tag, f"{versions}: import, doctor, {passed.replace('passed', 'tests')}, `train_cnn.py`"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def try_arm64(root: Path) -> tuple[str, str]:
    """The AArch64 wheel for Python 3.11 in qemu, with Debian 12's Python and jaxlib's own wheel."""
    site = BUILD / "arm64_site"
    shutil.rmtree(site, ignore_errors=True)
    pip = [sys.executable, *PIP, "--target", site, "--python-version", "3.11", "--implementation", "cp"]
    pip += [f"--abi={abi}" for abi in ("cp311", "abi3", "none")]
    pip += [f"--platform=manylinux_2_{minor}_aarch64" for minor in (17, 27, 28)]
    run(*pip, "--platform=manylinux2014_aarch64", "jax")
    run(*pip, *OWN_WHEEL, DIST, "jax_convgrad")
    python = ["qemu-aarch64", "-L", root, "-E", f"PYTHONPATH={site}", root / "usr/bin/python3.11", "-P"]
    tag, versions = run(*python, "-c", VERSIONS, cwd=site).strip().split(maxsplit=1)
    run(*python, "-c", GRADIENTS, cwd=site)
    run(*python, "-m", "jax_convgrad", "plan", "2x9x9x5, 3x3, 7", cwd=site)
    return tag, f"{versions}, in qemu: import, gradients against lax's, `plan`"


def try_kernels(platform: str) -> tuple[str, str]:
    """The kernels' own tests, by the compiler of the wheels; in qemu if they are not for this machine."""
    run("cmake", "--build", BUILD / platform, "--target", "cpu_kernels")
    run(
        "ctest",
        "--test-dir",
        BUILD / platform,
        "-R",
        "^cpu_kernels$",
        "--no-tests=error",
        "--output-on-failure",
    )
    return platform, KERNELS_RAN.format(" in qemu" if platform.endswith("aarch64") else "")


def try_source_distribution(python: str) -> str:
    """A wheel from the source distribution's files alone, by this machine's compiler."""
    folder = BUILD / "from_source"
    shutil.rmtree(folder, ignore_errors=True)
    run(python, "-m", "venv", folder / "venv")
    (source,) = DIST.glob("jax_convgrad-*.tar.gz")
    option = "-Ccmake.define.JAX_CONVGRAD_CUDA=OFF"
    quiet = ["-q", "--disable-pip-version-check", "--no-cache-dir"]  # pip would keep the wheel it builds
    install = ["-m", "pip", "install", *quiet, option, source]
    run(folder / "venv" / "bin" / "python", *install, cwd=folder)
    run(folder / "venv" / "bin" / "python", "-c", GRADIENTS, cwd=folder)
    return f"{source.name}: built by pip on {Path(python).name}, gradients against lax's"


def record(platform_or_tag: str, what: str) -> None:
    """Notes what ran on these wheels, under the hash of each file: a new file has a clean record."""
    for wheel in DIST.glob(f"jax_convgrad-*{platform_or_tag}.whl"):
        tried = json.loads(TRIED.read_text()) if TRIED.exists() else {}
        ran = tried.setdefault(digest(wheel), [])
        ran[:] = sorted({*ran, what})
        TRIED.write_text(json.dumps(tried, indent=1))


def digest(wheel: Path) -> str:
    return hashlib.sha256(wheel.read_bytes()).hexdigest()


def table() -> str:
    tried = json.loads(TRIED.read_text()) if TRIED.exists() else {}
    lines = ["| wheel | MB | its module, MB | what ran on it |", "|---|--:|--:|---|"]
    for wheel in sorted(DIST.glob("jax_convgrad-*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            (module,) = [info.file_size for info in archive.infolist() if info.filename.endswith(".so")]
        sizes = f"{wheel.stat().st_size / 1e6:.2f} | {module / 1e6:.2f}"
        ran = "; ".join(tried.get(digest(wheel), ["nothing: its file was checked"]))
        lines.append(f"| `{wheel.stem.split('-', 2)[2]}` | {sizes} | {ran} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    option = parser.add_argument
    option(
        "--python",
        action="append",
        default=[],
        help="a Python to try, or FOLDER:/usr/bin/PYTHON in a folder of debootstrap's",
    )
    option("--arm64", type=Path, help="a folder of debootstrap's with Debian 12 for arm64 and python3")
    option("--kernels", action="store_true", help="compile and run the kernels' own tests as well")
    option("--sdist", action="store_true", help="build the source distribution by this machine's compiler")
    option("--write", action="store_true", help="write the table into docs/wheels.md")
    arguments = parser.parse_args()
    for name in arguments.python:
        root, _, python = name.rpartition(":")
        found = python if root else shutil.which(python)
        if not found:
            sys.exit(f"--python {name}: there is none")
        record(*try_python(Place(Path(root or "/").resolve(), found)))
    if arguments.arm64:
        record(*try_arm64(arguments.arm64.resolve()))
    if arguments.kernels:
        for machine in ("x86_64", "aarch64"):
            record(*try_kernels(f"manylinux_2_27_{machine}"))
    if arguments.sdist:
        print(try_source_distribution(sys.executable))
    text = table()
    print(text)
    if arguments.write:
        page = PAGE.read_text()
        PAGE.write_text(page.split(BEGIN)[0] + BEGIN + "\n" + text + "\n" + END + page.split(END)[1])


if __name__ == "__main__":
    main()
