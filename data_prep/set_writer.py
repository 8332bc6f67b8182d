"""Write a prepared set to a store: annotations and shards, then the report, and the manifest last.

All files depend only on the set's content, so two writers of the same set write the same bytes. A writer that
is killed leaves no manifest, and without a manifest the set does not exist.
"""

import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

import msgspec

from data_prep.correct_boxes import Box
from data_prep.dataset import Dataset, SetImage
from data_prep.errors import SourceError
from data_prep.findings import find_warnings
from data_prep.image_check import map_in_threads
from data_prep.shared_work import Share, SharedWork
from object_store import AlreadyExists, ObjectStore, Progress
from prepared_set.errors import SetError
from prepared_set.manifest import (
    FORMAT_VERSION,
    MANIFEST_KEY,
    REPORT_KEY,
    SPLITS,
    FileRecord,
    Manifest,
    Member,
    Options,
    Shard,
    encode_manifest,
    set_prefix,
)
from prepared_set.reader import PreparedSet
from run_config import set_warnings

_BLOCK = tarfile.BLOCKSIZE


def set_id(dataset: Dataset, options: Options) -> str:
    """The set's id: a digest of the format version, options, classes, and the sorted digests of all images."""
    digest = sha256()
    digest.update(msgspec.json.encode([FORMAT_VERSION, options, [one.name for one in dataset.classes]]))
    for image in sorted(dataset.images, key=lambda image: (image.split, image.digest)):
        digest.update(f"\n{image.split} {image.digest}".encode())
    return digest.hexdigest()[:16]


def describe(dataset: Dataset, options: Options) -> Manifest:
    """The manifest without the list of files."""
    return Manifest(
        format_version=FORMAT_VERSION,
        id=set_id(dataset, options),
        options=options,
        classes=dataset.classes,
        split_method=dataset.split_method,
        counts=dataset.counts(),
        annotations={},
        shards=(),
        changes=dataset.changes.entries(),
        warnings=find_warnings(dataset),
    )


def write_set(
    store: ObjectStore,
    dataset: Dataset,
    options: Options,
    draw_report: Callable[[Manifest], bytes],
    scratch: Path,
    progress: Progress | None = None,
    work: SharedWork | None = None,
) -> Manifest:
    """Write all files of the set; `store` is the root that holds `datasets/`. Returns the manifest.

    `scratch` holds one shard at a time. `progress` is called with the bytes of images just stored. `work`: the shards
    that pods have written.
    """
    description = describe(dataset, options)
    folder = store.child(set_prefix(description.id))
    annotations: dict[str, FileRecord] = {}
    for split in SPLITS:
        data = _annotations(dataset, split)
        key = f"annotations/{split}.json"
        folder.put_bytes(key, data)
        annotations[split] = FileRecord(key, len(data), sha256(data).hexdigest())
    shards = list(_write_shards(folder, dataset, description.id, options, scratch, progress, work))
    manifest = msgspec.structs.replace(description, annotations=annotations, shards=tuple(shards))
    folder.put_bytes(REPORT_KEY, draw_report(manifest))
    folder.put_bytes(set_warnings.KEY, set_warnings.encode(manifest.warnings))
    _put_manifest(store, folder, manifest)
    return manifest


def write_shards_of(
    store: ObjectStore,
    dataset: Dataset,
    options: Options,
    scratch: Path,
    progress: Progress,
    work: SharedWork,
    share: Share,
) -> None:
    """Write one pod's share of the set's shards."""
    own_id = set_id(dataset, options)
    folder = store.child(set_prefix(own_id))
    for _ in _write_shards(folder, dataset, own_id, options, scratch, progress, work, share):
        pass


def _write_shards(
    folder: ObjectStore,
    dataset: Dataset,
    own_id: str,
    options: Options,
    scratch: Path,
    progress: Progress | None,
    work: SharedWork | None,
    share: Share | None = None,
) -> Iterator[Shard]:
    """Write the shards that are not in `work`, all or those of a share."""
    for number, (split, images) in enumerate(_fill_shards(dataset, options.shard_bytes)):
        if share is not None and not share.has(number):
            continue
        key, size_bytes = f"images/shard-{number:05}.tar", sum(image.source.checked.size_bytes for image in images)
        members = tuple(Member(image.file_name, 0, image.source.checked.size_bytes) for image in images)
        shard = None if work is None else work.shard(folder, Shard(key, split, 0, "", members), own_id)
        if shard is None:
            shard = _write_shard(folder, key, split, images, scratch)
            if work is not None:
                work.keep_shard(shard, own_id)
        if progress is not None:
            progress(size_bytes)
        yield shard


