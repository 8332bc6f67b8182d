"""The workflow templates offered in CVAT: the catalogue, the form, and filling in parameters."""
