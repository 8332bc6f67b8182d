"""CVAT's names for its export formats, as far as this project asks for them."""

COCO = "COCO 1.0"
