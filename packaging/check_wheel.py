"""What a wheel must be, as far as its file tells: python packaging/check_wheel.py dist/jax_convgrad-*.whl."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import lief
import nanobind

# The Python symbols that nanobind's modules may leave undefined.
PYTHON_SYMBOLS = set(
    re.findall(r"-U (\S+)", (Path(nanobind.cmake_dir()) / "darwin-ld-cpython.sym").read_text())
)
LATER = -2  # Apple's BIND_SPECIAL_DYLIB_FLAT_LOOKUP: when the module is loaded, in whatever library has it
MACHINES = {"x86_64": "X86_64", "aarch64": "AARCH64", "arm64": "ARM64"}


def run(*command: str | Path) -> tuple[int, str]:
    process = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return process.returncode, process.stdout


def names_of(symbols: Iterable[Any]) -> set[str]:
    return {str(symbol.name) for symbol in symbols}


def linux_faults(wheel: Path, module: Path, platform: str) -> Iterator[str]:
    binary = lief.ELF.parse(str(module))
    if not str(binary.header.machine_type).endswith("." + MACHINES[platform.split("_", 3)[3]]):
        yield f"the module is for {binary.header.machine_type}"
    exported = names_of(binary.exported_symbols)
    if exported != {"PyInit__cpu"}:
        yield f"the module exports {sorted(exported)[:9]}"
    if list(binary.symtab_symbols):
        yield "the module is not stripped"
    foreign = {name for name in names_of(binary.imported_symbols) if name.startswith(("_Z", "__cxa_throw"))}
    if foreign:
        yield f"the module needs a C++ library: {sorted(foreign)[:9]}"
    status, text = run("auditwheel", "show", wheel)
    tags = re.findall(r"manylinux_(\d+)_(\d+)_", "".join(re.findall(r'platform tag:\s*"([^"]*)"', text)))
    wanted = tuple(int(number) for number in platform.split("_")[1:3])
    if status or not tags or max(tuple(map(int, tag)) for tag in tags) > wanted:
        yield f"auditwheel: {text}"


def macos_faults(module: Path, platform: str) -> Iterator[str]:
    _, major, minor, machine = platform.split("_", 3)
    binary = lief.MachO.parse(str(module)).at(0)
    if not str(binary.header.cpu_type).endswith("." + MACHINES[machine]):
        yield f"the module is for {binary.header.cpu_type}"
    if binary.build_version.minos[:2] != [int(major), int(minor)]:
        yield f"the module needs macOS {binary.build_version.minos}"
    if not binary.has_code_signature:
        yield "the module has no code signature; macOS on arm64 loads none without"
    libraries = {str(library.name) for library in binary.libraries} - {str(module), f"@rpath/{module.name}"}
    libraries -= {module.name, f"{module.parent}/{module.name}"}
    if libraries - {"/usr/lib/libSystem.B.dylib", "/usr/lib/libc++.1.dylib"}:
        yield f"the module links {libraries}"
    # zig's linker ignores a list of exports. Whose operator new and delete a program uses, macOS decides.
    exported = names_of(binary.exported_symbols)
    allowed = {"_PyInit__cpu", "__mh_dylib_header", "___dso_handle"}
    if {name for name in exported if not name.startswith(("__Zn", "__Zd"))} - allowed:
        yield f"the module exports {sorted(exported)}"
    undefined = {str(binding.symbol.name) for binding in binary.bindings if binding.library_ordinal == LATER}
    if undefined - PYTHON_SYMBOLS:
        yield f"no library has {sorted(undefined - PYTHON_SYMBOLS)[:9]}"


def faults(wheel: Path) -> Iterator[str]:
    python, abi, platforms = wheel.stem.split("-")[2:]
    platform = platforms.split(".")[-1]
    with zipfile.ZipFile(wheel) as archive, tempfile.TemporaryDirectory() as folder:
        info = archive.read(
            next(name for name in archive.namelist() if name.endswith(".dist-info/WHEEL"))
        ).decode()
        if f"Tag: {python}-{abi}-{platform}\n" not in info or "Root-Is-Purelib: false" not in info:
            yield f"WHEEL says {info}"
        modules = [name for name in archive.namelist() if name.endswith((".so", ".dylib"))]
        soabi = re.escape({"a": "abi3"}.get(abi[0], f"cpython-{abi[2:]}-"))
        if len(modules) != 1 or not re.fullmatch(rf"jax_convgrad/_cpu\.{soabi}[\w-]*\.so", modules[0]):
            yield f"the modules are {modules}"
            return
        module = Path(archive.extract(modules[0], folder))
        yield from (
            linux_faults(wheel, module, platform) if "linux" in platform else macos_faults(module, platform)
        )
        if abi == "abi3":
            status, text = run("abi3audit", "--strict", "--verbose", wheel)
            if status:
                yield f"abi3audit: {text}"


def check(wheel: Path) -> list[str]:
    """What is wrong with the wheel, in sentences."""
    return [f"{wheel.name}: {fault}" for fault in faults(wheel)]


if __name__ == "__main__":
    sys.exit("\n".join(fault for wheel in sys.argv[1:] for fault in check(Path(wheel))) or 0)
