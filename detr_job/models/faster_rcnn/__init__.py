"""Faster R-CNN of torchvision (arXiv 1506.01497), as a baseline that is not a transformer."""
