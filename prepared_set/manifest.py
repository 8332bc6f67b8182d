"""The manifest of a prepared set: what the set holds, where each image lies, and what was changed.

It is written last; without it the set does not exist. Sizes are bytes, offsets are positions inside the
shard's file, keys are relative to the set's folder `datasets/<id>/` in the store.
"""

import re

import msgspec

from prepared_set.errors import SetError
from run_config.json_text import check_json

FORMAT_VERSION = 1
SPLITS = ("train", "val", "test")
MANIFEST_KEY = "manifest.json"
MAX_MANIFEST_BYTES = 1 << 30
"""An image takes about 80 bytes of the manifest."""
REPORT_KEY = "report.html"

_SET_ID = re.compile(r"[0-9a-f]{16}")


class ClassName(msgspec.Struct, frozen=True):
    """One class. Its id in the set is its index in the manifest's list."""

    name: str
    source_ids: tuple[int, ...]
    """The class's ids in the exports."""


class FileRecord(msgspec.Struct, frozen=True):
    """A file of the set, with the size and digest that it must have when it is read."""

    key: str
    size_bytes: int
    sha256: str


class Member(msgspec.Struct, frozen=True, array_like=True):
    """An image inside a shard: the unchanged image file is the `size_bytes` bytes from `offset` on."""

    file_name: str
    offset: int
    size_bytes: int


class Shard(msgspec.Struct, frozen=True):
    """One tar file with images of one split."""

    key: str
    split: str
    size_bytes: int
    sha256: str
    images: tuple[Member, ...]

    @property
    def file(self) -> FileRecord:
        """The shard as a file to download and verify."""
        return FileRecord(self.key, self.size_bytes, self.sha256)


class Counts(msgspec.Struct, frozen=True):
    """Numbers of images and boxes in one split."""

    images: int
    boxes: int
    images_without_boxes: int
    boxes_per_class: tuple[int, ...]


class Example(msgspec.Struct, frozen=True, omit_defaults=True):
    """One case of a change: the file as the export names it, and the annotation's id there."""

    file: str
    annotation_id: str = ""
    detail: str = ""


class Change(msgspec.Struct, frozen=True):
    """One entry of the change log: what was corrected or dropped, how often, and the first few cases."""

    reason: str
    action: str
    """`mended` or `dropped`."""
    sentence: str
    count: int
    examples: tuple[Example, ...] = ()


class Options(msgspec.Struct, frozen=True):
    """The options that the set's id depends on."""

    val_fraction: float = 0.15
    """Share of images held back for validation when no validation images are given."""
    seed: int = 0
    """Random seed that chooses the images to hold back."""
    use_subsets: bool = True
    """Whether CVAT subsets called train, val or test decide the split of their images."""
    shard_bytes: int = 256 << 20
    """A shard takes images until it would exceed this size; a larger image gets a shard of its own."""


class SplitMethod(msgspec.Struct, frozen=True):
    """How the validation split was made: `given`, or what was kept together when images were held back."""

    val: str
    sentence: str


class Manifest(msgspec.Struct, frozen=True):
    """Everything about a prepared set except the content of its files."""

    format_version: int
    id: str
    options: Options
    classes: tuple[ClassName, ...]
    split_method: SplitMethod
    counts: dict[str, Counts]
    annotations: dict[str, FileRecord]
    shards: tuple[Shard, ...]
    changes: tuple[Change, ...]
    warnings: tuple[str, ...]

    @property
    def class_names(self) -> tuple[str, ...]:
        """Class names in the order of their ids."""
        return tuple(one.name for one in self.classes)

    def files(self, splits: tuple[str, ...]) -> list[FileRecord]:
        """The annotation files and shards of these splits."""
        wanted = [self.annotations[name] for name in splits]
        return wanted + [shard.file for shard in self.shards if shard.split in splits]


class _Version(msgspec.Struct):
    format_version: int


def set_prefix(set_id: str) -> str:
    """Folder of a set in the store. Raises SetError when `set_id` is not a valid id."""
    if not _SET_ID.fullmatch(set_id):
        raise SetError(
            f"{set_id!r} is not the id of a prepared set: it has 16 hex digits, and `data-prep prepare` prints it"
        )
    return f"datasets/{set_id}"


def encode_manifest(manifest: Manifest) -> bytes:
    """The bytes of `manifest.json`."""
    return msgspec.json.encode(manifest)


def decode_manifest(data: bytes, where: str) -> Manifest:
    """Read `manifest.json`. Raises SetError when it is damaged or its format is newer than this code."""
    try:
        check_json(data)
        version = msgspec.json.decode(data, type=_Version).format_version
        if version > FORMAT_VERSION:
            raise SetError(
                f"the prepared set {where} has format {version}, and this version reads up to "
                f"{FORMAT_VERSION}: update detr-workflows, or prepare the data again with this version"
            )
        return msgspec.json.decode(data, type=Manifest)
    except ValueError as error:
        raise SetError(f"the manifest of the prepared set {where} is damaged ({error}): prepare it again") from error
