"""A dataset as CVAT's "COCO 1.0" exporter writes it: a zip with stored entries, a JSON for each subset."""

import io
import json
import zipfile
from collections.abc import Container, Sequence
from pathlib import PurePosixPath

from tests.cvat_double.world import Label, Task

INFO = ("contributor", "date_created", "description", "url", "version", "year")
DROPPED = {"points", "polyline", "cuboid", "skeleton"}


class CannotExportError(Exception):
    """A shape that the double cannot write as CVAT would."""


def export(tasks: Sequence[Task], labels: Sequence[Label], *, save_images: bool) -> bytes:
    """The zip of one task, or of a project's tasks, which share a subset where they name the same or none."""
    buffer = io.BytesIO()
    subsets: dict[str, list[Task]] = {}
    for task in tasks:
        subsets.setdefault(task.subset or "default", []).append(task)
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("annotations/", b"")
        if save_images:
            archive.writestr("images/", b"")
        for subset, members in sorted(subsets.items()):
            document, pictures = _subset(members, labels)
            if save_images:
                archive.writestr(f"images/{subset}/", b"")
                for name, content in pictures.items():
                    archive.writestr(f"images/{subset}/{name}", content)
            archive.writestr(f"annotations/instances_{subset}.json", json.dumps(document))
    return buffer.getvalue()


def _subset(tasks: Sequence[Task], labels: Sequence[Label]) -> tuple[dict, dict[str, bytes]]:
    category = {label.id: number for number, label in enumerate(labels, start=1)}
    images: list[dict] = []
    annotations: list[dict] = []
    pictures: dict[str, bytes] = {}
    for task in tasks:
        image_of: dict[int, int] = {}
        for index, frame in enumerate(task.frames):
            if index in task.deleted_frames:
                continue
            name = unused(_with_lower_extension(frame.name), pictures)
            pictures[name] = frame.content
            image_of[index] = len(images) + 1
            blank = {"license": 0, "flickr_url": "", "coco_url": "", "date_captured": 0}
            size = {"width": frame.width, "height": frame.height}
            images.append({"id": image_of[index], **size, "file_name": name, **blank})
        grouped: dict[tuple[int, int], dict] = {}
        for shape in sorted(task.shapes, key=lambda shape: shape["frame"]):
            if shape["frame"] in image_of and shape["type"] not in DROPPED:
                where = {"image_id": image_of[shape["frame"]], "category_id": category[shape["label_id"]]}
                written = {"id": len(annotations) + 1, **where, **_geometry(shape)}
                first = grouped.setdefault((shape["frame"], shape["group"]), written) if shape["group"] else written
                if first is written:
                    annotations.append(written)
                else:
                    first["bbox"] = _around(first["bbox"], written["bbox"])
    return {
        "licenses": [{"name": "", "id": 0, "url": ""}],
        "info": dict.fromkeys(INFO, ""),
        "categories": [{"id": category[label.id], "name": label.name, "supercategory": ""} for label in labels],
        "images": images,
        "annotations": annotations,
    }, pictures


def _around(one: list[float], other: list[float]) -> list[float]:
    """The shapes of a group become one object, whose box is around all of them."""
    left, top = min(one[0], other[0]), min(one[1], other[1])
    right, bottom = max(one[0] + one[2], other[0] + other[2]), max(one[1] + one[3], other[1] + other[3])
    return [round(number, 2) for number in (left, top, right - left, bottom - top)]


def _geometry(shape: dict) -> dict:
    points = shape["points"]
    attributes = {"occluded": shape["occluded"]}
    if shape["type"] not in {"rectangle", "polygon"}:
        raise CannotExportError(f"the double exports no {shape['type']}")
    xs, ys = points[0::2], points[1::2]
    left, top, width, height = min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)
    if shape["type"] == "rectangle":
        segmentation, area = [], width * height
        attributes["rotation"] = shape["rotation"]
    else:
        turned = zip(xs, ys, [*xs[1:], xs[0]], [*ys[1:], ys[0]], strict=True)
        segmentation, area = [points], abs(sum(x * next_y - next_x * y for x, y, next_x, next_y in turned)) / 2
    box = [round(number, 2) for number in (left, top, width, height)]
    return {
        "segmentation": segmentation,
        "area": round(area, 4),
        "bbox": box,
        "iscrowd": 0,
        "attributes": attributes,
    }


def _with_lower_extension(name: str) -> str:
    path = PurePosixPath(name)
    return str(path.with_suffix(path.suffix.lower()))


def unused(name: str, taken: Container[str]) -> str:
    """`name_1.ext` where another task of the project has an image of the same name."""
    path, number, candidate = PurePosixPath(name), 0, name
    while candidate in taken:
        number += 1
        candidate = str(path.with_name(f"{path.stem}_{number}{path.suffix}"))
    return candidate
