"""The backends of a test, chosen by the fixture `backend`; tests without it run on "cpu".

With JAX_CONVGRAD_TEST_DEVICE=cuda the backends are the CUDA kernels on a real device, and only tests that use
`backend` or are marked `cuda_device` run. A missing device or module is then a failure.
JAX_CONVGRAD_TEST_SECONDS bounds a run: tests that would begin later are skipped, and pytest counts them.
"""

import os
import re
import sys
import time

import conv_cases
import pytest
from backends import BACKENDS, ON_DEVICE, install

# Kernels that do not support every problem: the property of a case that says whether they support it, and the
# marker of tests whose problems they support.
PARTIAL = {
    "grouped": ("has_small_groups", "small_groups"),
    "few_channels": ("has_few_channels", "few_channels"),
}


def _runs_here(item):
    """Whether the test is for the available backends, and its backend supports the test's problem."""
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    backend = parameters.get("backend")
    if ON_DEVICE:
        if item.get_closest_marker("emulator"):
            return False  # it counts things that a device does not report
        if "backend" not in item.fixturenames and not item.get_closest_marker("cuda_device"):
            return False  # it tests the CPU, or no kernel
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


# A kernel that faults destroys its process's CUDA context, and every later test in that process would fail.
_FAULT = re.compile(r"CUDA_ERROR_(ILLEGAL|MISALIGNED|LAUNCH_(FAILED|TIMEOUT)|ASSERT|INVALID_PC|HARDWARE)")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    # This is one of several processes; pytest-xdist restarts it and reports the test.
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
