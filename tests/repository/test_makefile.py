"""A version of jax that `make` is asked for is installed, also where another one is installed already."""

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    "folder, target, variable", [(".venv", "tools", "JAX"), (".venv-newest", "installed", "NEWEST_JAX")]
)
def test_another_version_of_jax_is_installed(folder, target, variable, tmp_path):
    for name in ("Makefile", "pyproject.toml", "CMakeLists.txt"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / folder / "bin").mkdir(parents=True)
    later = int(time.time()) + 1
    for seconds, name in enumerate(("bin/python", "jax-0.9.1", target), later):
        (tmp_path / folder / name).touch()
        os.utime(tmp_path / folder / name, (seconds, seconds))
    environment = {name: value for name, value in os.environ.items() if name != "MAKEFLAGS"}

    def is_up_to_date(version):
        command = ["make", "--question", f"{folder}/{target}", f"{variable}={version}"]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, env=environment).returncode == 0

    assert [is_up_to_date(version) for version in ("", "0.9.1", "0.10.2")] == [True, True, False]
