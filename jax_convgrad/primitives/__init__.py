"""The operations that JAX sees, and everything that happens to them on the way to a kernel.

``define`` (define.py) makes each of them a primitive. The other modules hold what it puts together:
derivatives, rules for ``vmap``, for several devices and for JAX's tools, and the lowering to native code
through XLA's FFI, or to ``jax.lax`` on platforms without kernels.
"""
