"""Names and shapes of the tensors of each preset in the catalogue, written by `python -m detr_job.weights.layouts`."""
