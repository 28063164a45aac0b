"""Builds the wheels and the source distribution, and checks them: make wheels.

zig (ziglang on PyPI) is a clang with the C libraries of other systems, so one Linux machine compiles for all.
Each target has one build folder, build/wheels/TARGET. The kernels do not depend on Python, so they are
compiled there once; for each Python the folder is configured anew, and only nanobind and the binding are
compiled.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import itertools
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "wheels"
DIST = ROOT / "dist"


@dataclasses.dataclass(frozen=True)
class Target:
    """A system and processor that jaxlib has wheels for; with the oldest release that those wheels run on."""

    platform_tag: str
    zig: str  # glibc's or macOS's version is its end
    system: str
    processor: str
    soabi: str

    @property
    def folder(self) -> Path:
        return BUILD / self.platform_tag


# The platform tags are those of jaxlib 0.9.1 to 0.12.0.1.
TARGETS = [
    Target("manylinux_2_27_x86_64", "x86_64-linux-gnu.2.27", "Linux", "x86_64", "x86_64-linux-gnu"),
    Target("manylinux_2_27_aarch64", "aarch64-linux-gnu.2.27", "Linux", "aarch64", "aarch64-linux-gnu"),
    Target("macosx_11_0_arm64", "aarch64-macos.11.0", "Darwin", "arm64", "darwin"),
]


@dataclasses.dataclass(frozen=True)
class Python:
    """What a module is compiled for: one version of Python, or with "abi3" each one from it on."""

    minor: int
    abi: str

    @property
    def tag(self) -> str:
        return f"cp3{self.minor}-{self.abi}"

    @property
    def free_threaded(self) -> bool:
        return self.abi.endswith("t")


# Python 3.12 is the first whose stable ABI suffices for nanobind. Free-threaded Python does not load abi3
# modules; these three are the free-threaded versions that jaxlib has wheels for.
PYTHONS = [
    Python(11, "cp311"),
    Python(12, "abi3"),
    Python(13, "cp313t"),
    Python(14, "cp314t"),
    Python(15, "cp315t"),
]


def find_headers(folders: list[Path]) -> dict[int, Path]:
    """Where Python.h of each minor version of Python 3 is: in these folders, or where they usually are."""
    usual = [Path(sysconfig.get_path("include")), Path("/usr/include"), Path("/usr/local/include")]
    usual += Path.home().glob(".pyenv/versions/3*/include")
    found: dict[int, Path] = {}
    for folder in [*folders, *usual]:
        for patchlevel in [folder / "patchlevel.h", *sorted(folder.glob("python3*/patchlevel.h"))]:
            if patchlevel.exists() and (patchlevel.parent / "Python.h").exists():
                (minor,) = re.findall(r"define PY_MINOR_VERSION\s+(\d+)", patchlevel.read_text())
                found.setdefault(int(minor), patchlevel.parent)
    return found


def headers_for(python: Python, source: Path) -> Path:
    """A copy of this machine's headers, made to fit each target and free-threaded Python.

    Debian's pyconfig.h includes that of the compiler's target, which is not here. Those of the targets differ
    in what Python's own sources use, and in sizes that Python.h itself corrects for macOS; integers have the
    same sizes on all targets. The headers of free-threaded Python differ in one macro.
    """
    copy = BUILD / "headers" / python.tag
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(source, copy)
    for config in source.parent.glob(f"{os.uname().machine}-linux-gnu/{source.name}/pyconfig.h"):
        shutil.copy(config, copy)
    if python.free_threaded:
        with (copy / "pyconfig.h").open("a") as file:
            file.write("\n#undef Py_GIL_DISABLED\n#define Py_GIL_DISABLED 1\n")
    return copy


def write_compiler(target: Target) -> Path:
    """Writes c++, ar and ranlib for the target, and returns their folder.

    zig has names of its own for x86-64's levels. Its linker for macOS crashes on -bundle, instead of which a
    module may be -shared; it reads no file of options (nanobind's lists the symbols that Python defines), and
    after -x, which removes local symbols, entries of the indirect symbol table are wrong. It compiles its C++
    library when it first links with other options; these are the same in CMake's trials.
    """
    tools = target.folder / "tools"
    tools.mkdir(parents=True, exist_ok=True)
    zig = Path(importlib.util.find_spec("ziglang").origin).with_name("zig")
    compiler = f"""#!/usr/bin/env bash
options=(-target {target.zig} -O3 -fPIC)
for option in "$@"; do
  case $option in
    -march=x86-64-v*) options+=("-march=x86_64_v${{option#*-v}}") ;;
    -bundle) options+=(-shared -undefined dynamic_lookup) ;;
    -Wl,@* | -Wl,-x) ;;
    *) options+=("$option") ;;
  esac
