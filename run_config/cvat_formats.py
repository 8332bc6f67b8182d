"""CVAT's names of the export formats that this project requests."""

COCO = "COCO 1.0"
