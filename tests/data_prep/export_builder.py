"""CVAT exports made by code: like the real ones, and wrong in whichever way a test needs."""

import io
import json
import struct
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

FORMATS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".bmp": "BMP", ".webp": "WEBP", ".tif": "TIFF"}

ClassBox = tuple[str, float, float, float, float]


def picture(name: str, size: tuple[int, int] = (64, 48), orientation: int = 1, content: str = "") -> bytes:
    """A small picture that looks like no other: its pixels follow from `content`, or from the name."""
    seed = int.from_bytes(sha256((content or name).encode()).digest()[:8], "big")
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    image = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
    return encode(image, Path(name).suffix.lower() or ".png", orientation)


def encode(image: Image.Image, suffix: str = ".png", orientation: int = 1) -> bytes:
    """The image as a file, with an EXIF orientation where it is not 1."""
    file = io.BytesIO()
    options: dict[str, Any] = {}
    if orientation != 1:
        exif = Image.Exif()
        exif[0x0112] = orientation
        options["exif"] = exif
    image.save(file, FORMATS[suffix], **options)
    return file.getvalue()


def exif_block(orientation: int, *more: tuple[int, int, int, bytes]) -> bytes:
    """A little-endian EXIF block with an orientation and more tags: (tag, type, count, four bytes), right or wrong."""
    entries = sorted([(0x0112, 3, 1, struct.pack("<HH", orientation, 0)), *more])
    body = b"".join(struct.pack("<HHI", tag, kind, count) + value for tag, kind, count, value in entries)
    return b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + body + bytes(4) + bytes(range(1, 100))


def with_app1(jpeg: bytes, payload: bytes) -> bytes:
    """The JPEG with one more APP1 segment, which holds EXIF or XMP, right after its start."""
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(payload) + 2) + payload + jpeg[2:]


def png_claiming(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header claims any size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@dataclass
class Export:
    """One annotation file and its images; `coco` and `pictures` are open to any mischief."""

    classes: Sequence[str] = ("cat", "dog")
    subset: str = "default"
    flat: bool = False
    """The layout before CVAT 2.16.1: no folder per subset."""
    coco: dict[str, Any] = field(default_factory=dict)
    pictures: dict[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.coco = {
            "licenses": [{"name": "", "id": 0, "url": ""}],
            "info": {"contributor": "", "date_created": "", "description": "", "url": "", "version": "", "year": ""},
            "categories": [{"id": i, "name": n, "supercategory": ""} for i, n in enumerate(self.classes, start=1)],
            "images": [],
            "annotations": [],
        }

    def add(
        self,
        name: str,
        boxes: Sequence[ClassBox] = (),
        size: tuple[int, int] = (64, 48),
        *,
        data: bytes | None = None,
        orientation: int = 1,
        attributes: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """An image with its boxes (class, x, y, width, height); returns its entry in the annotation file."""
        listed = {"id": len(self.coco["images"]) + 1, "width": size[0], "height": size[1], "file_name": name}
        self.coco["images"].append(listed)
        self.pictures[name] = picture(name, size, orientation) if data is None else data
        for box in boxes:
            self.annotate(listed, box, attributes=attributes)
        return listed

    def annotate(
        self, image: dict[str, Any], box: ClassBox, *, attributes: dict[str, Any] | None = None, **more: Any
    ) -> dict[str, Any]:
        """One more annotation, with any key as the test wants it; returns its entry."""
        class_name, x, y, width, height = box
        annotation = {
            "id": len(self.coco["annotations"]) + 1,
            "image_id": image["id"],
            "category_id": list(self.classes).index(class_name) + 1,
            "segmentation": [],
            "area": width * height,
            "bbox": [x, y, width, height],
            "iscrowd": 0,
            "attributes": {"occluded": False, **(attributes or {})},
            **more,
        }
        self.coco["annotations"].append(annotation)
        return annotation

    def files(self) -> dict[str, bytes]:
        """Path in the export → content."""
        folder = "images" if self.flat else f"images/{self.subset}"
        files = {f"annotations/instances_{self.subset}.json": json.dumps(self.coco).encode()}
        return files | {f"{folder}/{name}": data for name, data in self.pictures.items()}


def simple_export(count: int = 12, classes: Sequence[str] = ("cat", "dog"), prefix: str = "", **more: Any) -> Export:
    """An export of some images in good order: each third shows both classes, each fifth shows nothing."""
    export = Export(classes, **more)
    for number in range(count):
        boxes: list[ClassBox] = [(classes[number % len(classes)], 4, 4 + number % 8, 20, 24)]
        if number % 3 == 0:
            boxes.append((classes[-1 - number % len(classes)], 30, 10, 22, 18))
        export.add(f"{prefix}{number:03}.png", [] if number % 5 == 4 else boxes)
    return export


def write_zip(path: Path, *exports: Export, **more_files: bytes) -> Path:
    """The exports in one zip, stored as CVAT does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for export in exports:
            for name, data in export.files().items():
                archive.writestr(name, data)
        for name, data in more_files.items():
            archive.writestr(name, data)
    return path


def write_folder(folder: Path, *exports: Export) -> Path:
    """The exports unpacked."""
    for export in exports:
        for name, data in export.files().items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    return folder
