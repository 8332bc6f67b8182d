"""The same small data set in each format that `data-prep` reads, with a fault in one box, one image or one file.

A box's four numbers are written in the format's own way. `Thing.written` replaces one of them by any value.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.data_prep.export_builder import picture
from tests.data_prep.formats.test_tfrecord import MAP as LABEL_MAP
from tests.data_prep.formats.test_tfrecord import record

CLASSES = ("car", "road sign")
WIDTH, HEIGHT = 64, 48

Files = dict[str, bytes]


@dataclass
class Thing:
    """One object. `box` is x, y, width, height in pixels."""

    label: int
    box: tuple[float, float, float, float]
    written: dict[int, Any] = field(default_factory=dict)
    """Index of a number in the file (0 to 3) → what stands there instead."""


@dataclass
class Photo:
    """An image, and the objects on it."""

    things: list[Thing] = field(default_factory=list)
    data: bytes | None = None
    """The file, if it is not the picture that belongs to its number."""


def photos(count: int = 12) -> list[Photo]:
    """Images in good order. No two boxes are the same."""
    found = []
    for number in range(count):
        first = Thing(number % 2, (4, 4 + number % 8, 20, 24))
        second = Thing(1 - number % 2, (30, 10, 16 + number % 4, 18))
        found.append(Photo([[first], [first, second], []][number % 3] if number % 5 else [first]))
    return found


def names(count: int) -> list[str]:
    """File names that the video format can find too."""
    return [f"frame_{number:06}.png" for number in range(count)]


def _images(given: Sequence[Photo], folder: str) -> Files:
    return {
        f"{folder}{name}": picture(name, (WIDTH, HEIGHT)) if photo.data is None else photo.data
        for name, photo in zip(names(len(given)), given, strict=True)
    }


def _numbers(thing: Thing, clean: Sequence[float]) -> list[Any]:
    return [thing.written.get(index, value) for index, value in enumerate(clean)]


def _corners(thing: Thing) -> list[Any]:
    x, y, width, height = thing.box
    return _numbers(thing, (x, y, x + width, y + height))


def coco(given: Sequence[Photo]) -> Files:
    listed = list(zip(names(len(given)), given, strict=True))
    things = [(number, thing) for number, (_, photo) in enumerate(listed, start=1) for thing in photo.things]
    tree = {
        "categories": [{"id": number, "name": name} for number, name in enumerate(CLASSES, start=1)],
        "images": [
            {"id": number, "width": WIDTH, "height": HEIGHT, "file_name": name}
            for number, (name, _) in enumerate(listed, start=1)
        ],
        "annotations": [
            {"id": number, "image_id": image, "category_id": thing.label + 1, "bbox": _numbers(thing, thing.box)}
            for number, (image, thing) in enumerate(things, start=1)
        ],
    }
    return {"annotations/instances_default.json": json.dumps(tree).encode()} | _images(given, "images/default/")


def _cvat(body: str) -> bytes:
    labels = "".join(f"<label><name>{name}</name></label>" for name in CLASSES)
    size = f"<original_size><width>{WIDTH}</width><height>{HEIGHT}</height></original_size>"
    meta = f"<version>1.1</version><meta><task><labels>{labels}</labels>{size}</task></meta>"
    return f'<?xml version="1.0" encoding="utf-8"?><annotations>{meta}{body}</annotations>'.encode()


def _sides(thing: Thing) -> str:
    return " ".join(
        f'{side}="{value}"' for side, value in zip(("xtl", "ytl", "xbr", "ybr"), _corners(thing), strict=True)
    )


def cvat_images(given: Sequence[Photo]) -> Files:
    body = "".join(
        f'<image id="{number}" name="{name}" width="{WIDTH}" height="{HEIGHT}">'
        + "".join(
            f'<box label="{CLASSES[thing.label]}" source="manual" occluded="0" {_sides(thing)}/>'
            for thing in photo.things
        )
        + "</image>"
        for number, (name, photo) in enumerate(zip(names(len(given)), given, strict=True))
    )
    return {"annotations.xml": _cvat(body)} | _images(given, "images/")


def cvat_video(given: Sequence[Photo]) -> Files:
    tracks: list[str] = []
    for frame, photo in enumerate(given):
        for thing in photo.things:
            shape = f'<box frame="{frame}" keyframe="1" outside="0" occluded="0" {_sides(thing)}/>'
            end = f'<box frame="{frame + 1}" keyframe="1" outside="1" occluded="0" xtl="1" ytl="1" xbr="9" ybr="9"/>'
            tracks.append(f'<track id="{len(tracks)}" label="{CLASSES[thing.label]}">{shape}{end}</track>')
    return {"annotations.xml": _cvat("".join(tracks))} | _images(given, "images/")


def ultralytics(given: Sequence[Photo]) -> Files:
    files: Files = {"data.yaml": f"train: images/train\nnames: {json.dumps(list(CLASSES))}\n".encode()}
    for name, photo in zip(names(len(given)), given, strict=True):
        lines = []
        for thing in photo.things:
            x, y, width, height = thing.box
            clean = ((x + width / 2) / WIDTH, (y + height / 2) / HEIGHT, width / WIDTH, height / HEIGHT)
            lines.append(" ".join(map(str, [thing.label, *_numbers(thing, clean)])))
        files[f"labels/train/{name.removesuffix('.png')}.txt"] = "\n".join(lines).encode()
    return files | _images(given, "images/train/")


def pascal_voc(given: Sequence[Photo]) -> Files:
    files: Files = {"labelmap.txt": "".join(f"{name}:0,0,0::\n" for name in CLASSES).encode()}
    for name, photo in zip(names(len(given)), given, strict=True):
        things = "".join(
            f"<object><name>{CLASSES[thing.label]}</name><bndbox>"
            + "".join(f"<{s}>{v}</{s}>" for s, v in zip(("xmin", "ymin", "xmax", "ymax"), _corners(thing), strict=True))
            + "</bndbox></object>"
            for thing in photo.things
        )
        size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height></size>"
        text = f"<annotation><filename>{name}</filename>{size}{things}</annotation>"
        files[f"Annotations/{name.removesuffix('.png')}.xml"] = text.encode()
    return files | _images(given, "JPEGImages/")


def datumaro(given: Sequence[Photo]) -> Files:
    tree = {
        "categories": {"label": {"labels": [{"name": name} for name in CLASSES]}},
        "items": [
            {
                "id": name.removesuffix(".png"),
                "image": {"path": name, "size": [HEIGHT, WIDTH]},
                "annotations": [
                    {"id": number, "type": "bbox", "label_id": thing.label, "bbox": _numbers(thing, thing.box)}
                    for number, thing in enumerate(photo.things)
                ],
            }
            for name, photo in zip(names(len(given)), given, strict=True)
        ],
    }
    return {"annotations/default.json": json.dumps(tree).encode()} | _images(given, "images/default/")


def yolo(given: Sequence[Photo]) -> Files:
    lines = {name.replace("labels/train/", "obj_train_data/"): data for name, data in ultralytics(given).items()}
    lines = {name: data for name, data in lines.items() if name.startswith("obj_train_data/")}
    listed = "".join(f"data/obj_train_data/{name}\n" for name in names(len(given)))
    return {
        "obj.data": b"classes = 2\ntrain = data/train.txt\nnames = data/obj.names\nbackup = backup/\n",
        "obj.names": "\n".join(CLASSES).encode(),
        "train.txt": listed.encode(),
        **lines,
    } | _images(given, "obj_train_data/")


def labelme(given: Sequence[Photo]) -> Files:
    files: Files = {}
    for name, photo in zip(names(len(given)), given, strict=True):
        shapes = []
        for thing in photo.things:
            left, top, right, bottom = _corners(thing)
            points = [[left, top], [right, bottom]]
            shapes.append({"label": CLASSES[thing.label], "points": points, "shape_type": "rectangle", "flags": {}})
        tree = {"version": "5.4.1", "shapes": shapes, "imagePath": name, "imageHeight": HEIGHT, "imageWidth": WIDTH}
        files[name.replace(".png", ".json")] = json.dumps(tree | {"imageData": None}).encode()
    return files | _images(given, "")


def kitti(given: Sequence[Photo]) -> Files:
    files: Files = {}
    for name, photo in zip(names(len(given)), given, strict=True):
        lines = [
            f"{CLASSES[thing.label]} 0.0 0 -10 {' '.join(map(str, _corners(thing)))} -1 -1 -1 -1000 -1000 -1000 -10\n"
            for thing in photo.things
        ]
        files[f"training/label_2/{name.replace('.png', '.txt')}"] = "".join(lines).encode()
    return files | _images(given, "training/image_2/")


def mot(given: Sequence[Photo]) -> Files:
    lines = [
        f"{frame},{number},{','.join(map(str, _numbers(thing, thing.box)))},1,{thing.label + 1},1.0\n"
        for frame, photo in enumerate(given, start=1)
        for number, thing in enumerate(photo.things, start=1)
    ]
    images = {f"img1/{number:06}.png": data for number, data in enumerate(_images(given, "").values(), start=1)}
    return {"gt/gt.txt": "".join(lines).encode(), "gt/labels.txt": "\n".join(CLASSES).encode()} | images


def supervisely(given: Sequence[Photo]) -> Files:
    meta = {"classes": [{"title": name, "shape": "rectangle"} for name in CLASSES]}
    files: Files = {"project/meta.json": json.dumps(meta).encode()}
    for name, photo in zip(names(len(given)), given, strict=True):
        things = []
        for thing in photo.things:
            left, top, right, bottom = _corners(thing)
            points = {"exterior": [[left, top], [right, bottom]], "interior": []}
            label = CLASSES[thing.label]
            things.append({"id": 7, "classTitle": label, "geometryType": "rectangle", "points": points, "tags": []})
        tree = {"size": {"height": HEIGHT, "width": WIDTH}, "objects": things, "tags": []}
        files[f"project/train/ann/{name}.json"] = json.dumps(tree).encode()
    return files | _images(given, "project/train/img/")


def _fractions(thing: Thing) -> list[Any]:
    x, y, width, height = thing.box
    return _numbers(thing, (x / WIDTH, y / HEIGHT, (x + width) / WIDTH, (y + height) / HEIGHT))


def open_images(given: Sequence[Photo]) -> Files:
    lines = ["ImageID,LabelName,Confidence,XMin,YMin,XMax,YMax"]
    for name, photo in zip(names(len(given)), given, strict=True):
        start = name.removesuffix(".png")
        lines += [f"{start},/m/{thing.label},1,{','.join(map(str, _fractions(thing)))}" for thing in photo.things]
    described = "".join(f"/m/{label},{name}\n" for label, name in enumerate(CLASSES))
    return {
        "annotations/class-descriptions-boxable.csv": described.encode(),
        "annotations/train-annotations-bbox.csv": "\n".join(lines).encode(),
    } | _images(given, "images/train/")


def tfrecord(given: Sequence[Photo]) -> Files:
    """Its numbers have 32 bits; any other value becomes NaN."""
    records = b""
    for name, data, photo in zip(names(len(given)), _images(given, "").values(), given, strict=True):
        boxes = [(thing.label + 1, *map(_narrow, _fractions(thing))) for thing in photo.things]
        records += record(name, *boxes, image=None, image_encoded=[data])
    return {"default.tfrecord": records, "label_map.pbtxt": LABEL_MAP}


def _narrow(value: Any) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 3e38
    return float(value) if is_number else float("nan")


WRITERS: Mapping[str, Callable[[Sequence[Photo]], Files]] = {
    "COCO": coco,
    "CVAT for images": cvat_images,
    "CVAT for video": cvat_video,
    "Ultralytics YOLO": ultralytics,
    "Pascal VOC": pascal_voc,
    "Datumaro": datumaro,
    "YOLO": yolo,
    "LabelMe": labelme,
    "KITTI": kitti,
    "MOT": mot,
    "Supervisely": supervisely,
    "Open Images": open_images,
    "TFRecord": tfrecord,
}
"""Name of a format → the files of an export in it."""
JSON, XML = ("COCO", "Datumaro"), ("CVAT for images", "CVAT for video", "Pascal VOC")


def annotation_files(files: Files) -> list[str]:
    """The paths of the files that hold boxes."""
    return [
        name
        for name in files
        if name.endswith((".json", ".xml", ".txt", ".csv", ".tfrecord", ".pbtxt")) and name != "labelmap.txt"
    ]
