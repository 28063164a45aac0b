"""Calls a function when JAX is imported: at once if it is already imported, otherwise after its import.

``import jax_convgrad`` has to register the kernels, which needs JAX. But it must not import JAX itself,
because the doctor has to run even if JAX cannot be imported.
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
    """Calls ``then`` when JAX is imported."""
    if "jax" in sys.modules and not _is_imported():
        with contextlib.suppress(Exception):  # the thread that imports it gets the error
            # Waits for the import by another thread. An import by this thread continues after this call.
            importlib.import_module("jax")
    if _is_imported():
        then()
    else:
        sys.meta_path.insert(0, _Finder(then))


def _is_imported() -> bool:
    jax = sys.modules.get("jax")
    # While a module is being imported, its spec says so.
    return jax is not None and not getattr(jax.__spec__, "_initializing", False)


def forget() -> None:
    """Cancels all calls that have not happened yet."""
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, _Finder)]


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, then: Callable[[], None]) -> None:
        self.then = then

    def call(self) -> None:
        """Calls the function, once."""
        if self in sys.meta_path:
            sys.meta_path.remove(self)
            self.then()

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != "jax":
            if _is_imported():  # its import had begun before this finder existed, so _Loader was not used
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
    """JAX's own loader, with a call after it."""

    def __init__(self, loader: importlib.abc.Loader, finder: _Finder) -> None:
        self.loader, self.finder = loader, finder

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        # Code that asks for JAX's loader, for instance to read files next to it, gets the original one.
        module.__loader__ = self.loader
        if module.__spec__ is not None:
            module.__spec__.loader = self.loader
        self.loader.exec_module(module)
        self.finder.call()
