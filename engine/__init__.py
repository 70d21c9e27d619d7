"""The machinery under a training run: processes, precision, schedule, checkpoints, progress."""
