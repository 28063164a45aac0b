"""The native modules and their targets, registered with XLA when this module is imported.

A process that only runs programs, which others compiled or exported, needs this module and no other. So
``import jax_convgrad`` imports it (after_jax.py), and it imports nothing that only tracing needs.
"""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.ffi
import jaxlib

from jax_convgrad import native
from jax_convgrad.versions import LOWEST_JAX, NEWEST_TESTED_JAX, numbers, text


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


def _register_modules() -> None:
    if numbers(jaxlib.__version__) < LOWEST_JAX:
        # An older FFI does not refuse these handlers, and the whole backend fails with them.
        raise ImportError(
            f"jax_convgrad needs jaxlib >= {text(LOWEST_JAX)}, but jaxlib is {jaxlib.__version__}: "
            f'pip install --upgrade "jax>={text(LOWEST_JAX)}"'
        )
    modules = {"cpu": native.cpu_module(), "cuda": native.cuda_module()}
    available = {platform: module for platform, module in modules.items() if module is not None}
    for module in available.values():
        _check_ffi(module, _ffi_of_jaxlib())
    for platform, module in available.items():
        backends[platform] = Backend(module)
        register(backends[platform], platform if platform == "cpu" else "CUDA")
    _warn_of_untested_jax()


def _ffi_of_jaxlib() -> tuple[int, int] | None:
    """The version of XLA's FFI in jaxlib, which its headers name: major, minor."""
    header = Path(jax.ffi.include_dir()) / "xla" / "ffi" / "api" / "c_api.h"
    source = header.read_text() if header.exists() else ""
    found = dict(re.findall(r"#define XLA_FFI_API_(MAJOR|MINOR) (\d+)", source))
    return (int(found["MAJOR"]), int(found["MINOR"])) if len(found) == 2 else None


def _check_ffi(module: Any, ffi: tuple[int, int] | None) -> None:
    """Raises an ImportError if jaxlib cannot call the module, with which its whole backend would fail."""
    built_for = tuple(module.ffi_api_version())
    if ffi is None or (built_for[0] == ffi[0] and built_for[1] <= ffi[1]):
        return
    older = "jax" if ffi < built_for else module.__name__.partition(".")[0]
    raise ImportError(
        f"{module.__name__} was compiled for XLA's FFI {text(built_for)}, but that of jaxlib "
        f"{jaxlib.__version__} is {text(ffi)}: pip install --upgrade {older}"
    )


def _warn_of_untested_jax() -> None:
    if numbers(jax.__version__)[:2] > NEWEST_TESTED_JAX:
        newest, after = text(NEWEST_TESTED_JAX), f"{NEWEST_TESTED_JAX[0]}.{NEWEST_TESTED_JAX[1] + 1}"
        warnings.warn(
            f"jax_convgrad has been tested with jax up to {newest}, not with jax {jax.__version__}. If "
            f'something fails: pip install --upgrade jax_convgrad, or pip install "jax<{after}"',
            stacklevel=2,
        )


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
