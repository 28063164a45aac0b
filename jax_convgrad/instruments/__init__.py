"""Instruments: is a gradient right, does it flow, which terms make it, and is this machine set up.

They look at the layers from outside; no layer needs them.
"""
