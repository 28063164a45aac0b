"""The headers that the wheels are compiled with, and the table of docs/wheels.md."""

import subprocess

import pytest
import try_wheels
import wheels

PATCHLEVEL = "#define PY_MAJOR_VERSION\t3\n#define PY_MINOR_VERSION\t{}\n"
TRIPLET = "x86_64-linux-gnu"


@pytest.fixture
def debian(tmp_path, monkeypatch):
    """Folders of headers as Debian has them, where pyconfig.h includes the processor's own."""
    for minor in (12, 14):
        folder = tmp_path / "include" / f"python3.{minor}"
        own = tmp_path / "include" / TRIPLET / folder.name
        own.mkdir(parents=True)
        folder.mkdir()
        (folder / "Python.h").write_text('#include "patchlevel.h"\n#include "pyconfig.h"\n')
        (folder / "patchlevel.h").write_text(PATCHLEVEL.format(minor))
        (folder / "pyconfig.h").write_text(f"#include <{TRIPLET}/{folder.name}/pyconfig.h>\n")
        (own / "pyconfig.h").write_text("/* #undef Py_GIL_DISABLED */\n#define SIZEOF_LONG 8\n")
    monkeypatch.setattr(wheels, "BUILD", tmp_path / "build")
    monkeypatch.setattr(wheels.os, "uname", lambda: type("", (), {"machine": "x86_64"}))
    return tmp_path / "include"


def test_headers_are_found_by_their_own_version(debian):
    found = wheels.find_headers([debian])
    assert found[12] == debian / "python3.12" and found[14] == debian / "python3.14"
    assert wheels.find_headers([debian / "python3.14"])[14] == debian / "python3.14"


@pytest.mark.parametrize("python", wheels.PYTHONS, ids=lambda python: python.tag)
def test_copied_headers_need_no_other_folder(debian, python):
    copy = wheels.headers_for(python, debian / "python3.14")
    answer = subprocess.run(
        ["g++", "-E", "-dM", "-nostdinc", "-I", copy, "-include", "Python.h", "-x", "c++", "/dev/null"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "#define SIZEOF_LONG 8" in answer.stdout
    assert ("#define Py_GIL_DISABLED 1" in answer.stdout) == python.tag.endswith("t")


def test_a_python_without_headers_is_left_out_aloud(monkeypatch, capsys):
    monkeypatch.setattr(wheels, "build_plain_wheel", lambda: None)
    assert list(wheels.build_wheels([], {})) == []
    left_out = capsys.readouterr().out.splitlines()
    assert [line.split()[2] for line in left_out] == [f"{python.tag}," for python in wheels.PYTHONS]


def test_wheels_of_other_targets_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(wheels, "DIST", tmp_path)
    x86_64, *others = wheels.TARGETS
    kept = [f"jax_convgrad-0.1.0-cp312-abi3-{target.platform_tag}.whl" for target in others]
    kept += ["jax_convgrad_cuda13-0.1.0-cp312-abi3-manylinux_2_27_x86_64.whl"]
    for name in [
        *kept,
        "jax_convgrad-0.0.9.tar.gz",
        f"jax_convgrad-0.0.9-cp311-cp311-{x86_64.platform_tag}.whl",
    ]:
        (tmp_path / name).touch()
    wheels.remove_replaced([x86_64])
    assert {path.name for path in tmp_path.iterdir()} == set(kept)


def test_the_page_names_the_wheels_that_the_recipe_builds():
    page = try_wheels.PAGE.read_text()
    table = page.split(try_wheels.BEGIN)[1].split(try_wheels.END)[0]
    tags = {f"{python.tag}-{target.platform_tag}" for python in wheels.PYTHONS for target in wheels.TARGETS}
    assert {line.split("`")[1] for line in table.splitlines() if "`cp" in line} == tags
