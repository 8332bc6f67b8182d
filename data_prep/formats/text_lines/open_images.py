"""Open Images: `annotations/<subset>-annotations-bbox.csv` with boxes in fractions, and `images/<subset>/<id>.jpg`."""

import re
from collections import defaultdict

import msgspec

from data_prep.box_form import BoxForm
from data_prep.changes import ChangeLog, Reason
from data_prep.errors import AnnotationError
from data_prep.formats.coco_file import corner_box, read_number
from data_prep.formats.cvat_shapes import LabelCheck
from data_prep.formats.record import Annotation, Annotations, ListedImage, clean_class_name
from data_prep.formats.roots import parent_of, without_suffix
from data_prep.formats.text_lines.lines import read_rows
from data_prep.sources.files import ExportFiles, images_below, matching, without_stray_copies
from run_config.cvat_formats import OPEN_IMAGES

_BOXES = re.compile(r"(?P<folder>(?:.+/)?)(?:oidv\d-)?(?P<subset>[^/]+?)-annotations-bbox\.csv")
_DESCRIPTIONS = re.compile(r"(?:.*/)?(?:oidv\d-)?class-descriptions(?:-boxable)?\.csv")
_SIDES = ("XMin", "YMin", "XMax", "YMax")
_FLAGS = ("IsOccluded", "IsTruncated", "IsGroupOf", "IsDepiction", "IsInside")


class OpenImages:
    """Open Images V4 to V7, as CVAT writes it and as it is published."""

    name = OPEN_IMAGES
    looks_like = "annotations/*-annotations-bbox.csv"

    def roots(self, files: ExportFiles) -> list[str]:
        """The folders of the tables of boxes, without `annotations/`."""
        return sorted({_root(match["folder"]) for match in matching(_BOXES, files.sizes).values()})

    def own_files(self, files: ExportFiles) -> list[str]:
        """All tables and images."""
        tables = [path for path in without_stray_copies(files.sizes) if path.lower().endswith(".csv")]
        return [*tables, *images_below(self.roots(files)[0], files.sizes)]

    def read(self, files: ExportFiles, changes: ChangeLog) -> Annotations:
        """Read the tables of all subsets. An image that no table lists has no boxes if it lies in a subset's folder."""
        root = self.roots(files)[0]
        listed = _class_names(files, changes)
        labels = LabelCheck(files.shown_name, changes)
        images: list[ListedImage] = []
        for path, match in matching(_BOXES, files.sizes).items():
            boxes = _read_table(files, path, listed, labels, changes)
            folders = tuple(f"{root}{one}" for one in (f"images/{match['subset']}/", f"{match['subset']}/"))
            there = {
                without_suffix(path.removeprefix(folder)): path.removeprefix(folder)
                for folder in folders
                for path in images_below(folder, files.sizes)
            }
            images += [
                ListedImage(
                    there.get(name, name), (*folders, f"{root}images/", root), match["subset"], path, tuple(boxes[name])
                )
                for name in sorted({*there, *boxes})
            ]
        found = {name: frozenset[int]() for name in sorted({*listed.values()} & labels.names or labels.names)}
        return Annotations(
            images,
            found,
            unlisted=[labels.summary()],
            exporter="Open Images",
            box_form=BoxForm.SHARED_CORNERS,
        )


def _root(folder: str) -> str:
    return parent_of(folder) if folder.endswith("annotations/") else folder


def _class_names(files: ExportFiles, changes: ChangeLog) -> dict[str, str]:
    """Code of a class, such as `/m/011k07`, → its name. Raises AnnotationError for a code with two names."""
    names: dict[str, str] = {}
    known: set[str] = set()
    for path in matching(_DESCRIPTIONS, files.sizes):
        for row in read_rows(files, path):
            if len(row) < 2 or row[:2] == ["LabelName", "DisplayName"]:
                continue
            code, name = row[0].strip(), clean_class_name(row[1])
            if names.get(code, name) != name:
                raise AnnotationError(
                    f"{files.shown_name}: {path}: the class {code!r} has the names {names[code]!r} and {name!r}: "
                    "remove one of them"
                )
            if code not in names and name in known:
                changes.add(Reason.CATEGORY_MERGED, path, detail=f"{name!r} ({code})")
            names[code] = name
            known.add(name)
    return names


def _read_table(
    files: ExportFiles, path: str, names: dict[str, str], labels: LabelCheck, changes: ChangeLog
) -> dict[str, list[Annotation]]:
    """Id of each image → its boxes, in fractions. Raises AnnotationError if a column is missing."""
    rows = read_rows(files, path)
    header = next(rows, [])
    column = {name.strip(): index for index, name in enumerate(header)}
    missing = [name for name in ("ImageID", "LabelName", *_SIDES) if name not in column]
    if missing:
        raise AnnotationError(f"{files.shown_name}: {path} has no column {missing[0]}: export again")
    found: dict[str, list[Annotation]] = defaultdict(list)
    known = set(names.values())
    for number, row in enumerate(rows, start=2):
        place = f"line {number}"
        if not row:
            continue
        if len(row) != len(header):
            raise AnnotationError(
                f"{files.shown_name}: {path}: {place} has {len(row)} of {len(header)} values: export again"
            )
        image_id, code = row[column["ImageID"]].strip(), row[column["LabelName"]].strip()
        if "Confidence" in column and read_number(row[column["Confidence"]])[0] == 0:
            changes.add(Reason.MARKED_IGNORED, image_id, place, "Confidence 0")
            continue
        written_name = clean_class_name(code)
        name = names.get(code) or (written_name if not names or written_name in known else "")
        if not labels.accepts(name or code, known, image_id, place):
            continue
        written = [row[column[side]] for side in _SIDES]
        box = corner_box(written)
        flags = {flag: True for flag in _FLAGS if flag in column and row[column[flag]].strip() == "1"}
        found[image_id].append(
            Annotation(
                name,
                box,
                place,
                box_as_written=written if box is None else None,
                is_crowd="IsGroupOf" in flags,
                attributes=msgspec.Raw(msgspec.json.encode(flags)),
            )
        )
    return found
