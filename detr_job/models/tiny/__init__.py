"""A small deformable DETR that learns from random initialisation."""
