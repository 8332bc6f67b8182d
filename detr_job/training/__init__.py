"""The training loop, and what a run does beside it: its folder, its progress, its uploads."""
