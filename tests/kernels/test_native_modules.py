"""Where the package finds its native modules, and what it says to install if it cannot use one."""

import importlib
import re
import sys
import tomllib
import warnings
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from types import SimpleNamespace

import jax
import pytest
from packaging.requirements import Requirement

import jax_convgrad
from jax_convgrad import native, source_folder, versions
from jax_convgrad.primitives import targets

ROOT = Path(__file__).parents[2]
VERSION = jax_convgrad.__version__
PIP = "pip install --force-reinstall --no-deps --no-cache-dir"
REINSTALL = re.escape(f"{PIP} jax_convgrad_cuda13=={VERSION}")
COMPILE = f"{PIP} --no-binary jax_convgrad jax_convgrad=={VERSION}"
COMPILE_CUDA = f"with nvcc on the PATH, {COMPILE} --config-settings cmake.define.JAX_CONVGRAD_CUDA=ON"


def forget():
    for name in [name for name in sys.modules if name.partition(".")[0] == native.CUDA_PACKAGE]:
        del sys.modules[name]
    importlib.invalidate_caches()


@pytest.fixture
def cuda_package(tmp_path, monkeypatch):
    """An installed CUDA package without a module, beside a jax_convgrad without CUDA kernels."""
    monkeypatch.setattr(native, "module_file", lambda name: None)
    monkeypatch.setattr(native, "has_cuda_wheels", lambda: True)
    folder = tmp_path / native.CUDA_PACKAGE
    folder.mkdir()
    (folder / "__init__.py").write_text(f"__version__ = {VERSION!r}\n")
    monkeypatch.syspath_prepend(tmp_path)
    forget()
    yield folder
    forget()


def test_the_cuda_package_is_found(cuda_package):
    (cuda_package / "_cuda.py").touch()
    assert native.cuda_module().__file__ == str(cuda_package / "_cuda.py")


def test_kernels_that_were_built_with_the_package_come_first(cuda_package, monkeypatch):
    """They are always of its version, and whoever built them did so for this machine."""
    (cuda_package / "__init__.py").write_text("__version__ = '9.9'\n")
    monkeypatch.setattr(native, "module_file", lambda name: Path("_cuda.so"))
    own = SimpleNamespace()
    monkeypatch.setitem(sys.modules, "jax_convgrad._cuda", own)
    assert native.cuda_module() is own


def test_no_cuda_package(monkeypatch):
    monkeypatch.setattr(native, "module_file", lambda name: None)
    monkeypatch.setattr(native, "CUDA_PACKAGE", "jax_convgrad_cuda99")
    assert native.cuda_module() is None


@pytest.mark.parametrize("version", ["__version__ = '9.9'\n", ""])
def test_another_version_of_the_cuda_package(cuda_package, version):
    (cuda_package / "__init__.py").write_text(version)
    (cuda_package / "_cuda.py").write_text("raise SystemError('imported')\n")
    theirs = "9.9" if version else "another one"
    sentence = (
        f"jax_convgrad {VERSION} needs jax_convgrad_cuda13 {VERSION}, but {theirs} is installed: "
        f'pip install "jax_convgrad_cuda13=={VERSION}"'
    )
    with pytest.raises(ImportError, match=re.escape(sentence)):
        targets._register_modules()


def test_kernels_for_another_python(cuda_package):
    (cuda_package / "_cuda.cpython-39-x86_64-linux-gnu.so").touch()
    found = r"has no _cuda for Python 3\.\d+[^,]*, only _cuda\.cpython-39-x86_64-linux-gnu\.so: "
    with pytest.raises(ImportError, match=f"{found}{REINSTALL} with this Python installs it"):
        native.cuda_module()


def test_a_damaged_module(cuda_package):
    (cuda_package / f"_cuda{EXTENSION_SUFFIXES[0]}").write_bytes(b"\x7fELF")
    with pytest.raises(ImportError, match=rf"(?s)_cuda cannot be loaded \(.+\): {REINSTALL}"):
        native.cuda_module()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's own message")
