"""Merge all sources into one data set: one class list, unique file names, a split for each image.

The result depends only on content, not on where a source lies or in which order its files come: the same data
always give the same set.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import sha256
from pathlib import PurePosixPath

import msgspec

from data_prep.changes import ChangeLog, Reason
from data_prep.checks.originals import is_of_roboflow
from data_prep.checks.partial_labels import about_partial_labels
from data_prep.checks.refusals import refuse_labelled_twice, refuse_no_boxes
from data_prep.checks.subset_names import split_of_subset
from data_prep.errors import SourceError
from data_prep.export_reader import Export, ExportImage
from data_prep.formats.split_lists import TRAIN_AND_VAL
from data_prep.likeness import Place, find_alike, find_doubled_boxes
from data_prep.packed_boxes import PackedBoxes
from data_prep.splitting import Item, hold_back
from prepared_set.manifest import SPLITS, ClassName, Counts, Options, SplitMethod
from run_config.data_limits import DataLimits
from run_config.wording import plural, shortened

_NO_TIES: frozenset[tuple[object, ...]] = frozenset()


@dataclass(frozen=True, slots=True)
class SetImage:
    """An image of the set: its file with its boxes, its split and its unique name."""

    split: str
    file_name: str
    source: ExportImage
    digest: str
    """Digest of everything that the set stores about the image."""

    @property
    def boxes(self) -> PackedBoxes:
        """The boxes in their final order."""
        return self.source.boxes

    @property
    def width(self) -> int:
        """Pixels, after the EXIF orientation is applied."""
        return self.source.checked.width

    @property
    def height(self) -> int:
        """Pixels, after the EXIF orientation is applied."""
        return self.source.checked.height


@dataclass(frozen=True, slots=True)
class Leak:
    """Images of one split that another split has too, each with its twin there."""

    split: str
    other: str
    same: tuple[tuple[SetImage, SetImage], ...]
    """Byte for byte."""
    alike: tuple[tuple[SetImage, SetImage], ...]
    """They look the same."""


@dataclass(frozen=True)
class Dataset:
    """The data set to write. Images are sorted by split, then name."""

    classes: tuple[ClassName, ...]
    images: tuple[SetImage, ...]
    split_method: SplitMethod
    changes: ChangeLog
    notes: tuple[str, ...] = ()
    """Warnings from reading and splitting, most important first."""
    limits: DataLimits = field(default_factory=DataLimits)

    def split(self, name: str) -> list[SetImage]:
        """The images of one split."""
        return [image for image in self.images if image.split == name]

    @cached_property
    def doubled_boxes(self) -> tuple[list[Place], list[Place]]:
        """The boxes that lie on another box of their class, and those that lie on one of another class."""
        return find_doubled_boxes(self.images)

    @cached_property
    def leaks(self) -> tuple[Leak, ...]:
        """What val shares with train, and test with train and val."""
        return tuple(self._leak(*pair) for pair in (("val", "train"), ("test", "train"), ("test", "val")))

    def _leak(self, split: str, other: str) -> Leak:
        others = self.split(other)
        by_file = {image.source.checked.sha256: image for image in reversed(others)}
        held = [(image, by_file.get(image.source.checked.sha256)) for image in self.split(split)]
        same = tuple((image, twin) for image, twin in held if twin is not None)
        return Leak(split, other, same, tuple(find_alike([image for image, twin in held if twin is None], others)))

    def counts(self) -> dict[str, Counts]:
        """Counts of images and boxes per split."""
        found: dict[str, Counts] = {}
        for name in SPLITS:
            images = self.split(name)
            per_class = Counter(name for image in images for name in image.boxes.class_names)
            found[name] = Counts(
                images=len(images),
                boxes=per_class.total(),
                images_without_boxes=sum(not image.boxes for image in images),
                boxes_per_class=tuple(per_class[one.name] for one in self.classes),
            )
        return found


@dataclass(frozen=True, slots=True)
class _Placed:
    """An image and its split; `None` means that the split is not chosen yet."""

    split: str | None
    source: ExportImage
    export: str
    """Identifies the export of the image: a digest of all images in that export."""
    digest: str


def build_dataset(
    pool: Sequence[Export],
    val: Sequence[Export],
    test: Sequence[Export],
    options: Options,
    changes: ChangeLog,
    limits: DataLimits | None = None,
) -> Dataset:
    """Merge the exports and split the images that have no split yet.

    Raises SourceError when nothing can be trained on.
    """
    if options.use_subsets:
        pool = [_without_second_listings(export, changes) for export in pool]
    placed = _drop_repeated(_place(pool, val, test, options), changes)
    if not any(image.source.boxes for image in placed):
        refuse_no_boxes(changes)
    limits = limits or DataLimits()
    for split in {image.split for image in placed}:
        refuse_labelled_twice(
            [
                (one.source.checked.sha256, (one.source.file_name, one.source.annotation_file), one.source.boxes)
                for one in placed
                if one.split == split
            ],
            limits,
        )
    given_val = bool(val) or any(image.split == "val" for image in placed)
    images, method = _split(placed, given_val, options)
    images = _name(images, changes)
    if not any(image.split == "train" and image.boxes for image in images):
        raise SourceError(
            "no image with boxes is left for training: all belong to val or test; give more sources, or use "
            "--ignore-subsets to mix the subsets"
        )
    ordered = sorted(images, key=lambda image: (SPLITS.index(image.split), image.file_name))
    exports = [*pool, *val, *test]
    notes = [note for export in exports for note in export.warnings]
    notes += about_partial_labels(exports)
    if options.use_subsets:
        notes += _about_subsets(pool, given_val)
    return Dataset(_classes(exports), tuple(ordered), method, changes, tuple(notes), limits)


def _about_subsets(pool: Sequence[Export], given_val: bool) -> Iterable[str]:
    """Name the subsets that are no splits, where a person may have meant them to be."""
    images = Counter(image.subset for export in pool for image in export.images)
    mixed = {name: count for name, count in images.items() if split_of_subset(name) is None and name != TRAIN_AND_VAL}
    if len(images) > 1 and mixed:
        names = shortened([f"{name!r} ({plural(count, 'image')})" for name, count in sorted(mixed.items())])
        use = "training" if given_val else "training and validation"
        yield (
            f"Subsets whose names are no split were used for {use}: {names}. Name them train, val or test to "
            "keep them apart."
        )


def _without_second_listings(export: Export, changes: ChangeLog) -> Export:
    """The export without images of a subset such as `all` that a subset for a split lists too, with the same boxes."""
    in_split = {image.path for image in export.images if split_of_subset(image.subset)}
    kept: list[ExportImage] = []
    for image in export.images:
        if image.path in in_split and split_of_subset(image.subset) is None:
            changes.add(Reason.IMAGE_REPEATED, image.file_name, detail=f"also in the subset {image.subset!r}")
        else:
            kept.append(image)
    return replace(export, images=tuple(kept))


def _classes(exports: Iterable[Export]) -> tuple[ClassName, ...]:
    ids: dict[str, set[int]] = defaultdict(set)
    for export in exports:
        for name, source_ids in export.categories.items():
            ids[name] |= source_ids
    return tuple(ClassName(name, tuple(sorted(ids[name]))) for name in sorted(ids))


def _place(pool: Sequence[Export], val: Sequence[Export], test: Sequence[Export], options: Options) -> list[_Placed]:
    placed: list[_Placed] = []
    roles: list[tuple[str | None, Export]] = [(None, e) for e in pool]
    roles += [("val", e) for e in val] + [("test", e) for e in test]
    for role, export in roles:
        own: list[_Placed] = []
        for image in export.images:
            split = role
            if role is None and options.use_subsets:
                split = split_of_subset(image.subset)
            own.append(_Placed(split, image, "", _digest(split, image)))
        identity = sha256("".join(sorted(image.digest for image in own)).encode()).hexdigest()
        placed += [replace(image, export=identity) for image in own]
    # A subset called train does not say which images are for validation: without val images it is split like the
    # rest.
    named = {image.split for image in placed}
    if "train" in named and "val" not in named and not val:
        placed = [replace(image, split=None) if image.split == "train" else image for image in placed]
    return placed


def _digest(split: str | None, image: ExportImage) -> str:
    """Digest over the image's bytes, name, size and boxes, and the split it was given."""
    content = [
        split or "",
        image.file_name,
        image.checked.sha256,
        image.checked.width,
        image.checked.height,
        [[b.class_name, b.bbox, b.area, b.segmentation, b.attributes] for b in image.boxes],
    ]
    return sha256(msgspec.json.encode(content)).hexdigest()


