"""Programs that call ``jax.lax`` themselves, on this package's kernels.

One half recognises which convolution or pooling an operation of ``jax.lax`` is. The other half runs it on the
kernels, in one function (``replace_convolutions``) or in the whole process (``install``).
"""
