"""The supported annotation formats: one line here for each module. How the format of a source is recognised."""

import re
from importlib import import_module

from data_prep.errors import SourceError
from data_prep.formats.record import Format
from data_prep.formats.ultralytics import read_mapping
from data_prep.sources.files import ExportFiles, without_macos_shadows
from run_config.cvat_formats import PASCAL_VOC, ULTRALYTICS

_CLASSES = {
    "coco": "Coco",
    "cvat_images": "CvatImages",
    "cvat_video": "CvatVideo",
    "ultralytics": "Ultralytics",
    "pascal_voc": "PascalVoc",
    "datumaro": "Datumaro",
}
FORMATS: tuple[Format, ...] = tuple(
    getattr(import_module(f"data_prep.formats.{module}"), class_name)() for module, class_name in _CLASSES.items()
)

_DATA_YAML = re.compile(r"(.*/)?data\.ya?ml")
# File that is typical of an unsupported format → the format's name in CVAT.
_OTHER_FORMATS = (
    (re.compile(r"(.*/)?annotations\.xml"), "CVAT for images or video"),
    (re.compile(r"(.*/)?obj\.(names|data)"), "YOLO 1.1"),
    (_DATA_YAML, ULTRALYTICS),
    (re.compile(r"(.*/)?Annotations/.*\.xml"), PASCAL_VOC),
    (re.compile(r".*\.tfrecord"), "TFRecord"),
    (re.compile(r"(.*/)?gt/gt\.txt"), "MOT 1.1"),
    (re.compile(r"(.*/)?annotations/[^/]*\.json"), "another JSON format"),
)


def recognise(files: ExportFiles) -> Format:
    """The format of a source.

    Raises SourceError when no format or several formats recognise it. It never guesses: the wrong format
    would train on wrong boxes.
    """
    found = [one for one in FORMATS if one.recognises(files)]
    if len(found) > 1:
        names = " and ".join(repr(one.name) for one in found)
        raise SourceError(
            f"{files.shown_name} holds annotations in several formats ({names}): keep the files of one of them"
        )
    if not found:
        for path in files.sizes:
            if _DATA_YAML.fullmatch(path):
                read_mapping(files, path)  # says why it cannot be read
        raise SourceError(_explain_unknown(list(without_macos_shadows(files.sizes)), files.shown_name))
    return found[0]


def _explain_unknown(paths: list[str], where: str) -> str:
    names = " or ".join(repr(one.name) for one in FORMATS)
    missing = f"{where} has no {' or '.join(one.looks_like for one in FORMATS)}"
    for pattern, name in _OTHER_FORMATS:
        found = next((path for path in paths if pattern.fullmatch(path)), None)
        if found:
            return f"{missing} but {found!r}: it looks like {name}; export the task as {names}"
    zips = [path for path in paths if path.lower().endswith(".zip")]
    if zips:
        return f"{where} holds the zip {zips[0]!r} instead of an unpacked export; give that zip as the source"
    return f"{missing}: it must be a CVAT export in the format {names}, packed or unpacked"