def _drop_repeated(placed: list[_Placed], changes: ChangeLog) -> list[_Placed]:
    """Keep one of the images that are the same in everything: overlapping exports are common."""
    unique: dict[str, _Placed] = {}
    for image in sorted(placed, key=lambda image: (image.digest, image.export)):
        if image.digest in unique:
            changes.add(Reason.IMAGE_REPEATED, image.source.file_name)
        else:
            unique[image.digest] = image
    return list(unique.values())


def _split(placed: list[_Placed], given_val: bool, options: Options) -> tuple[list[SetImage], SplitMethod]:
    open_ones = [image for image in placed if image.split is None]
    if given_val:
        chosen: frozenset[int] = frozenset()
        method = SplitMethod("given", "The validation images were given.")
    else:
        files = Counter(image.source.checked.sha256 for image in open_ones)
        labels: dict[frozenset[str], frozenset[str]] = {}  # one object for all images with the same classes
        items = [_item(image, labels, is_alone=files[image.source.checked.sha256] == 1) for image in open_ones]
        held = hold_back(items, options.val_fraction, options.seed)
        chosen, method = held.indices, SplitMethod(held.method, held.sentence)
    images = [
        SetImage("val" if index in chosen else "train", "", image.source, image.digest)
        for index, image in enumerate(open_ones)
    ]
    images += [SetImage(image.split, "", image.source, image.digest) for image in placed if image.split is not None]
    return images, method