def test_a_system_that_is_too_old(cuda_package):
    """The CPU's module, changed so that it needs a glibc of the future: the message is the loader's own."""
    module = source_folder.module_file("_cpu").read_bytes()
    newest = max(re.findall(rb"\0GLIBC_2\.(\d\d)(?=\0)", module), key=int)
    needs = module.replace(b"\0GLIBC_2." + newest + b"\0", b"\0GLIBC_9." + newest + b"\0")
    (cuda_package / f"_cuda{EXTENSION_SUFFIXES[0]}").write_bytes(needs)
    sentence = (
        rf"it needs glibc 9\.{newest.decode()} or later, and this system has 2\.\d+; "
        f"{re.escape(COMPILE_CUDA)} compiles the kernels for this system"
    )
    with pytest.raises(ImportError, match=sentence):
        native.cuda_module()


def test_a_module_s_own_missing_import_is_not_hidden(cuda_package):
    (cuda_package / "_cuda.py").write_text("import no_such_module\n")
    with pytest.raises(ModuleNotFoundError, match="No module named 'no_such_module'"):
        native.cuda_module()


def test_an_installed_package_without_its_cpu_module(tmp_path, monkeypatch):
    """As free-threaded Python finds a wheel for other Pythons: it does not load the stable ABI."""
    (tmp_path / "_cpu.abi3.so").touch()
    monkeypatch.setattr(native, "is_source_folder", lambda: False)
    monkeypatch.setattr(native, "OWN_FOLDER", tmp_path)
    monkeypatch.setattr(native.sysconfig, "get_config_var", lambda name: name == "Py_GIL_DISABLED")
    monkeypatch.setitem(sys.modules, "jax_convgrad._cpu", None)  # not to be found
    with pytest.raises(ImportError) as raised:
        native.cpu_module()
    python = f"Python {sys.version_info[0]}.{sys.version_info[1]} (free-threaded)"
    assert str(raised.value) == (
        f"{tmp_path} has no _cpu for {python}, only _cpu.abi3.so: "
        f"{PIP} jax_convgrad=={VERSION} with this Python installs it"
    )


def module_built_for(*ffi):
    return SimpleNamespace(__name__="jax_convgrad._cpu", ffi_api_version=lambda: ffi)


@pytest.mark.parametrize("ffi", [(0, 3), (0, 9), None])
def test_an_ffi_that_calls_the_module(ffi):
    targets._check_ffi(module_built_for(0, 3), ffi)


@pytest.mark.parametrize(
    "ffi, upgrade", [((0, 2), "jax"), ((1, 0), "jax_convgrad"), ((1, 4), "jax_convgrad")]
)
def test_an_ffi_that_does_not_call_the_module(ffi, upgrade):
    said = (
        rf"compiled for XLA's FFI 0\.3, but that of jaxlib \S+ is {ffi[0]}\.{ffi[1]}: pip install --upgrade"
    )
    with pytest.raises(ImportError, match=rf"{said} {upgrade}$"):
        targets._check_ffi(module_built_for(0, 3), ffi)


def test_jaxlib_s_ffi_is_read_and_checked_for_every_module(monkeypatch):
    major, minor = targets._ffi_of_jaxlib()
    assert (major, minor) >= targets.backends["cpu"].module.ffi_api_version()
    monkeypatch.setattr(native, "cuda_module", lambda: module_built_for(major, minor + 1))
    before = dict(targets.backends)
    with pytest.raises(ImportError, match="was compiled for XLA's FFI"):
        targets._register_modules()
    assert targets.backends == before


