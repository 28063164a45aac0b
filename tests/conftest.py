"""Backends to run a test on, chosen by the fixture `backend`; tests without it run on "cpu".

With JAX_CONVGRAD_TEST_DEVICE=cuda the backends are the CUDA kernels on a real device instead, and only tests
that take `backend`, or are marked `cuda_device`, run. A device or module that is missing then is a failure.
JAX_CONVGRAD_TEST_SECONDS bounds a run: tests that would begin later are skipped, and pytest counts them.
"""

import importlib.util
import os
import re
import sys
import time
from functools import cache
from pathlib import Path

import conv_cases
import jax
import pytest

ON_DEVICE = os.environ.get("JAX_CONVGRAD_TEST_DEVICE", "")
if ON_DEVICE not in ("", "cuda"):
    raise pytest.UsageError(f"JAX_CONVGRAD_TEST_DEVICE should be cuda or unset, but is {ON_DEVICE!r}")
PLATFORM = ON_DEVICE or "cpu"
"""The platform, in JAX's name for lowering, that the backends are asked for on."""

if ON_DEVICE:
    # Some processes share the device. XLA for GPUs compiles at full optimisation alone; what it need not do
    # is to look for the fastest of cuDNN's algorithms.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    os.environ.setdefault("XLA_FLAGS", "--xla_gpu_autotune_level=0")
else:
    # Most of the suite's time is LLVM at work on the code around the kernels, which are compiled long since.
    os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

# float64 results are compared to float64's own rounding, and JAX makes float32 of them without this.
jax.config.update("jax_enable_x64", True)

# For meshes of 8 devices; all else runs on the first. Where XLA_FLAGS has a number, that is the number.
if "--xla_force_host_platform_device_count" not in os.environ["XLA_FLAGS"]:
    jax.config.update("jax_num_cpu_devices", 8)

ROOT = Path(__file__).resolve().parent.parent
# Those that the suite runs on. "wgmma" takes 16-bit numbers and whole chunks of channels alone: test_wgmma.py
# gives it the suite's problems, widened.
KERNELS = ("few_channels", "gemm", "grouped", "tiled", "reference")


def cuda_backend(kernel):
    """The backend that runs this CUDA kernel: on the device where there is one, else in the emulator."""
    return f"{ON_DEVICE or 'emulated_cuda'}-{kernel}"


BACKENDS = tuple(map(cuda_backend, ("auto", *KERNELS) if ON_DEVICE else KERNELS[::-1]))
if not ON_DEVICE:
    BACKENDS = ("cpu", *BACKENDS)


# Kernels that do not serve every problem: the property of a case that says whether they do, and the marker of
# tests whose problems they do serve.
PARTIAL = {
    "grouped": ("has_small_groups", "small_groups"),
    "few_channels": ("has_few_channels", "few_channels"),
}


def _runs_here(item):
    """Whether the test is about the backends that there are, and its backend serves the test's problem."""
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    backend = parameters.get("backend")
    if ON_DEVICE:
        if item.get_closest_marker("emulator"):
            return False  # what it counts, no device tells
        if "backend" not in item.fixturenames and not item.get_closest_marker("cuda_device"):
            return False  # it is about the CPU, or about no kernel
    elif item.get_closest_marker("cuda_device"):
        return False
    kernel = backend.rpartition("-")[2] if backend else None
    if item.get_closest_marker("pooling") and kernel == "gemm":
        return False
    if kernel not in PARTIAL:
        return True
    serves, marker = PARTIAL[kernel]
    case = parameters.get("case")
    if case is None and hasattr(item.module, "conv_cases"):
        case = conv_cases.BY_NAME.get(parameters.get("name"))
    return item.get_closest_marker(marker) is not None or (case is not None and getattr(case, serves))


def pytest_configure(config):
    for marker in (
        'small_groups: the test\'s problems are ones that "grouped" serves',
        'few_channels: the test\'s problems are ones that "few_channels" serves',
        "emulator: reads the emulator's counters",
        'pooling: no convolution; "tiled" and "gemm" both are the vector kernels there, and one is enough',
        "cuda_device: needs a real device: JAX_CONVGRAD_TEST_DEVICE=cuda",
    ):
        config.addinivalue_line("markers", marker)


def pytest_collection_modifyitems(config, items):
    others = [item for item in items if not _runs_here(item)]
    if others:
        config.hook.pytest_deselected(items=others)
        items[:] = [item for item in items if _runs_here(item)]


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


def _module_on_device():
    from jax_convgrad.primitives import ffi

    if ON_DEVICE not in ffi.backends:
        pytest.fail(f"jax_convgrad has no kernels for {ON_DEVICE}: it was built without them", pytrace=False)
    try:
        jax.devices(ON_DEVICE)
    except RuntimeError as error:
        pytest.fail(f"JAX sees no device for {ON_DEVICE}: {error}", pytrace=False)
    return ffi.backends[ON_DEVICE].module


@cache
def _backend(name):
    from jax_convgrad.primitives import ffi

    if name == "cpu":
        return ffi.backends["cpu"]
    kernel = name.rpartition("-")[2]
    if ON_DEVICE:
        return ffi.Backend(_module_on_device(), kernel=kernel)
    # All kernels are one module: one prefix, whose targets are registered once.
    if kernel == "reference":
        emulated = ffi.Backend(_emulated_module(), "jax_convgrad_emulated_", "reference")
        ffi.register(emulated, "cpu")
        return emulated
    other = _backend(cuda_backend("reference"))
    return ffi.Backend(other.module, other.prefix, kernel)


# Asked for before any test can have put another in its place.
_installed = "cpu"
_backend("cpu")


def install(name):
    """Makes lowering use the backend of this name."""
    global _installed
    if name == _installed:
        return
    from jax_convgrad.primitives import ffi

    backend = _backend(name)
    jax.clear_caches()  # compiled programs hold the targets of the backend they were lowered for
    # Tests compare with f32's own rounding, which TF32 does not keep; test_gemm.py is where it is asked for.
    # On a device lax multiplies in TF32 as well.
    full = ON_DEVICE or name in map(cuda_backend, ("gemm", "few_channels"))
    jax.config.update("jax_default_matmul_precision", "highest" if full else None)
    ffi.backends["cpu" if name == "cpu" else PLATFORM] = backend
    _installed = name


@pytest.fixture(scope="session", params=BACKENDS)
def backend(request):
    """The name of the backend that lowering uses during the test."""
    install(request.param)
    return request.param


@pytest.fixture(autouse=True)
def _right_backend(request):
    install(request.getfixturevalue("backend") if "backend" in request.fixturenames else "cpu")


_LAST_START = time.monotonic() + float(os.environ.get("JAX_CONVGRAD_TEST_SECONDS", "inf"))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup():
    if time.monotonic() > _LAST_START:
        pytest.skip(f"left out: {os.environ['JAX_CONVGRAD_TEST_SECONDS']} seconds are over")


# A kernel that faults takes its process' CUDA context with it, and every later test there would fail.
_FAULT = re.compile(r"CUDA_ERROR_(ILLEGAL|MISALIGNED|LAUNCH_(FAILED|TIMEOUT)|ASSERT|INVALID_PC|HARDWARE)")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    # One of several processes, which pytest-xdist starts anew, and tells which test it was.
    if (
        ON_DEVICE
        and hasattr(item.config, "workerinput")
        and report.failed
        and _FAULT.search(report.longreprtext)
    ):
        with item.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
            print(f"\n{item.nodeid}: the device faulted\n{report.longreprtext}", file=sys.stderr, flush=True)
        os._exit(1)
    return report
