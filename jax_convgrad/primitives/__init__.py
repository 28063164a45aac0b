"""The operations that JAX sees, and all that happens to them on the way to a kernel.

Here are their derivatives, their rules for ``vmap``, for several devices and for JAX's tools, and their
lowering: to native code through XLA's FFI, or to ``jax.lax`` on platforms without kernels.
"""
