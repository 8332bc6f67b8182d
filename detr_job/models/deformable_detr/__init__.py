"""Deformable DETR as published (arXiv 2010.04159)."""
