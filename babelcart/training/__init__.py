"""Training: loop, optimiser, checkpoints, curves."""
