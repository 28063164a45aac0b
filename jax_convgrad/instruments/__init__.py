"""Instruments look at the layers from outside: is a gradient right, does it flow, which terms make it.

They also show the plan of a layer and whether this machine is set up. No layer needs them.
"""
