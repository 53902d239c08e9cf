"""What every kind of training run has in common: its folder, checkpoints, loop, processes and records."""
