"""The parts of steps.py: models written in Flax and in PyTorch, their training steps, and what is measured of them."""
