"""The supported annotation formats: one line here for each module. How the format of a source is recognised."""

import itertools
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module

from data_prep.errors import SourceError
from data_prep.formats.annotation_file import read_annotation_file
from data_prep.formats.record import Format, FormatOfFolders
from data_prep.formats.roots import MOST_EXPORTS, root_of
from data_prep.formats.ultralytics import DATA_YAML, read_mapping
from data_prep.remedies import choose_format
from data_prep.sources.files import (
    ARCHIVE_SUFFIXES,
    PACKED_OTHERWISE,
    ExportFiles,
    FolderOfExport,
    export_frames,
    images_below,
    may_be_images_below,
    videos_among,
    without_stray_copies,
)
from run_config.cvat_formats import AUTO, PASCAL_VOC, SHORT_NAMES, SUPERVISELY, ULTRALYTICS, YOLO
from run_config.wording import plural, shortened

FORMATS: tuple[Format, ...] = tuple(
    getattr(import_module(f"data_prep.formats.{module}"), class_name)()
    for module, class_name in {
        "coco": "Coco",
        "cvat_images": "CvatImages",
        "cvat_video": "CvatVideo",
        "ultralytics": "Ultralytics",
        "pascal_voc": "PascalVoc",
        "datumaro": "Datumaro",
        "text_lines.yolo": "Yolo",
        "labelme": "LabelMe",
        "text_lines.mot": "Mot",
        "text_lines.open_images": "OpenImages",
        "text_lines.kitti": "Kitti",
        "supervisely": "Supervisely",
        "tfrecord": "TfRecord",
    }.items()
)

# A file that is typical of a format, the format's name, and what is missing if the source was not recognised.
_INCOMPLETE = (
    (re.compile(r"(.*/)?task\.json"), "a backup of a CVAT task", ", which only CVAT reads: import it there"),
    (re.compile(r"(.*/)?label_02/\d+\.txt"), "KITTI for tracking", ": only KITTI for detection is read"),
    (re.compile(r"(.*/)?det/det\.txt"), "detections of MOT", ", but there is no gt/gt.txt with the ground truth"),
    (re.compile(r".*\.jsonl"), "JSON Lines", ": write one JSON file with images, annotations and categories"),
    (re.compile(r"(.*/)?annotations\.xml"), "CVAT for images or video", ", but it has no image and no track"),
    (
        re.compile(r"(.*/)?obj\.(names|data)"),
        YOLO,
        ", but there is no file obj.data with the keys names and train, valid or test",
    ),
    (DATA_YAML, ULTRALYTICS, ", but it lacks the key names, or all of train, val and test"),
    (re.compile(r"(.*/)?Annotations/.*\.xml"), PASCAL_VOC, ", but it has no annotation with a size or a bndbox"),
    (
        re.compile(r"(.*/)?(labels/.*|classes)\.txt"),
        ULTRALYTICS,
        ", but there is no data.yaml; write one with names (classes in order) and train (folder of images, or '.')",
    ),
    (re.compile(r"(.*/)?ann/[^/]+\.json"), SUPERVISELY, ", but there is no meta.json with the classes"),
    (
        re.compile(r".*\.json"),
        "another JSON format",
        ": COCO has images, annotations and categories, and Datumaro has items and categories",
    ),
    (re.compile(r".*\.csv"), "a table", ": of tables only those of Open Images are read"),
)

MOST_LOOKED_INTO = 1 << 20
"""Bytes of a file that may have been saved in place of annotations."""


@dataclass(frozen=True, slots=True)
class FoundExport:
    """An export in a source: its format and its files."""

    format: Format
    files: ExportFiles
    root: str = ""
    """The path of `files` in the source: `""`, or ending in `/`."""

    def own_files(self) -> list[str]:
        """The paths of annotations and images in `files`; below its roots also files without an extension."""
        roots = tuple(self.format.roots(self.files))
        bare = [path for path in may_be_images_below("", self.files.sizes) if path.startswith(roots)]
        return list(dict.fromkeys([*self.format.own_files(self.files), *bare]))