done
exec "{zig}" c++ "${{options[@]}}"
"""
    scripts = {"c++": compiler} | {
        name: f'#!/bin/sh\nexec "{zig}" {name} "$@"\n' for name in ("ar", "ranlib")
    }
    for name, text in scripts.items():
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    return tools


def build_module(target: Target, python: Python, headers: Path) -> Path:
    """Compiles jax_convgrad._cpu."""
    tools = write_compiler(target)
    soabi = f"cpython-3{python.minor}{'t' * python.free_threaded}-{target.soabi}"
    definitions = {
        "CMAKE_BUILD_TYPE": "Release",
        "CMAKE_MODULE_PATH": ROOT / "packaging" / "cmake",
        "CMAKE_SYSTEM_NAME": target.system,
        "CMAKE_SYSTEM_PROCESSOR": target.processor,
        "CMAKE_CXX_COMPILER": tools / "c++",
        "CMAKE_AR": tools / "ar",
        "CMAKE_RANLIB": tools / "ranlib",
        "JAX_CONVGRAD_CUDA": "OFF",
        "JAX_CONVGRAD_TESTS": "cpu_kernels",  # `make test-wheels` builds and runs it
        "Python_EXECUTABLE": sys.executable,
        "Python_INCLUDE_DIRS": headers,
        "Python_VERSION": f"3.{python.minor}",
        "Python_SOABI": soabi,
    }
    if (
        target.system == "Linux"
    ):  # keeps the static C++ library to the module; macOS's linker does not have it
        definitions["CMAKE_MODULE_LINKER_FLAGS"] = (
            f"-Wl,--version-script={ROOT / 'packaging' / 'exports.map'}"
        )
    if target.processor == "aarch64":
        definitions["CMAKE_CROSSCOMPILING_EMULATOR"] = "qemu-aarch64;-L;/usr/aarch64-linux-gnu"
    if target.system == "Darwin":
        definitions |= {"CMAKE_INSTALL_NAME_TOOL": "true", "CMAKE_OSX_SYSROOT": ""}
    options = [f"-D{name}={value}" for name, value in definitions.items()]
    subprocess.run(
        ["cmake", "-S", ROOT, "-B", target.folder, "-G", "Ninja", "--log-level=WARNING", *options], check=True
    )
    subprocess.run(["cmake", "--build", target.folder, "--target", "_cpu"], check=True)
    suffix = "abi3" if python.abi == "abi3" else soabi
    return target.folder / f"_cpu.{suffix}.so"


def build_plain_wheel() -> Path:
    """The wheel as pyproject.toml describes it, without a module, unpacked."""
    from scikit_build_core import build as backend

    folder = BUILD / "plain"
    shutil.rmtree(folder, ignore_errors=True)
    name = backend.build_wheel(str(folder), {"wheel.cmake": "false", "wheel.py-api": "py3"})
    run_wheel("unpack", "--dest", folder, folder / name)
    return next(path for path in folder.iterdir() if path.is_dir())


def run_wheel(*arguments: str | Path) -> None:
    subprocess.run([sys.executable, "-m", "wheel", *arguments], check=True, stdout=subprocess.DEVNULL)


def pack(plain: Path, module: Path, python: Python, target: Target) -> Path:
    """Adds the module to the files of the plain wheel, and packs them under the right tag."""
    folder = BUILD / "packed" / plain.name
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(plain, folder)
    shutil.copy(module, folder / "jax_convgrad")
    tag = f"{python.tag}-{target.platform_tag}"
    (info,) = folder.glob("*.dist-info/WHEEL")
    text = re.sub(r"(?m)^Tag: .*$", f"Tag: {tag}", info.read_text())
    info.write_text(text.replace("Root-Is-Purelib: true", "Root-Is-Purelib: false"))
    run_wheel("pack", "--dest-dir", DIST, folder)
    return DIST / f"{plain.name}-{tag}.whl"


def build_wheels(targets: list[Target], headers: dict[int, Path]) -> Iterator[Path]:
    plain = build_plain_wheel()
    for python in PYTHONS:
        newer = range(python.minor, 100) if python.abi == "abi3" else [python.minor]
        minor = next((minor for minor in newer if minor in headers), None)
        if minor is None:
            print(f"left out: {python.tag}, since there are no headers of Python 3.{python.minor} here")
            continue
        source = headers_for(python, headers[minor])
        for target in targets:
            print(f"{python.tag}-{target.platform_tag}: headers of {headers[minor]}", flush=True)
            yield pack(plain, build_module(target, python, source), python, target)


def remove_replaced(targets: list[Target]) -> None:
    """Removes what this run builds anew, of any version, and leaves the wheels of other targets alone."""
    for pattern in [".tar.gz", *(f"-{target.platform_tag}.whl" for target in targets)]:
        for old in DIST.glob(f"jax_convgrad-*{pattern}"):
            old.unlink()


def main() -> None:
    from check_wheel import check
    from scikit_build_core import build as backend

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--headers",
        type=Path,
        action="append",
        default=[],
        help="a folder with Python.h, or with pythonX.Y folders",
    )
    parser.add_argument("--targets", default="", help="build only the platform tags with this word")
    arguments = parser.parse_args()
    os.chdir(ROOT)
    DIST.mkdir(exist_ok=True)
    targets = [target for target in TARGETS if arguments.targets in target.platform_tag]
    remove_replaced(targets)
    print(f"dist/{backend.build_sdist(str(DIST))}")
    wheels = list(build_wheels(targets, find_headers(arguments.headers)))
    failed = list(itertools.chain.from_iterable(check(wheel) for wheel in wheels))
    for wheel in wheels:
        print(f"{wheel.stat().st_size / 1e6:5.2f} MB  {wheel.name}")
    sys.exit("\n".join(failed) or 0)


if __name__ == "__main__":
    main()
