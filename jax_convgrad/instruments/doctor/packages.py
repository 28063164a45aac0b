"""The packages: which versions, from where, and whether JAX imports."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
import sysconfig
from pathlib import Path
from typing import Any

import jax_convgrad
from jax_convgrad.instruments.doctor.processes import Outcome
from jax_convgrad.instruments.doctor.report import Section
from jax_convgrad.source_folder import OWN_FOLDER, installed_elsewhere, is_source_folder, python_of_clone
from jax_convgrad.versions import LOWEST_JAX, NEWEST_TESTED_JAX, numbers, text

_REQUIRED = {
    "numpy": "numpy>=1.26",
    "jaxlib": f"jaxlib>={text(LOWEST_JAX)}",
    "jax": f"jax>={text(LOWEST_JAX)}",
}
_OPTIONAL = {
    "optax": "the examples' optimizer",
    "flax": "a library of models",
    "matplotlib": "the plots; in the extra jax_convgrad[plot]",
}


FFT_DEADLOCKS = (0, 11, 1)
"""The jaxlib whose Fourier transform on the CPU may wait for threads that wait for it."""


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _folder(name: str) -> str:
    """Where it would be imported from, or "" where it would not be."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return ""
    if spec is None:
        return ""
    places = [*(spec.submodule_search_locations or []), spec.origin]
    return next((place for place in places if place), "")


def packages_section(jax: Outcome) -> Section:
    """Versions and places of this package, what it requires, and what is used beside it."""
    section = Section("Packages")
    _own(section)
    for name, requirement in _REQUIRED.items():
        _required(section, name, requirement, jax)
    for name, use in _OPTIONAL.items():
        version, folder = _version(name), _folder(name)
        section.facts[name] = {"version": version, "folder": folder}
        section.note(
            f"{name} {version}, {folder}" if folder else f"{name} is not installed (optional: {use})"
        )
    return section


def _own(section: Section) -> None:
    version, installed = jax_convgrad.__version__, _version("jax_convgrad")
    section.facts["jax_convgrad"] = {"version": version, "metadata": installed, "folder": str(OWN_FOLDER)}
    line = f"jax_convgrad {version}, {OWN_FOLDER}"
    if is_source_folder():
        elsewhere = installed_elsewhere()
        if elsewhere:
            section.fail(
                "source-folder-shadows",
                f"{line}\nis the source folder, in which nothing is built; it is found before the installed\n"
                f"{elsewhere}",
            )
        elif (python := python_of_clone()) is not None:
            section.fail(
                "installed-for-another-python",
                f"{line}\nis the source folder, in which nothing is built; the clone's own Python has the\n"
                "package, and this one has not",
                other=str(python),
            )
        else:
            section.fail(
                "source-folder-not-built",
                f"{line}\nis the source folder, in which nothing is built, and the package is not installed",
                install=_install(str(OWN_FOLDER.parent)),
            )
    elif installed and installed != version:
        section.warn("versions-differ", f"{line}, but what is installed is {installed}")
    else:
        section.ok(line)


def _install(folder: str) -> str:
    """How this Python gets the package; a system's own may leave that to virtual environments."""
    marker = Path(sysconfig.get_path("stdlib")) / "EXTERNALLY-MANAGED"
    if marker.exists() and sys.prefix == sys.base_prefix:
        return f'{sys.executable} -m venv ~/convgrad && ~/convgrad/bin/pip install "{folder}"'
    return f'{sys.executable} -m pip install "{folder}"'


def _required(section: Section, name: str, requirement: str, jax: Outcome) -> None:
    told = jax.steps.get(name)
    version, folder = (told[0], str(Path(told[1]).parent)) if told else (_version(name), _folder(name))
    section.facts[name] = {"version": version, "folder": folder, "imports": bool(told)}
    line = " ".join(filter(None, [name, version])) + (f", {folder}" if folder else "")
    details = {"requirement": requirement}
    failure = jax.failures.get(name)
    is_missing = (failure and failure.missing == name) or not (told or folder)
    if is_missing and is_source_folder() and not installed_elsewhere():
        section.note(f"{name} is not installed for this Python: it comes with the package")
    elif is_missing:
        section.fail("package-missing", f"{name} is not installed for this Python", **details)
    elif failure:
        section.fail("package-broken", f"{line}\ncannot be imported: {failure}", **details)
    elif name in ("jax", "jaxlib") and numbers(version) < LOWEST_JAX:
        section.fail("package-too-old", f"{line}\nis older than {text(LOWEST_JAX)}", **details)
    elif name in ("jax", "jaxlib") and numbers(version)[: len(NEWEST_TESTED_JAX)] > NEWEST_TESTED_JAX:
        newest = text(NEWEST_TESTED_JAX)
        section.warn(
            "package-untested",
            f"{line}\nis newer than {newest}, the newest that jax_convgrad is tested with",
            requirement=f"{name}<={newest}.*",
        )
    elif name == "jaxlib" and numbers(version) == FFT_DEADLOCKS:
        section.warn(
            "jaxlib-fft-deadlocks",
            f"{line}\nmay hang for ever in a Fourier transform on the CPU, with several threads: JAX's own\n"
            "(jax.numpy.fft, jax.scipy.signal.fftconvolve), with or without these kernels",
        )
    elif not told:
        section.note(f"{line}, not looked at")
    else:
        section.ok(line)


def ffi_version_of_jaxlib(jax: Outcome) -> tuple[int, int] | None:
    """Major and minor version of XLA's FFI, by the headers that jaxlib carries."""
    told: Any = jax.steps.get("jaxlib")
    folder = str(Path(told[1]).parent) if told else _folder("jaxlib")
    header = Path(folder or "/nowhere") / "include" / "xla" / "ffi" / "api" / "c_api.h"
    found = {}
    try:
        for line in header.read_text(errors="replace").splitlines():
            words = line.split()
            if words[:1] == ["#define"] and len(words) == 3 and words[1].startswith("XLA_FFI_API_M"):
                found[words[1]] = int(words[2])
        return found["XLA_FFI_API_MAJOR"], found["XLA_FFI_API_MINOR"]
    except (OSError, KeyError, ValueError):
        return None
