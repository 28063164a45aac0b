"""The backends that tests run on, and the settings of JAX that all of them share.

With JAX_CONVGRAD_TEST_DEVICE=cuda the backends are the CUDA kernels on a real device, otherwise the CPU
kernels and the CUDA kernels in the emulator. A missing device or module is a failure.
"""

import importlib.util
import os
import sys
from functools import cache
from pathlib import Path

import jax
import pytest

ON_DEVICE = os.environ.get("JAX_CONVGRAD_TEST_DEVICE", "")
if ON_DEVICE not in ("", "cuda"):
    raise pytest.UsageError(f"JAX_CONVGRAD_TEST_DEVICE should be cuda or unset, but is {ON_DEVICE!r}")
PLATFORM = ON_DEVICE or "cpu"
"""The platform that the backends run on, with JAX's name for it."""

if ON_DEVICE:
    # Several processes share the device. XLA for GPUs only compiles at full optimisation, but it does not
    # have to search for the fastest of cuDNN's algorithms.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    os.environ.setdefault("XLA_FLAGS", "--xla_gpu_autotune_level=0")
else:
    # LLVM would take most of the suite's time, for the code around the kernels, which are compiled already.
    os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

# Tests compare float64 results within float64's rounding, and without this JAX would turn them into float32.
jax.config.update("jax_enable_x64", True)

# Meshes need 8 devices; everything else runs on the first. A number in XLA_FLAGS takes precedence.
if "--xla_force_host_platform_device_count" not in os.environ["XLA_FLAGS"]:
    jax.config.update("jax_num_cpu_devices", 8)

ROOT = Path(__file__).resolve().parents[2]
# The kernels that the suite runs on. "wgmma" supports only 16-bit numbers and whole chunks of channels:
# test_wgmma.py gives it the suite's problems with more channels.
KERNELS = ("few_channels", "gemm", "grouped", "tiled", "reference")


def cuda_backend(kernel):
    """The backend that runs this CUDA kernel: on the device if there is one, else in the emulator."""
    return f"{ON_DEVICE or 'emulated_cuda'}-{kernel}"


BACKENDS = tuple(map(cuda_backend, ("auto", *KERNELS) if ON_DEVICE else KERNELS[::-1]))
if not ON_DEVICE:
    BACKENDS = ("cpu", *BACKENDS)


def runs(cases, few):
    """(backend, case) for parametrize: the first backend takes all cases, each other one those of ``few``.

    For cases about the Python around the kernels, and for those that repeat in another dtype what a kernel
    has shown in one.
    """
    return [(backend, case) for backend in BACKENDS for case in (cases if backend == BACKENDS[0] else few)]


def _emulated_module():
    folder = Path(os.environ.get("JAX_CONVGRAD_EMULATOR_DIR", ROOT / "build" / "dev" / "cuda_emulator"))
    found = sorted(folder.glob("_cuda_emulated*.so"))
    if not found:
        pytest.fail(f"no _cuda_emulated module in {folder}: build it with `make emulator`", pytrace=False)
    spec = importlib.util.spec_from_file_location("_cuda_emulated", found[0])
    module = importlib.util.module_from_spec(spec)
    sys.modules["_cuda_emulated"] = module
    spec.loader.exec_module(module)
    return module


def _module_on_device():
    from jax_convgrad.primitives import targets

    if ON_DEVICE not in targets.backends:
        pytest.fail(f"jax_convgrad has no kernels for {ON_DEVICE}: it was built without them", pytrace=False)
    try:
        jax.devices(ON_DEVICE)
    except RuntimeError as error:
        pytest.fail(f"JAX sees no device for {ON_DEVICE}: {error}", pytrace=False)
    return targets.backends[ON_DEVICE].module


@cache
def _backend(name):
    from jax_convgrad.primitives import targets

    if name == "cpu":
        return targets.backends["cpu"]
    kernel = name.rpartition("-")[2]
    if ON_DEVICE:
        return targets.Backend(_module_on_device(), kernel=kernel)
    # All kernels are in one module with one prefix, whose targets are registered once.
    if kernel == "reference":
        emulated = targets.Backend(_emulated_module(), "jax_convgrad_emulated_", "reference")
        targets.register(emulated, "cpu")
        return emulated
    other = _backend(cuda_backend("reference"))
    return targets.Backend(other.module, other.prefix, kernel)


# Created before any test can have replaced it.
_installed = "cpu"
_backend("cpu")


def install(name):
    """Makes lowering use the backend of this name."""
    global _installed
    if name == _installed:
        return
    from jax_convgrad.primitives import targets

    backend = _backend(name)
    jax.clear_caches()  # compiled programs contain the targets of the backend they were lowered for
    # Tests compare within f32's rounding, which TF32 exceeds; test_gemm.py tests TF32. On a device, lax also
    # multiplies in TF32.
    full = ON_DEVICE or name in map(cuda_backend, ("gemm", "few_channels"))
    jax.config.update("jax_default_matmul_precision", "highest" if full else None)
    targets.backends["cpu" if name == "cpu" else PLATFORM] = backend
    _installed = name
