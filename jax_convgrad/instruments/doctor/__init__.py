"""The parts of ``python -m jax_convgrad doctor``.

What runs in the doctor's own process (all but the steps in ``probe.py`` and ``self_check.py``) needs the
standard library alone, and imports nothing that could fail: JAX and the kernels are looked at from processes
of their own.
"""
