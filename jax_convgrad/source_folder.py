"""The clone's ``jax_convgrad`` folder, which contains no built module, and the installed package behind it.

``python -m`` and the prompt look in the current folder first, which may be the clone. This module needs no
JAX.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
from pathlib import Path

OWN_FOLDER = Path(__file__).resolve().parent


def is_source_folder() -> bool:
    """Reports whether the running package is the clone's folder, which contains no built module."""
    return (OWN_FOLDER.parent / "CMakeLists.txt").exists() and not module_file("_cpu")


def module_file(name: str, package: str = "jax_convgrad") -> Path | None:
    """The file that Python loads as a package's module; an editable installation has it elsewhere."""
    spec = importlib.util.find_spec(f"{package}.{name}")
    return Path(spec.origin) if spec and spec.origin else None


def python_of_clone() -> Path | None:
    """The Python of the virtual environment that ``make`` created in the clone, if it has the package."""
    environment = OWN_FOLDER.parent / ".venv"
    has_it = any(environment.glob("lib/python*/site-packages/jax_convgrad/_cpu.*"))
    return environment / "bin" / "python" if has_it else None


def installed_elsewhere() -> Path | None:
    """Another jax_convgrad on ``sys.path``, with native modules."""
    for entry in sys.path:
        folder = Path(entry or ".").resolve() / "jax_convgrad"
        in_folder = importlib.machinery.PathFinder.find_spec("jax_convgrad._cpu", [str(folder)])
        if folder != OWN_FOLDER and in_folder:
            return folder
    return None
