"""Batches of images: read from the shards, augmented, padded, in worker processes."""
