"""Write the images and boxes of sources as COCO in CVAT's layout.

That is `annotations/instances_<subset>.json` and `images/<subset>/`.

The boxes are those that `prepare` would use: corrected, and every difference from the source counted.
"""

import re
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import msgspec

from data_prep.changes import ChangeLog, Reason
from data_prep.checks.refusals import refuse_named, refuse_no_boxes
from data_prep.correct_boxes import Box
from data_prep.dataset import name_with_digest
from data_prep.errors import DataPrepError, SourceError
from data_prep.export_reader import Export, ExportImage, Watcher
from data_prep.formats.record import NO_OUTLINE
from data_prep.prepare import PrepareRequest, locate, read_exports
from data_prep.set_writer import coco_annotation, coco_file
from prepared_set.manifest import Change


@dataclass(frozen=True)
class Converted:
    """What was written."""

    images: Mapping[str, int]
    """By subset."""
    boxes: int
    classes: tuple[str, ...]
    changes: tuple[Change, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Named:
    """An image with its final name below the folder of its subset."""

    name: str
    image: ExportImage


def convert(request: PrepareRequest, out: Path, *, annotations_only: bool = False, watcher: Watcher) -> Converted:
    """Write the sources in `request.pool` to the new folder `out`, which exists only when it is whole.

    Raises DataPrepError when `out` exists and is not an empty folder, or cannot be written, and SourceError when no
    box is left.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataPrepError(f"--to: {out} exists already; give the name of a new folder")
    out = out.absolute()
    found = locate(request)
    with read_exports(found, watcher) as (read, changes, _):
        exports = read.pool
        subsets = _by_subset(exports, changes)
        if not any(one.image.boxes for images in subsets.values() for one in images):
            refuse_no_boxes(changes)
        refuse_named(changes, request.rules.limits)
        classes = sorted({name for export in exports for name in export.categories})
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as temporary:
                folder = Path(temporary, "coco")
                _write(folder, subsets, classes, watcher, annotations_only=annotations_only)
                if out.exists():
                    out.rmdir()
                shutil.move(folder, out)
        except OSError as error:
            raise DataPrepError(f"--to: {out} cannot be written: {error.strerror}; choose another folder") from error
    return Converted(
        {subset: len(images) for subset, images in subsets.items()},
        sum(len(one.image.boxes) for images in subsets.values() for one in images),
        tuple(classes),
        changes.entries(),
        tuple(warning for export in exports for warning in export.warnings),
    )


def _by_subset(exports: Sequence[Export], changes: ChangeLog) -> dict[str, list[_Named]]:
    """Name of a subset, as a file may be called → its images, sorted by their unique names."""
    found: dict[str, dict[str, list[tuple[str, ExportImage]]]] = defaultdict(lambda: defaultdict(list))
    for image in (image for export in exports for image in export.images):
        same = found[_as_file_name(image.subset)][image.file_name]
        digest = _digest(image)
        if any(digest == other for other, _ in same):
            changes.add(Reason.IMAGE_REPEATED, image.file_name)
        else:
            same.append((digest, image))
    return {
        subset: sorted(
            (one for name, same in images.items() for one in _named(name, same, changes)), key=lambda one: one.name
        )
        for subset, images in sorted(found.items())
    }


def _as_file_name(subset: str) -> str:
    """The subset's name without characters that have a meaning in paths."""
    return re.sub(r"[^\w.+ -]", "_", subset).strip(". ")[:100] or "default"


def _digest(image: ExportImage) -> str:
    boxes = [(one.class_name, one.bbox, one.segmentation, one.attributes) for one in image.boxes]
    return sha256(msgspec.json.encode([image.checked.sha256, boxes])).hexdigest()


def _named(name: str, same: list[tuple[str, ExportImage]], changes: ChangeLog) -> Iterable[_Named]:
    for digest, image in same:
        yield _Named(name if len(same) == 1 else name_with_digest(name, digest, changes), image)


def _write(
    folder: Path,
    subsets: Mapping[str, Sequence[_Named]],
    classes: Sequence[str],
    watcher: Watcher,
    *,
    annotations_only: bool,
) -> None:
    (folder / "annotations").mkdir(parents=True)
    for subset, images in subsets.items():
        (folder / f"annotations/instances_{subset}.json").write_bytes(_annotations(images, classes))
        if annotations_only:
            continue
        watcher.stage(f"writing {subset}", len(images), "images")
        for one in images:
            data = one.image.read()
            if sha256(data).hexdigest() != one.image.checked.sha256:
                raise SourceError(f"{one.image.file_name!r} changed while it was converted: run the command again")
            path = folder / "images" / subset / one.name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            watcher.advance(1)


def _annotations(images: Sequence[_Named], classes: Sequence[str]) -> bytes:
    """The COCO file of one subset. Sizes are those after the EXIF orientation, as CVAT lists them."""
    category = {name: number for number, name in enumerate(classes, start=1)}
    boxes = ((image_id, box) for image_id, one in enumerate(images, start=1) for box in one.image.boxes)
    return coco_file(
        ({"id": number, "name": name, "supercategory": ""} for name, number in category.items()),
        (
            {"id": number, "file_name": one.name, "width": one.image.checked.width, "height": one.image.checked.height}
            for number, one in enumerate(images, start=1)
        ),
        (
            coco_annotation(number, image_id, category[box.class_name], box) | {"attributes": _attributes(box)}
            for number, (image_id, box) in enumerate(boxes, start=1)
        ),
    )


def _attributes(box: Box) -> msgspec.Raw:
    """The attributes without the rotation, if it is in the box already: readers would apply it again."""
    if box.segmentation is not NO_OUTLINE or b'"rotation"' not in bytes(box.attributes):
        return box.attributes
    kept = {name: value for name, value in msgspec.json.decode(box.attributes).items() if name != "rotation"}
    return msgspec.Raw(msgspec.json.encode(kept))
