"""`data-prep make-sample`: draw an export like CVAT's (COCO), for a first run without data.

Writes two zips, laid out as CVAT writes them: one for training, one for testing. The same options give the
same bytes with the same versions of numpy and Pillow. Complete files are not drawn again.
"""

import hashlib
import io
import json
import os
import secrets
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from data_prep.errors import DataPrepError
from data_prep.sample.parts import SHAPES
from data_prep.sample.scene import IMAGE_HEIGHT, IMAGE_WIDTH, LabelledPart, draw_scene

TEST_SHARE = 0.2
JPEG_QUALITY = 88
DEFAULT_IMAGES = 400
TRAINVAL_NAME, TEST_NAME = "sample_trainval.zip", "sample_test.zip"
PARTIAL_SUFFIX = ".partial"
ABANDONED_AFTER_S = 3600
ZIP_TIME = (2026, 1, 1, 0, 0, 0)

Progress = Callable[[int], None]


class SampleError(DataPrepError):
    """The sample cannot be written; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class SampleFiles:
    """The two exports, and whether both already existed."""

    trainval: Path
    test: Path
    reused: bool


@dataclass(frozen=True, slots=True)
class _Half:
    """One of the two exports. `first` numbers its first picture; `stream` gives each export its own random numbers."""

    file_name: str
    stream: int
    first: int
    images: int
    seed: int

    def stamp(self) -> dict[str, object]:
        return {
            "made by": "data-prep make-sample",
            "generator": generator_version(),
            "seed": self.seed,
            "stream": self.stream,
            "first": self.first,
            "images": self.images,
        }


def generator_version() -> str:
    """Digest of the drawing code: a sample made by any other code is drawn again."""
    digest = hashlib.sha256()
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


def make_sample(
    folder: Path, *, images: int = DEFAULT_IMAGES, seed: int = 0, progress: Progress | None = None
) -> SampleFiles:
    """Write both exports into `folder`; a fifth of the `images` becomes the test export. Reuse complete files.

    `progress` is called with the number of pictures just drawn. Files are written atomically. Raises
    SampleError when there are too few images to split or the folder cannot be written.
    """
    if images < 2:
        raise SampleError(f"--images is {images}: at least 2 are needed, one for training and one for testing")
    if seed < 0:
        raise SampleError(f"--seed is {seed}: it must be 0 or more")
    held_back = min(max(1, round(images * TEST_SHARE)), images - 1)
    trainval = _Half(TRAINVAL_NAME, 0, 1, images - held_back, seed)
    test = _Half(TEST_NAME, 1, images - held_back + 1, held_back, seed)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(folder)
        reused = [_is_whole(folder / half.file_name, half) for half in (trainval, test)]
        for half, is_there in zip((trainval, test), reused, strict=True):
            if not is_there:
                _write_atomically(folder / half.file_name, _export(half, progress))
    except OSError as error:
        raise SampleError(f"cannot write the sample to {folder}: {error.strerror or error}") from error
    return SampleFiles(folder / TRAINVAL_NAME, folder / TEST_NAME, all(reused))


def _export(half: _Half, progress: Progress | None) -> bytes:
    """The zip of one export as bytes, about ten megabytes for four hundred pictures."""
    buffer = io.BytesIO()
    pictures: list[tuple[str, bytes]] = []
    labelled: list[tuple[LabelledPart, ...]] = []
    for name, picture, parts in _draw(half):
        pictures.append((name, picture))
        labelled.append(parts)
        if progress is not None:
            progress(1)
    document = json.dumps(_coco([name for name, _ in pictures], labelled)).encode()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for folder in ("annotations/", "images/", "images/default/"):
            archive.writestr(_entry(folder), b"")
        for name, picture in pictures:
            archive.writestr(_entry(f"images/default/{name}"), picture)
        archive.writestr(_entry("annotations/instances_default.json"), document)
        archive.comment = _comment(half, archive)
    return buffer.getvalue()


def _draw(half: _Half) -> Iterator[tuple[str, bytes, tuple[LabelledPart, ...]]]:
    """File name, JPEG and labels of every picture. Each picture has its own random stream, whatever the count."""
    for index in range(half.images):
        scene = draw_scene(np.random.default_rng([half.seed, half.stream, index]))
        jpeg = io.BytesIO()
        Image.fromarray(scene.pixels).save(jpeg, "JPEG", quality=JPEG_QUALITY)
        yield f"parts_{half.first + index:05d}.jpg", jpeg.getvalue(), scene.parts


def _coco(names: list[str], labelled: list[tuple[LabelledPart, ...]]) -> dict[str, object]:
    """The annotation file, with the fields, empty values and numbering of CVAT's exporter."""
    labels = list(SHAPES)
    annotations: list[dict[str, object]] = []
    for image_id, parts in enumerate(labelled, start=1):
        for part in parts:
            left, top, right, bottom = part.box
            width, height = round(right - left, 2), round(bottom - top, 2)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": 1 + labels.index(part.label),
                    "segmentation": [],
                    "area": round(width * height, 4),
                    "bbox": [round(left, 2), round(top, 2), width, height],
                    "iscrowd": 0,
                    "attributes": {"occluded": part.occluded, "rotation": 0.0},
                }
            )
    blank_info = ("contributor", "date_created", "description", "url", "version", "year")
    return {
        "licenses": [{"name": "", "id": 0, "url": ""}],
        "info": dict.fromkeys(blank_info, ""),
        "categories": [
            {"id": number, "name": label, "supercategory": ""} for number, label in enumerate(labels, start=1)
        ],
        "images": [
            {
                "id": image_id,
                "width": IMAGE_WIDTH,
                "height": IMAGE_HEIGHT,
                "file_name": name,
                "license": 0,
                "flickr_url": "",
                "coco_url": "",
                "date_captured": 0,
            }
            for image_id, name in enumerate(names, start=1)
        ],
        "annotations": annotations,
    }


def _entry(name: str) -> zipfile.ZipInfo:
    """An uncompressed entry without metadata of this machine."""
    entry = zipfile.ZipInfo(name, ZIP_TIME)
    entry.create_system = 3
    entry.external_attr = (0o40755 << 16) | 0x10 if name.endswith("/") else 0o100644 << 16
    return entry


def _comment(half: _Half, archive: zipfile.ZipFile) -> bytes:
    """The zip's comment, which CVAT ignores: the options, and a digest of the zip's directory."""
    directory = [[entry.filename, entry.file_size, entry.CRC] for entry in archive.infolist()]
    digest = hashlib.sha256(json.dumps(directory).encode()).hexdigest()
    return json.dumps({**half.stamp(), "directory sha256": digest}).encode()


def _is_whole(path: Path, half: _Half) -> bool:
    """Whether `path` was made by this code with these options, and every entry has its checksum."""
    if not path.is_file():
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.comment == _comment(half, archive) and archive.testzip() is None
    except zipfile.BadZipFile:
        return False


def _write_atomically(path: Path, data: bytes) -> None:
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}{PARTIAL_SUFFIX}")
    try:
        with partial.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _remove_abandoned(folder: Path) -> None:
    """Remove partial files of killed runs. A younger file may belong to another running process."""
    for partial in folder.glob(f".sample_*{PARTIAL_SUFFIX}"):
        try:
            if time.time() - partial.stat().st_mtime > ABANDONED_AFTER_S:
                partial.unlink()
        except FileNotFoundError:
            continue
