"""DETR as published (arXiv 2005.12872)."""
