"""Run a trained model on a split of a prepared set or on single images."""