def test_a_jax_newer_than_any_tested_is_warned_of(monkeypatch):
    major, minor = versions.NEWEST_TESTED_JAX
    monkeypatch.setattr(jax, "__version__", f"{major}.{minor + 1}.0rc1")
    sentence = rf"tested with jax up to {major}\.{minor}, not with jax {major}\.{minor + 1}\.0rc1"
    with pytest.warns(UserWarning, match=rf'{sentence}\. .*pip install "jax<{major}\.{minor + 1}"') as caught:
        targets._register_modules()
    assert len(caught) == 1
    monkeypatch.setattr(jax, "__version__", f"{major}.{minor}.99")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        targets._register_modules()
    assert not caught


@pytest.mark.parametrize(
    "installed, requirement",
    [
        ((), "jax_convgrad[cuda13]"),
        ((13,), "jax_convgrad[cuda13]"),
        ((12, 13), "jax_convgrad[cuda13]"),
        ((12,), f"jax_convgrad_cuda13=={VERSION}"),
    ],
)
def test_the_kernels_that_go_with_jax_s_plugin(installed, requirement, monkeypatch):
    names = {f"jax_cuda{major}_plugin" for major in installed}
    monkeypatch.setattr(native.importlib.util, "find_spec", lambda name: name in names or None)
    monkeypatch.setattr(native, "has_cuda_wheels", lambda: True)
    assert native.cuda_remedy() == f'with driver 580 or later, pip install "{requirement}"'
    Requirement(requirement)


@pytest.mark.parametrize(
    "system, machine, free_threaded, has_wheels",
    [
        ("linux", "x86_64", False, True),
        ("linux", "x86_64", True, False),
        ("linux", "aarch64", False, False),
        ("darwin", "x86_64", False, False),
    ],
)
def test_cuda_kernels_are_compiled_where_they_have_no_wheels(
    system, machine, free_threaded, has_wheels, monkeypatch
):
    monkeypatch.setattr(native.sys, "platform", system)
    monkeypatch.setattr(native.platform, "machine", lambda: machine)
    monkeypatch.setattr(native.sysconfig, "get_config_var", lambda name: free_threaded)
    assert (native.cuda_remedy() == COMPILE_CUDA) is not has_wheels
    assert (COMPILE_CUDA in native.remedy(native.CUDA_PACKAGE, "_cuda")) is not has_wheels


def test_what_mends_a_module_compiles_it_if_no_wheel_has_it():
    """Only a build from source puts the CUDA kernels into jax_convgrad itself."""
    too_old = "ImportError: /lib/libc.so.6: version `GLIBC_2.99' not found (required by _cpu.abi3.so)"
    assert native.remedy("jax_convgrad", "_cpu", too_old).endswith(
        f"; {COMPILE} compiles the kernels for this system"
    )
    assert native.remedy("jax_convgrad", "_cuda", "cut short").startswith(COMPILE_CUDA)


def test_the_cuda_package_is_built_as_this_package_and_for_its_version(tmp_path, monkeypatch):
    ours, theirs = (
        tomllib.loads((ROOT / folder / "pyproject.toml").read_text()) for folder in ("", "cuda_src/package")
    )
    for key in ("license", "requires-python"):
        assert theirs["project"][key] == ours["project"][key]
    assert theirs["build-system"] == ours["build-system"]
    assert theirs["tool"]["scikit-build"]["wheel"] == {"py-api": "cp312", "packages": [native.CUDA_PACKAGE]}
    lowest = versions.text(versions.LOWEST_JAX)
    assert ours["project"]["optional-dependencies"]["cuda13"] == [
        native.CUDA_PACKAGE,
        f"jax[cuda13]>={lowest}",
    ]
    build = pytest.importorskip("scikit_build_core.build")
    monkeypatch.chdir(ROOT / "cuda_src" / "package")
    metadata = tmp_path / build.prepare_metadata_for_build_wheel(str(tmp_path)) / "METADATA"
    lines = metadata.read_text().splitlines()
    assert {f"Name: {native.CUDA_PACKAGE}", f"Version: {VERSION}"} <= set(lines)
    assert [line for line in lines if line.startswith("Requires-Dist")] == [
        f"Requires-Dist: jax_convgrad=={VERSION}"
    ]
