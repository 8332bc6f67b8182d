"""Bring published weights into a store: download, read only tensors, check the layout, write safetensors and a card."""
