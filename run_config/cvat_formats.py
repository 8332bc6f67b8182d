"""CVAT's names of the export formats that this project reads."""

COCO = "COCO 1.0"
CVAT_IMAGES = "CVAT for images 1.1"
CVAT_VIDEO = "CVAT for video 1.1"
ULTRALYTICS = "Ultralytics YOLO"
PASCAL_VOC = "PASCAL VOC 1.1"
DATUMARO = "Datumaro 1.0"
