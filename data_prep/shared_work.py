"""The work of one `prepare` that several pods share through the store.

    datasets/in-progress/<hash of the request>/images/000012-<digest>      the checks of a block of images
                                               shards/<set id>-00003       the record of a shard in the set's folder

Who finds an object of this kind takes it, and does the work itself otherwise. So a killed pod costs only the block or
shard that it was working on, and two pods on one share leave the same bytes. `prepare` deletes the folder at its end.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from typing import TypeVar

import msgspec

from data_prep.errors import DataPrepError
from data_prep.image_check import CheckedImage
from object_store import AccessDenied, NoSuchKey, ObjectStore
from prepared_set.errors import ImageError
from prepared_set.manifest import Shard

BLOCK_IMAGES = 100
_READERS = 16
_DIGEST_CHARACTERS = 64

Checks = list[CheckedImage | ImageError]
_Record = TypeVar("_Record")


class Stage(StrEnum):
    """What is shared: the checks of the images, and then the shards, for which all checks must be known."""

    IMAGES = "images"
    SHARDS = "shards"


@dataclass(frozen=True, slots=True)
class Share:
    """The share of one of `pods` pods in a stage."""

    stage: Stage
    pod: int
    pods: int

    def has(self, number: int) -> bool:
        """Whether the block or shard with this number belongs to the share."""
        return number % self.pods == self.pod


def read_share(text: str, pods: int) -> Share:
    """The share that `--share` names, such as `images:0`. Raises DataPrepError when there is none."""
    stage, _, pod = text.partition(":")
    if stage not in list(Stage) or not (pod.isascii() and pod.isdigit()) or int(pod) >= pods:
        raise DataPrepError(
            f"--share {text!r} is not allowed; use images:0 to images:{pods - 1}, or shards:0 to shards:{pods - 1}"
        )
    return Share(Stage(stage), int(pod), pods)


class SharedWork:
    """What the pods of one request have done so far. Read the exports of the request in the same order everywhere."""

    def __init__(self, store: ObjectStore, request_key: str) -> None:
        self._store = store
        self._folder = f"datasets/in-progress/{request_key}"
        self._blocks = 0
        """Blocks of the exports that were read before."""

    def checks(self, paths: Sequence[str], check: Callable[[slice], Checks], done: Callable[[int], None]) -> Checks:
        """The checks of all images of an export. `check` does those that are missing; `done` gets counts of images."""
        blocks = list(self._blocks_of(paths))
        with ThreadPoolExecutor(_READERS) as readers:
            known = list(readers.map(lambda block: self._read_checks(*block[1:]), blocks))
        results: Checks = []
        for (_, key, part), found in zip(blocks, known, strict=True):
            if found is not None:
                done(len(found))
            results += found or self._check(key, part, check)
        return results

    def check_share(self, paths: Sequence[str], share: Share, check: Callable[[slice], Checks]) -> None:
        """Check the blocks of a share that nobody has checked."""
        for number, key, part in self._blocks_of(paths):
            if share.has(number) and self._read_checks(key, part) is None:
                self._check(key, part, check)

    def shard(self, folder: ObjectStore, wanted: Shard, set_id: str) -> Shard | None:
        """The shard, if a pod has written it to `folder`. `wanted`: without offsets and digest."""
        found = self._read(self._shard_key(wanted.key, set_id), Shard)
        if found is None or _contents(found) != _contents(wanted):
            return None
        with suppress(NoSuchKey):
            if folder.head(found.key).size_bytes == found.size_bytes:
                return found
        return None

    def keep_shard(self, shard: Shard, set_id: str) -> None:
        """Note that a shard was written."""
        self._write(self._shard_key(shard.key, set_id), shard)

    def discard(self) -> None:
        """Delete everything, if the store permits it: nothing needs it once the set exists."""
        with suppress(AccessDenied):
            self._store.delete_prefix(self._folder)

    def _blocks_of(self, paths: Sequence[str]) -> Iterator[tuple[int, str, slice]]:
        """Number, key and images of each block of an export."""
        for start in range(0, len(paths), BLOCK_IMAGES):
            part = slice(start, min(start + BLOCK_IMAGES, len(paths)))
            digest = sha256(msgspec.json.encode(paths[part])).hexdigest()[:16]
            yield self._blocks, f"{Stage.IMAGES}/{self._blocks:06}-{digest}", part
            self._blocks += 1

    def _check(self, key: str, part: slice, check: Callable[[slice], Checks]) -> Checks:
        results = check(part)
        self._write(key, [str(one) if isinstance(one, ImageError) else one for one in results])
        return results

    def _read_checks(self, key: str, part: slice) -> Checks | None:
        found = self._read(key, list[CheckedImage | str])
        if found is None or len(found) != part.stop - part.start:
            return None
        return [ImageError(one) if isinstance(one, str) else one for one in found]

    def _shard_key(self, key: str, set_id: str) -> str:
        return f"{Stage.SHARDS}/{set_id}-{key.removeprefix('images/')}"

    def _write(self, key: str, record: object) -> None:
        data = msgspec.json.encode(record)
        self._store.put_bytes(f"{self._folder}/{key}", sha256(data).hexdigest().encode() + data)

    def _read(self, key: str, kind: type[_Record]) -> _Record | None:
        """A record. None: there is none, or it is damaged."""
        try:
            found = self._store.get_bytes(f"{self._folder}/{key}")
        except NoSuchKey:
            return None
        digest, data = found[:_DIGEST_CHARACTERS], found[_DIGEST_CHARACTERS:]
        if sha256(data).hexdigest().encode() != digest:
            return None
        with suppress(msgspec.DecodeError):
            return msgspec.json.decode(data, type=kind)
        return None


def _contents(shard: Shard) -> tuple[object, ...]:
    return shard.key, shard.split, [(one.file_name, one.size_bytes) for one in shard.images]
