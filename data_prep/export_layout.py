"""Where things lie in a CVAT export: annotation files per subset, and the file that a `file_name` means."""

import re
from collections import defaultdict
from dataclasses import dataclass

from data_prep.errors import SourceError
from data_prep.sources.files import safe_path

_ANNOTATIONS = re.compile(r"(?:(?P<root>.+)/)?annotations/instances_(?P<subset>[^/]*)\.json")
_IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".jp2", ".avif",
)  # fmt: skip
# A file that gives another format away → the format's name in CVAT.
_OTHER_FORMATS = (
    (re.compile(r"(.*/)?annotations/person_keypoints_[^/]*\.json"), "COCO Keypoints 1.0"),
    (re.compile(r"(.*/)?annotations\.xml"), "CVAT for images or video"),
    (re.compile(r"(.*/)?obj\.(names|data)"), "YOLO 1.1"),
    (re.compile(r"(.*/)?data\.ya?ml"), "Ultralytics YOLO"),
    (re.compile(r"(.*/)?Annotations/.*\.xml"), "PASCAL VOC 1.1"),
    (re.compile(r".*\.tfrecord"), "TFRecord"),
    (re.compile(r"(.*/)?gt/gt\.txt"), "MOT 1.1"),
    (re.compile(r"(.*/)?annotations/[^/]*\.json"), "another JSON format"),
)


@dataclass(frozen=True)
class AnnotationFile:
    """An `instances_<subset>.json` and where it lies."""

    path: str
    subset: str


def find_annotation_files(sizes: dict[str, int], where: str) -> tuple[str, list[AnnotationFile]]:
    """The export's root folder (`""` or ending in `/`) and its annotation files, by subset."""
    by_root: dict[str, list[AnnotationFile]] = defaultdict(list)
    for path in sorted(_wanted(sizes)):
        match = _ANNOTATIONS.fullmatch(path)
        if match:
            root = f"{match['root']}/" if match["root"] else ""
            by_root[root].append(AnnotationFile(path, match["subset"] or "default"))
    if not by_root:
        raise SourceError(_explain_missing(sizes, where))
    if len(by_root) > 1:
        first, second = sorted(by_root)[:2]
        raise SourceError(
            f"{where} holds several exports ({first or './'!r} and {second!r}): name each of them as a source"
        )
    return next(iter(by_root.items()))


def export_files(sizes: dict[str, int], where: str) -> list[str]:
    """Of many files those that belong to the export: its annotation files, and all images below its root."""
    root, annotation_files = find_annotation_files(sizes, where)
    images = [path for path in _wanted(sizes) if path.startswith(root) and path.lower().endswith(_IMAGE_SUFFIXES)]
    return [one.path for one in annotation_files] + images


def _wanted(sizes: dict[str, int]) -> list[str]:
    """All paths but the shadow files that macOS packs beside the real ones."""
    return [path for path in sizes if "__MACOSX/" not in path and not path.rpartition("/")[2].startswith("._")]


def _explain_missing(sizes: dict[str, int], where: str) -> str:
    paths = _wanted(sizes)
    for pattern, name in _OTHER_FORMATS:
        found = next((path for path in paths if pattern.fullmatch(path)), None)
        if found:
            return (
                f"{where} has no annotations/instances_*.json but {found!r}: it looks like {name}; export the "
                "task as 'COCO 1.0'"
            )
    zips = [path for path in paths if path.lower().endswith(".zip")]
    if zips:
        return f"{where} holds no unpacked export, but {zips[0]!r}: name that zip as the source"
    return (
        f"{where} has no annotations/instances_*.json: it must be a CVAT export in the format 'COCO 1.0', "
        "packed or unpacked"
    )


class ImageFinder:
    """Finds the file for a `file_name` of an annotation file."""

    def __init__(self, sizes: dict[str, int], root: str) -> None:
        self._root = root
        self._sizes = sizes
        self._used: set[str] = set()
        self._images = [
            path
            for path in _wanted(sizes)
            if path.startswith(f"{root}images/") and path.lower().endswith(_IMAGE_SUFFIXES)
        ]
        self._folded: dict[str, list[str]] = defaultdict(list)
        for path in _wanted(sizes):
            self._folded[path.casefold()].append(path)

    def find(self, file_name: str, subset: str, where: str) -> tuple[str, str | None]:
        """The cleaned relative name, and the path of its file or None.

        Looked for in `images/<subset>/`, then in `images/` (CVAT before 2.16.1), then in the root; with the
        exact name first, then without regard to case (datumaro writes extensions in lower case).
        """
        name = safe_path(file_name, where)
        places = [f"{self._root}{folder}{name}" for folder in (f"images/{subset}/", "images/", "")]
        path = next((place for place in places if place in self._sizes), None)
        if path is None:
            matches = (self._folded.get(place.casefold(), []) for place in places)
            path = next((found[0] for found in matches if len(found) == 1), None)
        if path is not None:
            self._used.add(path)
        return name, path

    @property
    def unlisted(self) -> list[str]:
        """Image files that nobody asked for."""
        return [path for path in self._images if path not in self._used]

    @property
    def has_images(self) -> bool:
        """Whether the export holds image files at all."""
        return bool(self._images) or bool(self._used)
