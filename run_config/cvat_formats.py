"""CVAT's names of the export formats that this project reads, and the short names by which one is chosen."""

COCO = "COCO 1.0"
CVAT_IMAGES = "CVAT for images 1.1"
CVAT_VIDEO = "CVAT for video 1.1"
ULTRALYTICS = "Ultralytics YOLO"
PASCAL_VOC = "PASCAL VOC 1.1"
DATUMARO = "Datumaro 1.0"

SHORT_NAMES = {
    "coco": COCO,
    "cvat-images": CVAT_IMAGES,
    "cvat-video": CVAT_VIDEO,
    "ultralytics": ULTRALYTICS,
    "pascal-voc": PASCAL_VOC,
    "datumaro": DATUMARO,
}
"""Short name → CVAT's name."""

AUTO = "auto"
"""Instead of a short name: the format is recognised."""
