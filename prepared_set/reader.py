"""Read a prepared set: download it from the store, then read images from its shards and boxes from its JSON.

A set is written once (`data_prep.set_writer`) and never changed.
"""

import json
import os
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from hashlib import file_digest
from pathlib import Path
from typing import Any, overload
from urllib.parse import unquote, urlsplit

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from object_store import NoSuchKey, ObjectStore, Progress
from prepared_set.decoding import decoded_image
from prepared_set.errors import ImageError, SetError
from prepared_set.manifest import (
    MANIFEST_KEY,
    MAX_MANIFEST_BYTES,
    SPLITS,
    FileRecord,
    Manifest,
    Member,
    decode_manifest,
    set_prefix,
)
from run_config.json_text import load_json

HASHING_THREADS = 4


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One image and its annotations. `boxes` are xyxy in pixels, after the orientation is applied."""

    image_id: int
    file_name: str
    width: int
    height: int
    boxes: NDArray[np.float32]
    """(n, 4)"""
    labels: NDArray[np.int64]
    """(n,), class labels from 0"""
    annotation_ids: NDArray[np.int64]
    """(n,), ids in the set's annotation file"""


class _CocoImage(msgspec.Struct):
    id: int
    file_name: str
    width: int
    height: int


class _CocoBox(msgspec.Struct):
    id: int
    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]


class _Coco(msgspec.Struct):
    images: list[_CocoImage]
    annotations: list[_CocoBox]


