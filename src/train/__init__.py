"""Training: one step, the optimizer and its schedule, checkpoints, the loop."""
