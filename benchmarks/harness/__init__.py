"""What run.py is made of: layers, devices, the process that measures, and what its numbers say."""