def add_warnings(store: ObjectStore, manifest: Manifest) -> None:
    """Write `warnings.json` of a set that an earlier release has made without it."""
    folder = store.child(set_prefix(manifest.id))
    if not folder.exists(set_warnings.KEY):
        folder.put_bytes(set_warnings.KEY, set_warnings.encode(manifest.warnings))


def _put_manifest(store: ObjectStore, folder: ObjectStore, manifest: Manifest) -> None:
    """Write the manifest, which makes the set exist. If another writer was faster, keep its manifest: it is the
    same.
    """
    data = encode_manifest(manifest)
    try:
        folder.put_bytes(MANIFEST_KEY, data, if_absent=True)
    except AlreadyExists:
        try:
            PreparedSet.open(store, manifest.id)
        except SetError:  # the existing manifest is damaged: replace it
            folder.put_bytes(MANIFEST_KEY, data)


def _annotations(dataset: Dataset, split: str) -> bytes:
    """COCO JSON of one split. Image and annotation ids run through all splits, in order."""
    label = {one.name: index for index, one in enumerate(dataset.classes)}
    images: list[dict[str, object]] = []
    annotations: list[dict[str, object]] = []
    annotation_id = 0
    for image_id, image in enumerate(dataset.images, start=1):
        if image.split != split:
            annotation_id += len(image.boxes)
            continue
        images.append({"id": image_id, "file_name": image.file_name, "width": image.width, "height": image.height})
        for box in image.boxes:
            annotation_id += 1
            annotations.append(coco_annotation(annotation_id, image_id, label[box.class_name], box))
    categories = [{"id": index, "name": name, "supercategory": ""} for name, index in label.items()]
    return msgspec.json.encode({"categories": categories, "images": images, "annotations": annotations})


def coco_annotation(annotation_id: int, image_id: int, category_id: int, box: Box) -> dict[str, object]:
    """The box as an entry of `annotations` in a COCO file."""
    return {
        "id": annotation_id,
        "image_id": image_id,
        "category_id": category_id,
        "bbox": box.bbox,
        "area": box.area,
        "iscrowd": 0,
        "segmentation": box.segmentation,
        "attributes": box.attributes,
    }


def _fill_shards(dataset: Dataset, shard_bytes: int) -> Iterator[tuple[str, list[SetImage]]]:
    """Group consecutive images into shards, as many as fit; a shard never holds two splits."""
    for split in SPLITS:
        batch: list[SetImage] = []
        size_bytes = 0
        for image in dataset.split(split):
            if batch and size_bytes + image.source.checked.size_bytes > shard_bytes:
                yield split, batch
                batch, size_bytes = [], 0
            batch.append(image)
            size_bytes += image.source.checked.size_bytes
        if batch:
            yield split, batch


def _write_shard(folder: ObjectStore, key: str, split: str, images: list[SetImage], scratch: Path) -> Shard:
    with tempfile.TemporaryDirectory(dir=scratch) as temporary:
        path = Path(temporary, "shard.tar")
        with path.open("wb") as tar:
            writer = _HashingWriter(tar)
            members = tuple(_write_members(writer, images))
            writer.write(bytes(2 * _BLOCK))
        folder.put_file(path, key)
    return Shard(key, split, writer.position, writer.sha256.hexdigest(), members)


def _write_members(tar: "_HashingWriter", images: list[SetImage]) -> Iterator[Member]:
    """Write a plain POSIX tar whose headers hold only names and sizes."""
    for image, data in zip(images, _read_ahead(images), strict=True):
        header = tarfile.TarInfo(image.file_name)
        header.size = len(data)
        tar.write(header.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict"))
        yield Member(image.file_name, tar.position, len(data))
        tar.write(data)
        tar.write(bytes(-len(data) % _BLOCK))


def _read_ahead(images: Iterable[SetImage]) -> Iterator[bytes]:
    return map_in_threads(_read_unchanged, images, size_bytes=lambda image: image.source.checked.size_bytes)


def _read_unchanged(image: SetImage) -> bytes:
    data = image.source.read()
    if sha256(data).hexdigest() != image.source.checked.sha256:
        raise SourceError(
            f"{image.source.file_name!r} changed while it was being prepared: wait until the export is complete "
            "and run the command again"
        )
    return data


class _HashingWriter:
    """Counts and hashes the bytes of a shard while they are written, so that it is not read again."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.sha256 = sha256()
        self.position = 0

    def write(self, data: bytes) -> None:
        self._file.write(data)
        self.sha256.update(data)
        self.position += len(data)
