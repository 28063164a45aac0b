"""What the CUDA wheels' module may leave undefined."""

import subprocess
import sys
import zipfile

import check_cuda_wheel
import pytest

SOURCE = """
#include <string.h>
extern void *PyBytes_Type, *_Py_Dealloc;
__attribute__((weak)) void weak(void);
void of_a_newer_glibc(void);
int f(const char *text) {
    if (weak) weak();
#ifdef NEWER
    of_a_newer_glibc();
#endif
    return (PyBytes_Type == _Py_Dealloc) + (int)strlen(text);
}
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's symbols")
@pytest.mark.parametrize("options, unknown", [([], []), (["-DNEWER"], ["of_a_newer_glibc"])])
def test_a_symbol_of_no_version_is_a_fault(options, unknown, tmp_path):
    module, wheel = tmp_path / "_cuda.abi3.so", tmp_path / "it.whl"
    command = ["g++", "-x", "c", "-", "-shared", "-fPIC", *options, "-o", module]
    subprocess.run(command, input=SOURCE, text=True, check=True)
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(module, "jax_convgrad_cuda13/_cuda.abi3.so")
    assert check_cuda_wheel.unknown_symbols(module) == unknown
    said = [f"it.whl needs {name}, which an older glibc may not have" for name in unknown]
    assert check_cuda_wheel.check(wheel) == said


def test_a_wheel_without_its_module(tmp_path):
    wheel = tmp_path / "it.whl"
    zipfile.ZipFile(wheel, "w").close()
    assert check_cuda_wheel.check(wheel) == ["it.whl has the modules [], and should have one"]
