"""What runs in the doctor's other processes: ``native``, ``jax``, ``driver`` and ``self_check``."""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Callable
from typing import Any

from jax_convgrad import after_jax
from jax_convgrad.instruments.doctor.processes import MARK

COMMON_LAYER = "8x56x56x64, 3x3, 64, pad 1"


def main(task: list[str]) -> None:
    """Runs the task; a step that raises ends it, and tells so."""
    after_jax.forget()  # each module in a step of its own, as one that kills the process is not JAX's fault
    try:
        _TASKS[task[0]](*task[1:])
    except BaseException as error:
        _tell_failure(error)
        raise


def _tell_failure(error: BaseException) -> None:
    missing = error.name if isinstance(error, ModuleNotFoundError) else None
    _tell(raised=type(error).__name__, message=str(error), missing=missing or "")


def _tell(**what: Any) -> None:
    sys.stdout.write(f"\n{MARK}{json.dumps(what)}\n")
    sys.stdout.flush()


def step(name: str, function: Callable[[], Any]) -> Any:
    """Calls the function between two lines for the doctor, the second with what it returns."""
    _tell(begin=name)
    result = function()
    _tell(done=name, told=result)
    return result


def _version_and_file(name: str) -> list[str]:
    module = importlib.import_module(name)
    return [str(getattr(module, "__version__", "")), str(getattr(module, "__file__", ""))]


def _native(name: str) -> None:
    """Loads a native module, which needs no JAX, and asks what it was built for."""
    _tell(begin="load")
    module = importlib.import_module(f"jax_convgrad.{name}")
    _tell(done="load", told=str(module.__file__))
    step("ffi_api_version", lambda: list(module.ffi_api_version()))
    step("targets", lambda: sorted(module.registrations()))
    if name == "_cuda":
        step("build", lambda: list(module.build()))
        return
    step("instruction_sets", lambda: list(module.instruction_sets()))
    axis = (56, 3, 56, 1, 1, 1, 1)  # of COMMON_LAYER
    layer = {"batch": 8, "in_channels": 64, "out_channels": 64, "groups": 1, "axes": [axis, axis]}
    step(
        "common",
        lambda: {
            op: module.plan(op, "auto", "float32", **layer) for op in ("fprop", "dgrad", "wgrad", "bgrad")
        },
    )


def _jax() -> None:
    """Imports what the package needs, from the bottom up, then the package, and asks JAX for its devices."""
    for name in ("numpy", "jaxlib", "jax"):
        # The default binds each turn's name; mypy infers no type for such a lambda.
        step(name, lambda name=name: _version_and_file(name))  # type: ignore[misc]
    try:
        step("devices", _devices)
    except Exception as error:
        _tell_failure(error)  # the package can be imported all the same
    step("jax_convgrad", _public_names)


def _public_names() -> list[str]:
    import jax_convgrad
    from jax_convgrad.primitives import ffi

    for name in jax_convgrad.__all__:
        getattr(jax_convgrad, name)
    return sorted(ffi.backends)


def _devices() -> dict[str, Any]:
    import jax

    found: dict[str, Any] = {"default": jax.default_backend(), "kinds": {}, "errors": {}}
    for platform in ("cpu", "cuda", "rocm", "tpu", "METAL"):
        try:
            found["kinds"][platform] = [device.device_kind for device in jax.devices(platform)]
        except RuntimeError as error:  # no such platform, or one that could not be initialised
            found["errors"][platform] = str(error)
    default = jax.devices()[0]
    if default.platform not in ("cpu", "gpu", "tpu"):
        found["kinds"].setdefault(default.platform, [device.device_kind for device in jax.devices()])
    return found


def _driver() -> None:
    """Asks the NVIDIA driver itself, through its library."""
    import ctypes

    def load() -> Any:
        return ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")

    _tell(begin="load")
    cuda = load()
    _tell(done="load", told="")
    number = ctypes.c_int()

    def call(name: str, *arguments: Any) -> None:
        code = getattr(cuda, name)(*arguments)
        if code:
            text = ctypes.c_char_p()
            cuda.cuGetErrorName(code, ctypes.byref(text))
            raise RuntimeError(f"{name}: {(text.value or b'error').decode()} ({code})")

    def version() -> int:
        call("cuDriverGetVersion", ctypes.byref(number))
        return number.value

    step("version", version)
    step("init", lambda: call("cuInit", 0))

    def devices() -> list[dict[str, Any]]:
        call("cuDeviceGetCount", ctypes.byref(number))
        return [device(index) for index in range(number.value)]

    def device(index: int) -> dict[str, Any]:
        handle, name, memory = ctypes.c_int(), ctypes.create_string_buffer(256), ctypes.c_size_t()
        call("cuDeviceGet", ctypes.byref(handle), index)
        call("cuDeviceGetName", name, len(name), handle)
        call("cuDeviceTotalMem_v2", ctypes.byref(memory), handle)
        capability = []
        for attribute in (75, 76):  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR
            call("cuDeviceGetAttribute", ctypes.byref(number), attribute, handle)
            capability.append(number.value)
        return {"name": name.value.decode(errors="replace"), "capability": capability, "memory": memory.value}

    step("devices", devices)


def _self_check(platform: str) -> None:
    from jax_convgrad.instruments.doctor import self_check

    self_check.run(platform, step)


_TASKS: dict[str, Callable[..., None]] = {
    "native": _native,
    "jax": _jax,
    "driver": _driver,
    "self_check": _self_check,
}