class ImageRecords(Sequence[ImageRecord]):
    """The records of a split in a few flat arrays, which worker processes can share or copy cheaply."""

    def __init__(self, coco: _Coco) -> None:
        order = {image.id: index for index, image in enumerate(coco.images)}
        boxes = sorted(coco.annotations, key=lambda box: (order[box.image_id], box.id))
        owners = np.array([order[box.image_id] for box in boxes], np.int64)
        self.file_names = [image.file_name for image in coco.images]
        self._images = np.array([(i.id, i.width, i.height) for i in coco.images], np.int64).reshape(-1, 3)
        self._starts = np.searchsorted(owners, np.arange(len(coco.images) + 1))
        xywh = np.array([box.bbox for box in boxes], np.float64).reshape(-1, 4)
        self._boxes = np.hstack([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]]).astype(np.float32)
        self._labels = np.array([box.category_id for box in boxes], np.int64)
        self._ids = np.array([box.id for box in boxes], np.int64)

    def __len__(self) -> int:
        return len(self.file_names)

    @overload
    def __getitem__(self, index: int) -> ImageRecord: ...
    @overload
    def __getitem__(self, index: slice) -> list[ImageRecord]: ...
    def __getitem__(self, index: int | slice) -> ImageRecord | list[ImageRecord]:
        if isinstance(index, slice):
            return [self._record(i) for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return self._record(index % len(self))

    def __iter__(self) -> Iterator[ImageRecord]:
        return map(self._record, range(len(self)))

    def _record(self, index: int) -> ImageRecord:
        image_id, width, height = self._images[index].tolist()
        own = slice(int(self._starts[index]), int(self._starts[index + 1]))
        return ImageRecord(
            image_id,
            self.file_names[index],
            width,
            height,
            self._boxes[own],
            self._labels[own],
            self._ids[own],
        )


class Split:
    """One split on local disk. Picklable; each process opens the shards itself."""

    def __init__(self, name: str, set_id: str, root: Path, manifest: Manifest) -> None:
        self.name = name
        self.set_id = set_id
        self.annotations_path = root / manifest.annotations[name].key
        self.images: Sequence[ImageRecord] = self._read_annotations()
        shards = [shard for shard in manifest.shards if shard.split == name]
        self._shard_paths = [root / shard.key for shard in shards]
        places = {m.file_name: (s, m) for s, shard in enumerate(shards) for m in shard.images}
        self._places: list[tuple[int, int, int]] = [self._place(places, record.file_name) for record in self.images]
        self._open_files()

    def __len__(self) -> int:
        return len(self.images)

    def read(self, index: int) -> bytes:
        """The bytes of the image file, exactly as they were in the export."""
        shard, offset, size_bytes = self._places[index]
        data = os.pread(self._descriptor(shard), size_bytes, offset)
        if len(data) != size_bytes:
            raise SetError(
                f"{self._shard_paths[shard]} is too short: image {self.images[index].file_name!r} of split "
                f"{self.name} of the prepared set {self.set_id} cannot be read; delete it and pull again"
            )
        return data

    def decode(self, index: int) -> Image.Image:
        """The picture as `decode_image` returns it. Raises ImageError that names set, split and image."""
        with self.decoded(index) as image:
            return image

    @contextmanager
    def decoded(self, index: int) -> Iterator[Image.Image]:
        """Like `decode`, but its memory stays reserved until the block ends; see `decoded_image`."""
        with ExitStack() as held:
            try:
                image, _ = held.enter_context(decoded_image(self.read(index)))
            except ImageError as error:
                raise ImageError(
                    f"image {self.images[index].file_name!r} of split {self.name} of the prepared set "
                    f"{self.set_id}: {error}"
                ) from error
            yield image

    def _read_annotations(self) -> ImageRecords:
        try:
            return ImageRecords(msgspec.json.decode(self.annotations_path.read_bytes(), type=_Coco))
        except (ValueError, KeyError, RecursionError) as error:
            raise SetError(f"{self.annotations_path} is damaged ({error}): pull the set again") from error

    def _place(self, places: dict[str, tuple[int, Member]], file_name: str) -> tuple[int, int, int]:
        if file_name not in places:
            raise SetError(
                f"image {file_name!r} of split {self.name} is in no shard of the prepared set "
                f"{self.set_id}: the set is damaged, prepare it again"
            )
        shard, member = places[file_name]
        return shard, member.offset, member.size_bytes

    def _open_files(self) -> None:
        self._descriptors: dict[int, int] = {}
        # Reads give their own offset, so a forked process may share the descriptors; they close with the object.
        weakref.finalize(self, _close_all, self._descriptors)

    def _descriptor(self, shard: int) -> int:
        descriptor = self._descriptors.get(shard)
        if descriptor is None:
            opened = os.open(self._shard_paths[shard], os.O_RDONLY | os.O_CLOEXEC)
            # There is no lock, because a fork could copy a held lock. If two threads open the file at the same time,
            # one of them closes its descriptor again.
            descriptor = self._descriptors.setdefault(shard, opened)
            if descriptor != opened:
                os.close(opened)
        return descriptor

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key != "_descriptors"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._open_files()


def _close_all(descriptors: dict[int, int]) -> None:
    for descriptor in descriptors.values():
        os.close(descriptor)
    descriptors.clear()


class LocalSet:
    """A set whose verified files are on local disk."""

    def __init__(self, manifest: Manifest, root: Path, splits: Sequence[str]) -> None:
        self.id = manifest.id
        self.manifest = manifest
        self.class_names = manifest.class_names
        self.root = root
        self._splits = tuple(splits)

    def split(self, name: str) -> Split:
        """A split that was pulled. It has no images when the set has none in this split."""
        if name not in self._splits:
            raise SetError(f"split {name!r} of the prepared set {self.id} was not pulled: only {self._splits}")
        return Split(name, self.id, self.root, self.manifest)


class PreparedSet:
    """A complete set in a store."""

    def __init__(self, store: ObjectStore, manifest: Manifest) -> None:
        """`store` is rooted at the set's own folder. Use `open` instead."""
        self._store = store
        self.id = manifest.id
        self.manifest = manifest
        self.class_names = manifest.class_names

    @classmethod
    def open(cls, store: ObjectStore, set_id: str) -> "PreparedSet":
        """Open the set with this id. Raises SetError when it is missing, unfinished or of a newer format."""
        folder = store.child(set_prefix(set_id))
        try:
            content = folder.get_bytes(MANIFEST_KEY, end=MAX_MANIFEST_BYTES + 1)
        except NoSuchKey as error:
            raise SetError(
                f"there is no prepared set {set_id} in {store.url} (no {MANIFEST_KEY} in its folder): check "
                "the id and the store, or run `data-prep prepare` again"
            ) from error
        if len(content) > MAX_MANIFEST_BYTES:
            raise SetError(f"the manifest of the prepared set {folder.url} is too large to be valid; prepare it again")
        return cls(folder, decode_manifest(content, folder.url))

    def pull(self, folder: Path, splits: Sequence[str] = SPLITS, *, progress: Progress | None = None) -> LocalSet:
        """Download annotations and shards of the splits to `folder/<id>/`, and verify their sha256.

        Verified files are not downloaded again. A `file://` store is read in place: only the note of verified
        files is written. `progress` is called with the bytes just downloaded or found.
        """
        unknown = [name for name in splits if name not in SPLITS]
        if unknown:
            raise SetError(f"there is no split {unknown[0]!r}: the splits are {', '.join(SPLITS)}")
        notes = folder / self.id
        notes.mkdir(parents=True, exist_ok=True)
        in_place = _local_path(self._store.url)
        root = in_place or notes
        verified = _Verified(notes / "verified.json")
        missing: list[FileRecord] = []
        for file in self.manifest.files(tuple(splits)):
            if not verified.holds(root / file.key, file):
                missing.append(file)
            elif progress is not None:
                progress(file.size_bytes)
        if in_place is None:
            self._store.get_many([file.key for file in missing], root, progress=progress)
        with ThreadPoolExecutor(HASHING_THREADS) as pool:
            sound = pool.map(lambda file: _is_intact(root / file.key, file), missing)
            for file, is_sound in zip(missing, sound, strict=True):
                if not is_sound:
                    raise SetError(
                        f"{file.key} of the prepared set {self.id} in {self._store.url} is damaged: its content is "
                        "not what the manifest says; delete the set's folder from the store and prepare it again"
                    )
                verified.add(root / file.key, file)
        return LocalSet(self.manifest, root, splits)


class _Verified:
    """Remembers which local files had the right hash, so that a large set is not hashed at every start."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, list[Any]] = {}
        try:
            known = load_json(path.read_bytes())
        except (OSError, ValueError):
            return  # a lost or damaged note only costs another hash
        if isinstance(known, dict):
            self._known = known

    def holds(self, path: Path, file: FileRecord) -> bool:
        """Whether the file exists and is right; hashes it if that is not known yet."""
        if self._known.get(file.key) == self._entry(path, file):
            return True
        if not _is_intact(path, file):
            return False
        self.add(path, file)
        return True

    def add(self, path: Path, file: FileRecord) -> None:
        """Remember that the file is right."""
        self._known[file.key] = self._entry(path, file)
        with tempfile.NamedTemporaryFile("w", dir=self._path.parent, prefix=".verified-", delete=False) as note:
            json.dump(self._known, note)
        Path(note.name).replace(self._path)

    @staticmethod
    def _entry(path: Path, file: FileRecord) -> list[Any]:
        try:
            status = path.stat()
        except OSError:
            return []
        return [str(path), status.st_size, status.st_mtime_ns, file.sha256]


def _is_intact(path: Path, file: FileRecord) -> bool:
    try:
        if path.stat().st_size != file.size_bytes:
            return False
        with path.open("rb") as opened:
            return file_digest(opened, "sha256").hexdigest() == file.sha256
    except FileNotFoundError:
        return False


def _local_path(url: str) -> Path | None:
    parts = urlsplit(url)
    return Path(unquote(parts.path)) if parts.scheme == "file" else None
