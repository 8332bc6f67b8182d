"""Map Onepanel's names of dump formats to CVAT's names of export formats."""

from run_config.cvat_formats import COCO

NO_LONGER = (
    "This template uses the format `{}`, which CVAT cannot export: ask its author to set another `dump-format`, "
    "such as cvat_coco."
)

_BY_OLD_NAME = {
    "cvat_camvid": "CamVid 1.0",
    "cvat_coco": COCO,
    "cvat_cvat": "CVAT for images 1.1",
    "cvat_datumaro": "Datumaro 1.0",
    "cvat_imagenet": "ImageNet 1.0",
    "cvat_label_me": "LabelMe 3.0",
    "cvat_labelme": "LabelMe 3.0",
    "cvat_mask": "Segmentation mask 1.1",
    "cvat_mot": "MOT 1.1",
    "cvat_mots": "MOTS PNG 1.0",
    "cvat_voc": "PASCAL VOC 1.1",
    "cvat_yolo": "YOLO 1.1",
}

_NAMES = frozenset(
    {
        *_BY_OLD_NAME.values(), "COCO Keypoints 1.0", "CVAT for video 1.1", "Cityscapes 1.0", "ICDAR Localization 1.0",
        "ICDAR Recognition 1.0", "ICDAR Segmentation 1.0", "KITTI 1.0", "LFW 1.0", "Market-1501 1.0",
        "Open Images V6 1.0", "Ultralytics YOLO Classification 1.0", "Ultralytics YOLO Detection 1.0",
        "Ultralytics YOLO Detection Track 1.0", "Ultralytics YOLO Oriented Bounding Boxes 1.0",
        "Ultralytics YOLO Pose 1.0", "Ultralytics YOLO Segmentation 1.0", "VGGFace2 1.0", "WiderFace 1.0",
    }
)  # fmt: skip


def export_format(text: str) -> str | None:
    """CVAT's export format for a template's `dump-format`. None: CVAT has no such format, as for TFRecord."""
    if not text:
        return COCO
    return text if text in _NAMES else _BY_OLD_NAME.get(text.lower())
