"""The parts of steps.py: models in Flax and in PyTorch, their training steps, what is measured of them."""
