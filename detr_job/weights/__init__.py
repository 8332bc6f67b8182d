"""Weights in files: checkpoints, the `model/` folder, and third-party files."""
