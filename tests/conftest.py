"""Backends to run a test on, chosen by the fixture `backend`; tests without it run on "cpu"."""

import importlib.util
import os
import sys
from functools import cache
from pathlib import Path

import conv_cases
import jax
import pytest

# Most of the suite's time is LLVM at work on the code around the kernels, which are compiled long since.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

# float64 results are compared to float64's own rounding, and JAX makes float32 of them without this.
jax.config.update("jax_enable_x64", True)

# For meshes of 8 devices; all else runs on the first. Where XLA_FLAGS has a number, that is the number.
if "--xla_force_host_platform_device_count" not in os.environ["XLA_FLAGS"]:
    jax.config.update("jax_num_cpu_devices", 8)

ROOT = Path(__file__).resolve().parent.parent
BACKENDS = (
    "cpu",
    "emulated_cuda-direct",
    "emulated_cuda-tiled",
    "emulated_cuda-grouped",
    "emulated_cuda-gemm",
)


def _is_served(item):
    """Whether the backend serves the test's problem: "grouped" takes small groups alone."""
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    if parameters.get("backend") != "emulated_cuda-grouped":
        return True
    case = parameters.get("case") or conv_cases.BY_NAME.get(parameters.get("name"))
    return item.get_closest_marker("small_groups") is not None or (case and case.has_small_groups)


def pytest_configure(config):
    config.addinivalue_line("markers", 'small_groups: the test\'s problems are ones that "grouped" serves')


def pytest_collection_modifyitems(config, items):
    not_served = [item for item in items if not _is_served(item)]
    if not_served:
        config.hook.pytest_deselected(items=not_served)
        items[:] = [item for item in items if _is_served(item)]


def _emulated_module():
    folder = Path(os.environ.get("JAX_CONVGRAD_EMULATOR_DIR", ROOT / "build" / "emulator"))
    found = sorted(folder.glob("_cuda_emulated*.so"))
    if not found:
        pytest.fail(f"no _cuda_emulated module in {folder}: build it with `make emulator`", pytrace=False)
    spec = importlib.util.spec_from_file_location("_cuda_emulated", found[0])
    module = importlib.util.module_from_spec(spec)
    sys.modules["_cuda_emulated"] = module
    spec.loader.exec_module(module)
    return module


@cache
def _backend(name):
    from jax_convgrad import ffi

    if name == "cpu":
        return ffi.backends["cpu"]
    # All kernels are one module: one prefix, whose targets are registered once.
    if name == "emulated_cuda-direct":
        emulated = ffi.Backend(_emulated_module(), "jax_convgrad_emulated_", "direct")
        ffi.register(emulated, "cpu")
        return emulated
    other = _backend("emulated_cuda-direct")
    return ffi.Backend(other.module, other.prefix, name.rpartition("-")[2])


# Asked for before any test can have put another in its place.
_installed = "cpu"
_backend("cpu")


def install(name):
    """Makes CPU lowering use the backend of this name."""
    global _installed
    if name == _installed:
        return
    from jax_convgrad import ffi

    backend = _backend(name)
    jax.clear_caches()  # compiled programs hold the targets of the backend they were lowered for
    # Tests compare with f32's own rounding, which TF32 does not keep; test_gemm.py is where it is asked for.
    jax.config.update("jax_default_matmul_precision", "highest" if name == "emulated_cuda-gemm" else None)
    ffi.backends["cpu"] = backend
    _installed = name


@pytest.fixture(scope="session", params=BACKENDS)
def backend(request):
    """The name of the backend that CPU lowering uses during the test."""
    install(request.param)
    return request.param


@pytest.fixture(autouse=True)
def _right_backend(request):
    install(request.getfixturevalue("backend") if "backend" in request.fixturenames else "cpu")
