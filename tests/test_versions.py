"""The package and the JAX that it meets."""

import jaxlib
import pytest

from jax_convgrad import ffi


def test_a_release_candidate_is_read(monkeypatch):
    monkeypatch.setattr(jaxlib, "__version__", "0.9.0rc1")
    with pytest.raises(ImportError, match=r"0\.9\.1.*0\.9\.0rc1"):
        ffi._register_modules()


def test_a_jaxlib_too_old_for_the_handlers_is_refused(monkeypatch):
    """On a CPU an older FFI would otherwise take JAX's whole backend down."""
    monkeypatch.setattr(jaxlib, "__version__", "0.8.3")
    with pytest.raises(ImportError, match=r"0\.9\.1.*0\.8\.3"):
        ffi._register_modules()
