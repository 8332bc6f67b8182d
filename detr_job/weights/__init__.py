"""Weights as files: checkpoints, the `model/` folder, and files that somebody else wrote."""
