"""The training loop, and the run's folder, progress and uploads."""