def _item(image: _Placed, shared: dict[frozenset[str], frozenset[str]], *, is_alone: bool) -> Item:
    source, frame = image.source, image.source.frame
    path = PurePosixPath(source.file_name)
    folder = f"{source.subset}/{path.parent}" if path.parent.name else ""
    home = (image.export, source.subset)
    ties: set[tuple[object, ...]] = set() if is_alone else {("file", source.checked.sha256)}
    # Each task numbers its tracks from 0: a number only means something among images of one series.
    ties |= {("track", *home, frame.series, track) for track in source.tracks}
    if source.recording is not None:
        ties.add(("video", *home, source.recording))
    if frame.original is not None:
        # Names of tiles and of cameras may be the same in other exports.
        place = () if is_of_roboflow(source.file_name) else home
        ties.add(("original", *place, frame.original))
    labels = frozenset(source.boxes.class_names)
    return Item(
        f"{image.export}/{source.subset}/{frame.order}",
        image.digest,
        shared.setdefault(labels, labels),
        frozenset(ties) if ties else _NO_TIES,
        folder,
    )


def _name(images: list[SetImage], changes: ChangeLog) -> list[SetImage]:
    """Give each image a unique name: images that share a name get part of their digest appended."""
    taken = Counter(image.source.file_name for image in images)
    named: list[SetImage] = []
    for image in images:
        name = image.source.file_name
        if taken[name] > 1:
            name = name_with_digest(name, image.digest, changes)
        named.append(replace(image, file_name=name))
    return named


def name_with_digest(name: str, digest: str, changes: ChangeLog) -> str:
    """The name of an image with part of its digest appended, for a name that is taken. Counts the change."""
    path = PurePosixPath(name)
    new = str(path.with_name(f"{path.stem}~{digest[:12]}{path.suffix}"))
    changes.add(Reason.NAME_TAKEN, name, detail=f"now {new}")
    return new
