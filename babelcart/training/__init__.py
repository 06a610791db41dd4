"""Training: loop, optimizer, checkpoints, curves."""
