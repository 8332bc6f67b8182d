"""The detection transformers."""
