"""RF-DETR as published (arXiv 2511.09554)."""
