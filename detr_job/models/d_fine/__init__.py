"""D-FINE (arXiv 2410.13842): a detector that refines the distributions of a box's edges."""
