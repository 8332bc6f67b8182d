"""Turn CVAT exports into a prepared set: read, check, split and write."""
