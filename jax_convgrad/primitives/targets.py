"""The native modules and their targets, registered with XLA when this module is imported.

A process that only runs programs, which others compiled or exported, needs this module and no other. So
``import jax_convgrad`` imports it (after_jax.py), and it imports nothing that only tracing needs.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import jax
import jax.ffi
import jaxlib

from jax_convgrad.source_folder import OWN_FOLDER, installed_elsewhere
from jax_convgrad.versions import LOWEST_JAX, numbers, text


@dataclass(frozen=True)
class Backend:
    """A native module, the prefix of its target names, and the kernel that a call asks for.

    ``kernel`` is "auto" (the plan's choice) or a kernel's name, for tests and measurements.
    """

    module: Any
    prefix: str = "jax_convgrad_"
    kernel: str = "auto"


backends: dict[str, Backend] = {}
"""The kernels of each platform, by JAX's name for lowering: "cpu", "cuda"."""


def register(backend: Backend, platform: str) -> None:
    """Registers every target of ``backend`` with XLA, for "cpu" or "CUDA"."""
    for name, handler in backend.module.registrations().items():
        jax.ffi.register_ffi_target(backend.prefix + name, handler, platform=platform)


def _cuda_module() -> ModuleType | None:
    """The CUDA kernels, or None in a package that was built without them."""
    try:
        return importlib.import_module("jax_convgrad._cuda")
    except ModuleNotFoundError as error:
        if error.name != "jax_convgrad._cuda":
            raise
        return None


def _register_modules() -> None:
    if numbers(jaxlib.__version__) < LOWEST_JAX:
        # An older FFI does not refuse these handlers, and the whole backend fails with them.
        raise ImportError(
            f"jax_convgrad needs jaxlib >= {text(LOWEST_JAX)}, but jaxlib is {jaxlib.__version__}"
        )
    try:
        backends["cpu"] = Backend(importlib.import_module("jax_convgrad._cpu"))
    except ModuleNotFoundError as error:
        if error.name != "jax_convgrad._cpu":
            raise
        elsewhere = installed_elsewhere()
        found_before = f", and was found before the installed {elsewhere}" if elsewhere else ""
        raise ImportError(
            f"{OWN_FOLDER} is jax_convgrad's source folder, in which nothing is built{found_before}. "
            + ("" if elsewhere else "Install the package (pip install .), and ")
            + "run Python in another folder, or with the option -P."
        ) from None
    register(backends["cpu"], "cpu")
    cuda = _cuda_module()
    if cuda is not None:
        backends["cuda"] = Backend(cuda)
        register(backends["cuda"], "CUDA")


_register_modules()


def export_checks() -> list[Any]:
    """The ``disabled_checks`` argument of ``jax.export.export`` for a program with these kernels.

    JAX refuses to export a custom call unless it knows that the call's meaning is stable. These are stable
    within one version of the package: the process that loads the program must have imported the version of
    ``jax_convgrad`` that exported it.

    ```python
    import jax
    import jax.numpy as jnp
    from jax import export
    from jax_convgrad import conv, export_checks

    x, w = jnp.ones((1, 8, 8, 3)), jnp.ones((3, 3, 3, 4))
    exported = export.export(jax.jit(conv), disabled_checks=export_checks())(x, w)
    y = exported.call(x, w)
    ```

    Returns:
      One ``jax.export.DisabledSafetyCheck`` for each target of the kernels that this installation has.
    """
    from jax import export

    names = {
        backend.prefix + name for backend in backends.values() for name in backend.module.registrations()
    }
    return [export.DisabledSafetyCheck.custom_call(name) for name in sorted(names)]
