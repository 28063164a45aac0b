"""The parts of ``python -m jax_convgrad doctor``; only ``probe.py`` and ``self_check.py`` import JAX."""
