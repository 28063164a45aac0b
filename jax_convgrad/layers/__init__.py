"""What a model calls: convolution, transposed convolution, pooling, and their gradients as functions.

Each function turns a caller's arguments into a ``ConvSpec`` or a ``PoolSpec``, and raises every error in
them. What it then calls is in ``gradients.py`` and in ``primitives/``.
"""
