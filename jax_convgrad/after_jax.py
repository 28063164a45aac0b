"""Calls a function once JAX is imported: at once where it is, else when it has been.

``import jax_convgrad`` is to register the kernels, which needs JAX, and to import nothing itself, as the
doctor must run where JAX cannot be imported.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.abc
import importlib.machinery
import sys
from collections.abc import Callable, Sequence
from types import ModuleType


def after_jax(then: Callable[[], None]) -> None:
    """Calls ``then`` once JAX is imported."""
    if "jax" in sys.modules and not _is_imported():
        with contextlib.suppress(Exception):  # whoever imports it is told
            # Waits for another thread's import. That which this one is part of goes on after it.
            importlib.import_module("jax")
    if _is_imported():
        then()
    else:
        sys.meta_path.insert(0, _Finder(then))


def _is_imported() -> bool:
    jax = sys.modules.get("jax")
    # What is being imported has no spec that says that it has been.
    return jax is not None and not getattr(jax.__spec__, "_initializing", False)


def forget() -> None:
    """Calls nothing that has not been called yet."""
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, _Finder)]


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, then: Callable[[], None]) -> None:
        self.then = then

    def call(self) -> None:
        """What is to be called, once."""
        if self in sys.meta_path:
            sys.meta_path.remove(self)
            self.then()

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != "jax":
            if _is_imported():  # it was about to be when this was made, and is past its own loader
                self.call()
            return None
        for finder in sys.meta_path:
            find = getattr(finder, "find_spec", None)
            spec = find(name, path, target) if find and finder is not self else None
            if spec is not None:
                if spec.loader is not None:
                    spec.loader = _Loader(spec.loader, self)
                return spec
        return None


class _Loader(importlib.abc.Loader):
    """The loader that JAX would have without this, and a call after it."""

    def __init__(self, loader: importlib.abc.Loader, finder: _Finder) -> None:
        self.loader, self.finder = loader, finder

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        # Whoever asks for JAX's loader, for the files beside it say, is given its own.
        module.__loader__ = self.loader
        if module.__spec__ is not None:
            module.__spec__.loader = self.loader
        self.loader.exec_module(module)
        self.finder.call()