def find_exports(files: ExportFiles, chosen: str = AUTO) -> list[FoundExport]:
    """The exports in a source: one of the whole source, or several in folders side by side.

    `chosen` is one of `SHORT_NAMES`: other formats are not looked for. Raises SourceError when no format
    recognises the source, or several recognise the same files. It never guesses: the wrong format would train on
    wrong boxes.
    """
    formats = [one for one in FORMATS if chosen == AUTO or one.name == SHORT_NAMES[chosen]]
    found = sorted(((root, one) for one in formats for root in one.roots(files)), key=lambda pair: pair[0])
    if not found:
        if chosen != AUTO:
            looks_like = formats[0].looks_like
            raise SourceError(
                f"{files.shown_name} is not in the chosen format {SHORT_NAMES[chosen]!r}: it has no {looks_like}; "
                "without the choice the format is recognised"
            )
        for path in files.sizes:
            if DATA_YAML.fullmatch(path):
                read_mapping(files, path)  # says why it cannot be read
        raise SourceError(_explain_unknown(files))
    format_of_all = found[0][1] if len({one.name for _, one in found}) == 1 else None
    if len(found) == 1 or (isinstance(format_of_all, FormatOfFolders) and format_of_all.is_one_export(files)):
        return [FoundExport(found[0][1], files)]
    # In sorted order all roots inside another one come right after it.
    for (outer, first), (inner, second) in itertools.pairwise(found):
        if not inner.startswith(outer):
            continue
        if first is second and inner == outer:
            raise SourceError(
                f"{files.shown_name} holds several exports in the format {first.name!r} in the folder "
                f"{outer or './'!r}: keep the annotations of one of them"
            )
        if first is second:
            raise SourceError(
                f"{files.shown_name} holds several exports ({outer or './'!r} and {inner!r}), one inside the other: "
                "put them into folders side by side, or name each of them as a source"
            )
        shorts = [short for short, name in SHORT_NAMES.items() if name in (first.name, second.name)]
        raise SourceError(
            f"{files.shown_name} holds annotations in several formats ({first.name!r} and {second.name!r}) of the same "
            f"files: keep the files of one of them, or {choose_format(shorts)}"
        )
    if len(found) > MOST_EXPORTS:
        raise SourceError(
            f"{files.shown_name} holds more than {MOST_EXPORTS:,} exports: give its folders as several sources"
        )
    roots = [root for root, _ in found]
    below: dict[str | None, dict[str, int]] = defaultdict(dict)
    for path, size in files.sizes.items():
        below[root_of(path, roots)][path] = size
    return [FoundExport(one, FolderOfExport(files, root, below[root]), root) for root, one in found]


def images_outside(files: ExportFiles, exports: Sequence[FoundExport]) -> list[str]:
    """The images in a source of several exports that lie in none of their folders."""
    roots = [one.root for one in exports]
    return [path for path in images_below("", files.sizes) if root_of(path, roots) is None]


def _explain_unknown(files: ExportFiles) -> str:
    paths, where = list(without_stray_copies(files.sizes)), files.shown_name
    for pattern, name, lacks in _INCOMPLETE:
        found = next((path for path in paths if pattern.fullmatch(path)), None)
        if found:
            if files.sizes[found] <= MOST_LOOKED_INTO:
                read_annotation_file(files, found)  # it may be something else, which is said then
            again = f"export the task again, or as {FORMATS[0].name!r}"
            return f"{where} holds {found!r}: it looks like {name}{lacks}; {again}"
    return _explain_without_annotations(paths, where)


def _explain_without_annotations(paths: list[str], where: str) -> str:
    packed = [path for path in paths if path.lower().endswith(ARCHIVE_SUFFIXES)]
    if len(packed) > 1:
        return f"{where} holds the archives {shortened(packed, 3)} instead of an export; give each of them as a source"
    if packed:
        kind = "zip" if packed[0].lower().endswith(".zip") else "tar"
        return f"{where} holds the {kind} {packed[0]!r} instead of an unpacked export; give that {kind} as the source"
    other = next((path for path in paths if path.lower().endswith(PACKED_OTHERWISE)), None)
    if other:
        return f"{where} holds {other!r}, which is not unpacked here: unpack it, and pack the export again"
    videos = videos_among(paths)
    if videos:
        return f"{where} has a video ({videos[0]!r}) and no annotations: {export_frames(videos[0])}"
    if not paths:
        return f"{where} is empty: export the task again"
    names = _either([repr(one.name) for one in FORMATS])
    images = len(images_below("", paths))
    what = f"{plural(images, 'image')}, but no" if images else "no"
    return (
        f"{where} has {what} {_either([one.looks_like for one in FORMATS])}: it must be a CVAT export in the format "
        f"{names}, packed or unpacked"
    )


def _either(names: list[str]) -> str:
    return " or ".join(filter(None, (", ".join(names[:-1]), names[-1])))
