"""Warnings that a person should read before training on a data set, computed from what will be written."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from data_prep.changes import Reason
from data_prep.checks.box_forms import LEAST_CASES
from data_prep.checks.recordings import ALIKE_BITS
from data_prep.dataset import Dataset, SetImage
from data_prep.packed_boxes import packed_numbers
from prepared_set.decoding import NEARLY_BLACK
from prepared_set.manifest import SPLITS, Counts
from run_config.families.registry import FAMILIES
from run_config.job.config import MOST_BOXES, advised_queries
from run_config.wording import plural, shortened

FEW_BOXES_PER_CLASS = 50
FEW_BOXES = 100
FEW_VAL_IMAGES = 20
SAME_BOX_IOU = 0.95
"""Two boxes of one class with a larger intersection over union are the same object."""
_MAX_COMPARISONS = 400_000_000


def find_warnings(dataset: Dataset) -> tuple[str, ...]:
    """The warnings, most important first."""
    counts = dataset.counts()
    return (
        *_about_changes(dataset),
        *_about_labels(dataset, counts),
        *dataset.notes,
        *_about_leaks(dataset),
        *_about_dark_images(dataset),
        *_about_size(counts),
        *_about_classes(dataset, counts),
        *_about_crowding(dataset),
    )


_UNUSED = {
    "image": (Reason.IMAGE_MISSING, Reason.IMAGE_DAMAGED, Reason.IMAGE_SIZE),
    "annotation": (
        Reason.BOX_NOT_A_NUMBER,
        Reason.BOX_EMPTY,
        Reason.BOX_OUTSIDE,
        Reason.UNKNOWN_IMAGE,
        Reason.UNKNOWN_CATEGORY,
    ),
}


def _about_changes(dataset: Dataset) -> Iterable[str]:
    for what, reasons in _UNUSED.items():
        counts = {reason.label: dataset.changes.count(reason) for reason in reasons}
        if total := sum(counts.values()):
            why = ", ".join(f"{name} {count:,}" for name, count in counts.items() if count)
            yield f"{plural(total, what)} could not be used: see what was changed ({why})."


def _about_labels(dataset: Dataset, counts: dict[str, Counts]) -> Iterable[str]:
    """Warn about images and boxes that look like unfinished or doubled work."""
    images = len(dataset.images)
    empty = sum(counts[name].images_without_boxes for name in SPLITS)
    if empty >= LEAST_CASES and empty > dataset.limits.unlabelled_images * images:
        yield (
            f"{empty:,} of {images:,} images have no boxes. They teach that nothing is there: if they are not labelled "
            "yet, finish them, or export only the finished jobs."
        )
    doubled = find_doubled_boxes(dataset.images)
    if doubled:
        twins, example = len(doubled), dataset.images[doubled[0][0]].file_name
        yield (
            f"{plural(twins, 'box is', 'boxes are')} drawn twice (same class, IoU above {SAME_BOX_IOU}; for one on "
            f"{example}): annotations may have been uploaded twice, or two people worked on them; delete one of each."
        )
    files = Counter(image.source.checked.sha256 for image in dataset.images)
    by_file: dict[str, set[tuple[object, ...]]] = defaultdict(set)
    for image in dataset.images:
        if files[image.source.checked.sha256] > 1:
            by_file[image.source.checked.sha256].add(tuple((box.class_name, box.bbox) for box in image.boxes))
    other = sum(len(boxes) > 1 for boxes in by_file.values())
    if other:
        yield f"{plural(other, 'image')} {are(other)} there several times with different boxes: keep one of each."
    crowds = dataset.changes.count(Reason.CROWD)
    boxes = sum(counts[name].boxes for name in SPLITS)
    if crowds and 2 * crowds < boxes:
        yield (
            f"{plural(crowds, 'annotation')} marked as crowds (iscrowd=1) {are(crowds)} trained as "
            "one object each, because CVAT marks masks and ellipses so. In data from COCO a crowd is a region with "
            "many objects: remove those annotations there."
        )


def find_doubled_boxes(images: Sequence[SetImage]) -> list[tuple[int, int]]:
    """The boxes that lie on another one of their class, as (index of the image, index of the box)."""
    counts = [len(image.boxes) for image in images]
    if not sum(counts):
        return []
    corners = packed_numbers(image.boxes for image in images)[:, :4].copy()
    corners[:, 2:] += corners[:, :2]
    classes: dict[str, int] = {}
    names = (name for image in images for name in image.boxes.class_names)
    labels = np.fromiter((classes.setdefault(name, len(classes)) for name in names), np.int64)
    owners = np.repeat(np.arange(len(images)), counts)
    positions = np.arange(len(owners)) - np.repeat(np.cumsum(counts) - counts, counts)
    order = np.lexsort((corners[:, 0], labels, owners))
    corners, groups = corners[order], np.stack([owners, labels], axis=1)[order]
    doubled = np.zeros(len(corners), bool)
    areas = (corners[:, 2:] - corners[:, :2]).prod(axis=1)
    # Boxes of one class on one image follow each other by their left edge. Doubles are close to each other there.
    first = np.arange(len(corners))
    for step in range(1, max(counts)):
        first = first[first + step < len(corners)]
        second = first + step
        near = (groups[first] == groups[second]).all(axis=1)
        near &= corners[second, 0] - corners[first, 0] <= (1 - SAME_BOX_IOU) * (corners[first, 2] - corners[first, 0])
        first, second = first[near], second[near]
        if not len(first):
            break
        low, high = (
            np.maximum(corners[first, :2], corners[second, :2]),
            np.minimum(corners[first, 2:], corners[second, 2:]),
        )
        shared = np.clip(high - low, 0, None).prod(axis=1)
        doubled[second] |= shared > SAME_BOX_IOU * (areas[first] + areas[second] - shared)
    found = order[doubled]
    return list(zip(owners[found].tolist(), positions[found].tolist(), strict=True))


def _about_leaks(dataset: Dataset) -> Iterable[str]:
    """Warn about images that train shares with val or test."""
    if dataset.split_method.val == "block":
        yield dataset.split_method.sentence
    train = dataset.split("train")
    train_files = {image.source.checked.sha256 for image in train}
    for name in ("val", "test"):
        held = dataset.split(name)
        same = [image for image in held if image.source.checked.sha256 in train_files]
        if same:
            yield (
                f"{plural(len(same), 'image')} of {name} {are(len(same))} also in train, byte for byte (for "
                f"one {same[0].file_name}): results on {name} will look too good."
            )
        rest = [image for image in held if image.source.checked.sha256 not in train_files]
        pairs = find_alike(rest, train)
        if pairs:
            first, twin = pairs[0]
            yield (
                f"{plural(len(pairs), 'image')} of {name} {'looks' if len(pairs) == 1 else 'look'} almost like one "
                f"in train (for one {first.file_name} and {twin.file_name}): results on {name} may look too good."
            )


def find_alike(images: list[SetImage], others: list[SetImage]) -> list[tuple[SetImage, SetImage]]:
    """Pairs of an image and the most similar of `others`, where the two look the same."""
    images = [image for image in images if image.source.checked.look]
    others = [image for image in others if image.source.checked.look]
    if not images or not others or len(images) * len(others) > _MAX_COMPARISONS:
        return []
    other_looks = _looks(others)
    pairs: list[tuple[SetImage, SetImage]] = []
    for image, look in zip(images, _looks(images), strict=True):
        distances = np.bitwise_count(other_looks ^ look).sum(axis=1)
        nearest = int(distances.argmin())
        if distances[nearest] <= ALIKE_BITS:
            pairs.append((image, others[nearest]))
    return pairs


def _looks(images: list[SetImage]) -> NDArray[np.uint64]:
    """(n, 4)"""
    return np.frombuffer(b"".join(image.source.checked.look for image in images), np.uint64).reshape(-1, 4)


def _about_dark_images(dataset: Dataset) -> Iterable[str]:
    dark = [
        f"{image.file_name} (up to {brightest:,})"
        for name in SPLITS
        for image in dataset.split(name)
        if (brightest := image.source.checked.nearly_black) is not None
    ]
    if dark:
        yield f"{shortened(dark, 1)}: {NEARLY_BLACK}."


def _about_size(counts: dict[str, Counts]) -> Iterable[str]:
    boxes = sum(counts[name].boxes for name in SPLITS)
    if boxes < FEW_BOXES:
        yield f"Only {plural(boxes, 'box', 'boxes')}: label at least some hundred for useful results."
    if not counts["val"].images:
        yield "No validation images: the last weights are used, because the best cannot be chosen."
    elif counts["val"].images < FEW_VAL_IMAGES:
        yield (
            f"Only {plural(counts['val'].images, 'image')} for validation: the metrics will vary strongly from "
            "one evaluation to the next."
        )
    if not counts["test"].images:
        yield "No test images: the validation metrics are optimistic, because the best weights are chosen with them."


def _about_classes(dataset: Dataset, counts: dict[str, Counts]) -> Iterable[str]:
    absent: dict[str, list[str]] = defaultdict(list)
    few: list[str] = []
    for label, one in enumerate(dataset.classes):
        if not any(counts[name].boxes_per_class[label] for name in SPLITS):
            absent["the whole set"].append(one.name)
            continue
        absent_in = [n for n in SPLITS if counts[n].images and not counts[n].boxes_per_class[label]]
        for name in absent_in:
            absent[name].append(one.name)
        if 0 < counts["train"].boxes_per_class[label] < FEW_BOXES_PER_CLASS:
            few.append(f"{one.name} ({counts['train'].boxes_per_class[label]})")
    for name, classes in absent.items():
        yield f"No boxes in {name}: {shortened(classes)}."
    if few:
        yield f"Fewer than {FEW_BOXES_PER_CLASS} training boxes: {shortened(few)}."
    folded: dict[str, list[str]] = defaultdict(list)
    for one in dataset.classes:
        folded[one.name.casefold()].append(one.name)
    for names in folded.values():
        if len(names) > 1:
            yield f"Classes that differ only in upper and lower case are kept apart: {shortened(names)}."


def _about_crowding(dataset: Dataset) -> Iterable[str]:
    limits = most_objects_by_family()
    for limit in sorted(set(limits.values()), reverse=True):
        crowded = [image for image in dataset.images if len(image.boxes) > limit]
        if not crowded:
            continue
        worst = max(crowded, key=lambda image: len(image.boxes))
        whose = " and ".join(f"{family} ({most})" for family, most in limits.items() if most <= limit)
        yield (
            f"{plural(len(crowded), 'image')} {'has' if len(crowded) == 1 else 'have'} more than {limit} boxes (up "
            f"to {len(worst.boxes)} on {worst.file_name}): the queries of {whose} cannot find them all, set "
            f"model.queries={advised_queries(len(worst.boxes))} or more."
        )
        if len(worst.boxes) > MOST_BOXES:
            yield f"An image gets at most {MOST_BOXES} boxes, whatever model.queries is: cut such images into parts."
        return


def most_objects_by_family() -> dict[str, int]:
    """How many objects per image the models of each family can learn by default."""
    return {family: model().most_objects for family, model in FAMILIES.items()}


def are(count: int) -> str:
    """`is` or `are`."""
    return "is" if count == 1 else "are"
