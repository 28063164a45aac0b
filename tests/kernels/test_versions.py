"""The package with supported and unsupported versions of JAX."""

import tomllib
from pathlib import Path

import jaxlib
import pytest

from jax_convgrad import versions
from jax_convgrad.primitives import targets


def test_the_versions_are_those_that_pip_is_told():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    lowest = versions.text(versions.LOWEST_JAX)
    assert {f"jax>={lowest}", f"jaxlib>={lowest}"} <= set(project["project"]["dependencies"])
    assert f"jaxlib=={lowest}; python_version < '3.15'" in project["build-system"]["requires"]
    assert versions.LOWEST_JAX < versions.NEWEST_TESTED_JAX


def test_a_release_candidate_is_read(monkeypatch):
    monkeypatch.setattr(jaxlib, "__version__", "0.9.0rc1")
    with pytest.raises(ImportError, match=r"0\.9\.1.*0\.9\.0rc1"):
        targets._register_modules()


def test_a_jaxlib_too_old_for_the_handlers_is_refused(monkeypatch):
    """Without the check, an older FFI would make JAX's whole CPU backend fail."""
    monkeypatch.setattr(jaxlib, "__version__", "0.8.3")
    with pytest.raises(ImportError, match=r"0\.9\.1.*0\.8\.3"):
        targets._register_modules()
