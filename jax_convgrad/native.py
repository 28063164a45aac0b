"""The native modules: where they are, and what to install if one cannot be imported. It needs no JAX."""

from __future__ import annotations

import importlib
import importlib.util
import platform
import re
import sys
import sysconfig
from pathlib import Path
from types import ModuleType

import jax_convgrad
from jax_convgrad.source_folder import OWN_FOLDER, installed_elsewhere, is_source_folder, module_file

CUDA_PACKAGE = "jax_convgrad_cuda13"
"""The package that contains the CUDA kernels alone (cuda_src/package/)."""

CUDA_DRIVER = 580
"""The first NVIDIA driver that runs the kernels of this package."""

_PIP = "pip install --force-reinstall --no-deps --no-cache-dir"
_MISSING_VERSION = re.compile(r"version [`']([A-Z]+)_([\d.]+)' not found")
_LIBRARIES = {"GLIBC": "glibc", "GLIBCXX": "libstdc++'s GLIBCXX", "CXXABI": "libstdc++'s CXXABI"}


def cpu_module() -> ModuleType:
    """The CPU kernels."""
    if is_source_folder():
        elsewhere = installed_elsewhere()
        found_before = f", and was found before the installed {elsewhere}" if elsewhere else ""
        raise ImportError(
            f"{OWN_FOLDER} is jax_convgrad's source folder, in which nothing is built{found_before}. "
            + ("" if elsewhere else "Install the package (pip install .), and ")
            + "run Python in another folder, or with the option -P."
        )
    return _imported("jax_convgrad._cpu", OWN_FOLDER)


def cuda_module() -> ModuleType | None:
    """The CUDA kernels, or None if they are not installed."""
    package = cuda_package()
    if package is None:
        return None
    if (mismatch := cuda_mismatch()) is not None:
        raise ImportError(mismatch)
    return _imported(f"{package}._cuda", folder_of(package))


def cuda_package() -> str | None:
    """The package with the CUDA kernels: this one if it was built with them, else the CUDA package."""
    if module_file("_cuda"):
        return "jax_convgrad"
    return CUDA_PACKAGE if importlib.util.find_spec(CUDA_PACKAGE) else None


def cuda_mismatch() -> str | None:
    """A sentence if the CUDA kernels come from a package of another version than this one's."""
    ours = jax_convgrad.__version__
    package = cuda_package()
    theirs = getattr(importlib.import_module(package), "__version__", "another one") if package else ours
    if theirs == ours:
        return None
    return (
        f"jax_convgrad {ours} needs {package} {ours}, but {theirs} is installed: "
        f'pip install "{package}=={ours}"'
    )


def folder_of(package: str) -> Path:
    """The folder of an installed package."""
    spec = importlib.util.find_spec(package)
    return Path(next(iter((spec and spec.submodule_search_locations) or [""])))


def has_cuda_wheels() -> bool:
    """Reports whether the CUDA package has wheels for this system and Python (make cuda-wheel)."""
    return sys.platform == "linux" and platform.machine() == "x86_64" and not _is_free_threaded()


def cuda_remedy() -> str:
    """The command that installs CUDA kernels for this system and the JAX that is installed."""
    if not has_cuda_wheels():
        return _compile("_cuda")
    # JAX cannot use its plugins for CUDA 12 and 13 together, and the extra would install the second one.
    has_cuda12, has_cuda13 = (importlib.util.find_spec(f"jax_cuda{major}_plugin") for major in (12, 13))
    only_cuda12 = has_cuda12 and not has_cuda13
    requirement = f"{CUDA_PACKAGE}=={jax_convgrad.__version__}" if only_cuda12 else "jax_convgrad[cuda13]"
    return f'with driver {CUDA_DRIVER} or later, pip install "{requirement}"'


def remedy(package: str, module: str, reason: str = "") -> str:
    """The command that mends a module of this package, for the reason that the loader gives."""
    if missing := _MISSING_VERSION.search(reason):
        library, version = _LIBRARIES.get(missing[1], missing[1]), missing[2]
        has = f", and this system has {platform.libc_ver()[1]}" if library == "glibc" else ""
        compiles = f"{_compile(module)} compiles the kernels for this system"
        return f"it needs {library} {version} or later{has}; {compiles}"
    # Only a build from source puts CUDA kernels into jax_convgrad itself.
    if module == "_cuda" and not (package == CUDA_PACKAGE and has_cuda_wheels()):
        return f"{_compile(module)} compiles the kernels for this system and Python"
    return f"{_PIP} {package}=={jax_convgrad.__version__} with this Python installs it"


def _imported(name: str, folder: Path) -> ModuleType:
    """The module; if it cannot be imported, the error is a sentence that says what to install."""
    package, _, module = name.rpartition(".")
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        others = ", ".join(sorted(path.name for path in folder.glob(f"{module}.*")))
        raise ImportError(
            f"{folder} has no {module} for {_this_python()}{f', only {others}' if others else ''}: "
            f"{remedy(package, module)}"
        ) from None
    except ImportError as error:
        raise ImportError(
            f"{name} cannot be loaded ({error}): {remedy(package, module, str(error))}"
        ) from error


def _compile(module: str) -> str:
    # The version is pinned: a newer jax_convgrad would not go with the CUDA package that is installed.
    command = f"{_PIP} --no-binary jax_convgrad jax_convgrad=={jax_convgrad.__version__}"
    if module == "_cuda":
        return f"with nvcc on the PATH, {command} --config-settings cmake.define.JAX_CONVGRAD_CUDA=ON"
    return command


def _is_free_threaded() -> bool:
    return bool(sysconfig.get_config_var("Py_GIL_DISABLED"))


def _this_python() -> str:
    version = ".".join(map(str, sys.version_info[:2]))
    return f"Python {version}" + (" (free-threaded)" if _is_free_threaded() else "")
