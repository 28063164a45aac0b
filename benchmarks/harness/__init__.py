"""The parts of run.py: layers, devices, the process that measures, and what its numbers say."""
