"""The supported annotation formats: one line here for each module. How the format of a source is recognised."""

import itertools
import re
from dataclasses import dataclass
from importlib import import_module

from data_prep.errors import SourceError
from data_prep.formats.record import Format
from data_prep.remedies import choose_format
from data_prep.sources.files import ExportFiles, FolderOfExport, export_frames, videos_among, without_macos_shadows
from run_config.cvat_formats import AUTO, PASCAL_VOC, SHORT_NAMES, ULTRALYTICS, YOLO

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

# File that is typical of an unsupported format → the format's name in CVAT.
_OTHER_FORMATS = (
    (re.compile(r"(.*/)?annotations\.xml"), "CVAT for images or video"),
    (re.compile(r"(.*/)?obj\.(names|data)"), YOLO),
    (re.compile(r"(.*/)?data\.ya?ml"), ULTRALYTICS),
    (re.compile(r"(.*/)?Annotations/.*\.xml"), PASCAL_VOC),
    (re.compile(r"(.*/)?annotations/[^/]*\.json"), "another JSON format"),
)


@dataclass(frozen=True, slots=True)
class FoundExport:
    """An export in a source: its format and its files."""

    format: Format
    files: ExportFiles
    root: str = ""
    """The path of `files` in the source: `""`, or ending in `/`."""

    def own_files(self) -> list[str]:
        """The paths of annotations and images in `files`."""
        return self.format.own_files(self.files)


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
        raise SourceError(_explain_unknown(list(without_macos_shadows(files.sizes)), files.shown_name))
    if len(found) == 1:
        return [FoundExport(found[0][1], files)]
    for (outer, first), (inner, second) in itertools.combinations(found, 2):
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
    return [FoundExport(one, FolderOfExport(files, root), root) for root, one in found]


def _explain_unknown(paths: list[str], where: str) -> str:
    names = _either([repr(one.name) for one in FORMATS])
    missing = f"{where} has no {_either([one.looks_like for one in FORMATS])}"
    for pattern, name in _OTHER_FORMATS:
        found = next((path for path in paths if pattern.fullmatch(path)), None)
        if found:
            return f"{missing} but {found!r}: it looks like {name}; export the task as {names}"
    packed = next((path for path in paths if path.lower().endswith((".zip", ".tar", ".tar.gz", ".tgz"))), None)
    if packed:
        kind = "zip" if packed.lower().endswith(".zip") else "tar"
        return f"{where} holds the {kind} {packed!r} instead of an unpacked export; give that {kind} as the source"
    videos = videos_among(paths)
    if videos:
        return f"{where} has a video ({videos[0]!r}) and no annotations: {export_frames(videos[0])}"
    return f"{missing}: it must be a CVAT export in the format {names}, packed or unpacked"


def _either(names: list[str]) -> str:
    return " or ".join([", ".join(names[:-1])] * (len(names) > 1) + names[-1:])
