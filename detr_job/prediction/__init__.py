"""A trained model on a split of a prepared set and on single images."""
