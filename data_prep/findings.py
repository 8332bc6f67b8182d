"""Warnings that a person should read before training on a data set, computed from what will be written."""

import re
from collections import defaultdict
from collections.abc import Iterable

from data_prep.changes import Reason
from data_prep.checks.box_parts import LEAST_CASES
from data_prep.checks.originals import shared_originals
from data_prep.checks.recordings import LEAST_FRAMES, frames_between
from data_prep.dataset import Dataset
from data_prep.likeness import SAME_BOX_IOU, differently_labelled
from prepared_set.decoding import NEARLY_BLACK
from prepared_set.manifest import SPLITS, Counts
from run_config.families.registry import FAMILIES
from run_config.job.config import MOST_BOXES, advised_queries
from run_config.wording import plural, shortened

_BETWEEN_WORDS = re.compile(r"[\s_-]+")
FEW_BOXES_PER_CLASS = 50
FEW_BOXES = 100
FEW_VAL_IMAGES = 20


def find_warnings(dataset: Dataset) -> tuple[str, ...]:
    """The warnings, most important first."""
    counts = dataset.counts()
    return (
        *_about_changes(dataset),
        *_about_labels(dataset, counts),
        *dataset.notes,
        *_about_leaks(dataset),
        *_about_originals(dataset),
        *_about_frames(dataset),
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
    doubled, of_two_classes = dataset.doubled_boxes
    if doubled:
        twins, example = len(doubled), dataset.images[doubled[0][0]].file_name
        yield (
            f"{plural(twins, 'box is', 'boxes are')} drawn twice (same class, IoU above {SAME_BOX_IOU} or all sides "
            f"within a pixel; for one on {example}): annotations may have been uploaded twice, or two people worked on "
            "them; delete one of each."
        )
    if of_two_classes:
        twins, example = len(of_two_classes), dataset.images[of_two_classes[0][0]].file_name
        yield (
            f"{plural(twins, 'box lies', 'boxes lie')} on a box of another class (for one on {example}): an object has "
            "one class; delete the wrong box of each pair."
        )
    other = differently_labelled(
        (image.source.checked.sha256, image.file_name, image.boxes) for image in dataset.images
    )
    if other:
        yield (
            f"{plural(len(other), 'image')} {are(len(other))} there several times with different boxes (for example "
            f"{' and '.join(other[0][:2])}): keep one of each."
        )
    crowds = dataset.changes.count(Reason.CROWD)
    boxes = sum(counts[name].boxes for name in SPLITS)
    if crowds and 2 * crowds < boxes:
        yield (
            f"{plural(crowds, 'annotation')} marked as crowds (iscrowd=1) {are(crowds)} trained as "
            "one object each, because CVAT marks masks and ellipses so. In data from COCO a crowd is a region with "
            "many objects: remove those annotations there."
        )


def _about_leaks(dataset: Dataset) -> Iterable[str]:
    """Warn about images that two splits share."""
    if dataset.split_method.val == "block":
        yield dataset.split_method.sentence
    for leak in dataset.leaks:
        if leak.same:
            count, first = len(leak.same), leak.same[0][0].file_name
            yield (
                f"{plural(count, 'image')} of {leak.split} {are(count)} also in {leak.other}, byte for byte (for "
                f"example {first}): results on {leak.split} will look too good."
            )
        if leak.alike:
            count, (image, twin) = len(leak.alike), leak.alike[0]
            yield (
                f"{plural(count, 'image')} of {leak.split} {'looks' if count == 1 else 'look'} almost like one in "
                f"{leak.other} (for example {image.file_name} and {twin.file_name}): results on {leak.split} may look "
                "too good."
            )


def _about_originals(dataset: Dataset) -> Iterable[str]:
    """Warn about images of two splits that were made of one picture, unless they were found by what they look like."""
    for leak in dataset.leaks:
        if dataset.split_method.val == "block" and (leak.split, leak.other) == ("val", "train"):
            continue  # said with the split
        seen = {image.source.file_name for image, _ in (*leak.same, *leak.alike)}
        names, others = ([image.source.file_name for image in dataset.split(one)] for one in (leak.split, leak.other))
        shared = [pair for pair in shared_originals(names, others) if pair[0] not in seen]
        if shared:
            name, twin = shared[0]
            yield (
                f"{plural(len(shared), 'image')} of {leak.split} {'was' if len(shared) == 1 else 'were'} made of the "
                f"same pictures as images of {leak.other}, by their names (for example {name} and {twin}: copies, or "
                f"tiles): results on {leak.split} will look too good. Keep all images of a picture in one split."
            )


def _about_frames(dataset: Dataset) -> Iterable[str]:
    """Warn about splits that take turns in the frames of one video."""
    if dataset.split_method.val == "block":
        return  # said with the split
    for split, other in (("val", "train"), ("test", "train"), ("test", "val")):
        own = dataset.split(split)
        between = frames_between(
            (image.file_name for image in own), (image.file_name for image in dataset.split(other))
        )
        if len(between) >= LEAST_FRAMES and 2 * len(between) > len(own):
            yield (
                f"{len(between):,} of {len(own):,} images of {split} are frames next to frames of {other} (for example "
                f"{between[0]}): results on {split} may look too good; split by video, or leave the split to prepare."
            )


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
        folded[_BETWEEN_WORDS.sub(" ", one.name).casefold()].append(one.name)
    for names in folded.values():
        if len(names) > 1:
            yield (
                "Classes that differ only in upper and lower case, spaces or hyphens are kept apart: "
                f"{shortened(names)}. Merge them with --class-map (class-map in a workflow)."
            )


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
