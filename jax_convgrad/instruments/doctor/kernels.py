"""The native modules: whether they are there, load, and fit jaxlib's FFI."""

from __future__ import annotations

import importlib.machinery
import re
from pathlib import Path

from jax_convgrad.instruments.doctor.packages import OWN_FOLDER, ffi_version_of_jaxlib, is_source_folder
from jax_convgrad.instruments.doctor.processes import Outcome, look
from jax_convgrad.instruments.doctor.report import Section
from jax_convgrad.versions import LOWEST_JAX, NEWEST_TESTED_JAX, text


def module_file(name: str) -> Path | None:
    """What this Python would load as ``jax_convgrad.<name>``."""
    spec = importlib.machinery.PathFinder.find_spec(f"jax_convgrad.{name}", [str(OWN_FOLDER)])
    return Path(spec.origin) if spec and spec.origin else None


def _files(name: str) -> list[Path]:
    """Those for any Python."""
    return sorted(path for path in OWN_FOLDER.glob(f"{name}.*") if path.suffix in (".so", ".pyd"))


def load(name: str) -> Outcome | None:
    """Loads the module in a process of its own; None where there is none for this Python."""
    return look("native", name, timeout=60) if module_file(name) else None


def kernels_section(cpu: Outcome | None, cuda: Outcome | None, jax: Outcome) -> Section:
    """Of both modules, and of the import of the package on top of them."""
    section = Section("Kernels")
    _module(section, "_cpu", cpu, jax)
    if cuda is not None or _files("_cuda"):
        _module(section, "_cuda", cuda, jax)
    else:
        section.note("no CUDA kernels in this installation")
    failed_already = any(finding.problem for finding in section.findings)
    if "jax_convgrad" in jax.steps:
        section.ok(f"the package imports, with kernels for {' and '.join(jax.steps['jax_convgrad'])}")
    elif "jax_convgrad" in jax.failures and not failed_already and not is_source_folder():
        section.fail("import-fails", f"the package cannot be imported: {jax.failures['jax_convgrad']}")
    return section


def _module(section: Section, name: str, outcome: Outcome | None, jax: Outcome) -> None:
    if outcome is None:
        others = _files(name)
        if others:
            suffix = importlib.machinery.EXTENSION_SUFFIXES[0]
            section.fail(
                "module-of-another-python",
                f"{name} is built for another Python: {others[0].name},\nwhere this one loads {name}{suffix}",
            )
        elif is_source_folder():
            section.note(f"{name} is not in a source folder (see above)")
        else:
            section.fail("module-missing", f"{name} is missing in {OWN_FOLDER}")
        return
    section.facts[name] = {"file": str(module_file(name)), **outcome.as_facts()}
    file = module_file(name)
    assert file is not None
    if "load" not in outcome.steps:
        _not_loaded(section, file, outcome)
    elif "ffi_api_version" in outcome.failures and outcome.failures["ffi_api_version"].raised:
        section.fail("module-too-old", f"{file.name} tells no FFI version")
    elif outcome.failures and not any(failure.raised for failure in outcome.failures.values()):
        step, failure = next(iter(outcome.failures.items()))
        section.fail("module-kills-python", f"{file.name}, asked for its {step}: {failure}")
    else:  # an exception is about the instruction set, which is the CPU section's
        _ffi(section, file, outcome, jax)


def _not_loaded(section: Section, file: Path, outcome: Outcome) -> None:
    failure = next(iter(outcome.failures.values()))
    said = failure.message
    line = f"{file.name} does not load: {failure}"
    library = re.search(r"(\S+): cannot open shared object file", said)
    if not failure.raised:
        section.fail("module-kills-python", line)
    elif library and Path(library[1]).name != file.name:
        section.fail("module-needs-library", line, library=library[1])
    elif re.search(r"version `?(GLIBC|GLIBCXX|CXXABI)_", said):
        section.fail("module-of-newer-system", line)
    else:
        section.fail("module-broken", line)


def _ffi(section: Section, file: Path, outcome: Outcome, jax: Outcome) -> None:
    major, minor = outcome.steps["ffi_api_version"]
    offered = ffi_version_of_jaxlib(jax)
    section.facts["jaxlib_ffi_api_version"] = offered
    line = f"{file.name} loads; FFI {major}.{minor}"
    if offered is None:
        section.ok(f"{line}; jaxlib's headers, which would tell its own, are not there")
    elif offered[0] != major:
        section.fail(
            "ffi-of-another-kind",
            f"{line}, where jaxlib's is {offered[0]}.{offered[1]}",
            newest=text(NEWEST_TESTED_JAX),
        )
    elif offered[1] < minor:
        section.fail(
            "ffi-older-than-module",
            f"{line}, where jaxlib's is {offered[0]}.{offered[1]}, which is older",
            lowest=text(LOWEST_JAX),
        )
    else:
        section.ok(f"{line}, jaxlib's is {offered[0]}.{offered[1]}")
