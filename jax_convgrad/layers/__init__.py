"""The functions that a model calls: convolutions, transposed ones, pooling, and the gradients of each.

Each function turns a caller's arguments into a ``ConvSpec`` or a ``PoolSpec``, and raises every error in
them. What it then calls is in ``gradients.py`` and in ``primitives/``.
"""
