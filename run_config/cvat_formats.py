"""CVAT's names of the export formats that this project reads, and the short names by which one is chosen."""

COCO = "COCO 1.0"
CVAT_IMAGES = "CVAT for images 1.1"
CVAT_VIDEO = "CVAT for video 1.1"
ULTRALYTICS = "Ultralytics YOLO"
PASCAL_VOC = "PASCAL VOC 1.1"
DATUMARO = "Datumaro 1.0"
YOLO = "YOLO 1.1"
MOT = "MOT 1.1"
KITTI = "KITTI 1.0"
OPEN_IMAGES = "Open Images V6 1.0"
LABELME = "LabelMe 3.0"
SUPERVISELY = "Supervisely"
TFRECORD = "TFRecord 1.0"

SHORT_NAMES = {
    "coco": COCO,
    "cvat-images": CVAT_IMAGES,
    "cvat-video": CVAT_VIDEO,
    "ultralytics": ULTRALYTICS,
    "pascal-voc": PASCAL_VOC,
    "datumaro": DATUMARO,
    "yolo": YOLO,
    "labelme": LABELME,
    "mot": MOT,
    "open-images": OPEN_IMAGES,
    "kitti": KITTI,
    "supervisely": SUPERVISELY,
    "tfrecord": TFRECORD,
}
"""Short name → CVAT's name."""

AUTO = "auto"
"""Instead of a short name: the format is recognised."""
