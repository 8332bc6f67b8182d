"""Refuse a source whose parts do not belong together, with what was found in it and a way on."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath
from typing import NoReturn

from data_prep.changes import ChangeLog, Reason
from data_prep.checks.box_forms import SubsetBoxes
from data_prep.checks.box_parts import LEAST_CASES
from data_prep.checks.subset_names import split_of_subset
from data_prep.correct_boxes import Box
from data_prep.errors import AnnotationError, SourceError
from data_prep.formats.record import ListedImage
from data_prep.image_finder import ImageFinder
from data_prep.likeness import differently_labelled
from data_prep.packed_boxes import PackedBoxes
from data_prep.remedies import change_limit
from data_prep.sources.files import export_frames
from prepared_set.manifest import Example
from run_config.automatic_boxes import AutomaticBoxes
from run_config.data_limits import DataLimits
from run_config.wording import plural

TURNED_BY_EXIF = "turned by EXIF"
"""How the detail of an image begins whose boxes may belong to the picture before or after its turn."""
_BROKEN = (
    (Reason.IMAGE_MISSING, "missing"),
    (Reason.IMAGE_DAMAGED, "not decodable"),
    (Reason.IMAGE_SIZE, "of a different size than listed"),
)
_DROPPED = (
    (Reason.BOX_NOT_A_NUMBER, "missing or without four finite numbers"),
    (Reason.BOX_EMPTY, "without width or height"),
    (Reason.BOX_OUTSIDE, "outside their image"),
)


def refuse_no_images(where: str, finder: ImageFinder, changes: ChangeLog) -> NoReturn:
    """Raise SourceError for a source without any of its listed images."""
    example = changes.examples(Reason.IMAGE_MISSING)[0].file
    there = finder.describe_files(example)
    if there:
        raise SourceError(
            f"{where}: none of the listed images is in the export (the first is {example!r}), but other images are: "
            f"{there}. Give the files the names that the annotation file lists, or export both together with "
            "'Save images'"
        )
    if finder.unreadable:
        raise SourceError(
            f"{where}: the images are in a format that is not read (for example {finder.unreadable[0]!r}): convert "
            "them to JPEG or PNG with the same names, then export or pack again"
        )
    if finder.videos:
        raise SourceError(
            f"{where} holds the video {finder.videos[0]!r} instead of images: {export_frames(finder.videos[0])}"
        )
    if packed := finder.archives:
        raise SourceError(
            f"{where}: there is no image file in it, but the archive {packed[0]!r}: unpack that into the export, with "
            "the names that the annotation file lists, and pack again"
        )
    raise SourceError(
        f"{where} was exported without images: there is no image file in it. Export the task again with 'Save images' "
        "switched on (save_images=true in the API), or put the images beside the annotation file"
    )


def refuse_mostly_broken(
    where: str, listed: Sequence[ListedImage], found: Iterable[ListedImage], changes: ChangeLog, limits: DataLimits
) -> None:
    """Raise SourceError when more images are broken than the limit allows: then the export itself is broken.

    `found`: those of the `listed` images that have a file.
    """
    broken = changes.count(*(reason for reason, _ in _BROKEN))
    if broken <= limits.unusable_images * len(listed):
        return
    twice = _listed_twice(listed, found)
    if 2 * len(twice) > broken:
        (missing, other), *_ = twice
        raise SourceError(
            f"{where}: {missing.listed_in!r} and {other.listed_in!r} list the same images ({len(twice):,} names, for "
            f"example {missing.file_name!r}), and there is one file of each: keep the annotation file that is right, "
            "and remove the other"
        )
    parts = [
        f"{changes.count(reason)} {words} (for example {_example(changes.examples(reason)[0])})"
        for reason, words in _BROKEN
        if changes.count(reason)
    ]
    sizes = changes.count(Reason.IMAGE_SIZE)
    turned = sizes == broken and all(TURNED_BY_EXIF in one.detail for one in changes.examples(Reason.IMAGE_SIZE))
    advice = (
        "nothing shows on which picture their boxes were drawn: leave EXIF out of the files if it was the unturned "
        "one, or turn them (mogrify -auto-orient) and list their new sizes"
        if turned
        else "the boxes belong to images of the listed size, so put those images in, or correct width and height in "
        "the annotation file if they are wrong or exchanged"
        if sizes == broken
        else "export the task again with images"
    )
    raise SourceError(
        f"{where}: {broken} of {len(listed)} images cannot be used, {'; '.join(parts)}: {advice}. To allow "
        f"more, {change_limit('unusable-images', 'SHARE')}"
    )


def _listed_twice(listed: Sequence[ListedImage], found: Iterable[ListedImage]) -> list[tuple[ListedImage, ListedImage]]:
    """The images without a file whose name another annotation file lists too, for an image with one.

    Not those of two splits, whose images may have the same names in folders of their own.
    """
    by_name = {PurePosixPath(image.file_name).name: image for image in found}
    there = set(map(id, by_name.values()))
    pairs = ((image, by_name.get(PurePosixPath(image.file_name).name)) for image in listed if id(image) not in there)
    return [
        (image, other)
        for image, other in pairs
        if other is not None
        and other.listed_in != image.listed_in
        and split_of_subset(image.subset) == split_of_subset(other.subset)
    ]


def refuse_dropped_boxes(where: str, boxes: SubsetBoxes, changes: ChangeLog, limits: DataLimits) -> None:
    """Raise AnnotationError when more boxes of a subset cannot be used than the limit allows."""
    total = boxes.total
    if boxes.dropped < LEAST_CASES or boxes.dropped <= limits.dropped_boxes * total:
        return
    raise AnnotationError(
        f"{where}: subset {boxes.name!r}: {boxes.dropped:,} of {total:,} boxes cannot be used: "
        f"{describe_dropped(changes)}. Correct the boxes and export again. To allow more, "
        f"{change_limit('dropped-boxes', 'SHARE')}"
    )


def refuse_no_boxes(changes: ChangeLog) -> NoReturn:
    """Raise SourceError for sources without any box that can be used."""
    automatic = changes.count(Reason.BOX_AUTOMATIC)
    if automatic:
        raise SourceError(
            f"no box is left: a model drew {plural(automatic, 'box', 'boxes')} and nobody has changed them. "
            "Correct them in CVAT, draw what is missing and export again; or, if people have checked them, use "
            f"them with automatic-boxes={AutomaticBoxes.KEEP}"
        )
    dropped = describe_dropped(changes)
    raise SourceError(
        f"no image has a box that can be used: {dropped}; correct them and export again"
        if dropped
        else "no image has a box: draw boxes in CVAT and export again (points, polylines and tags are not exported)"
    )


def describe_dropped(changes: ChangeLog) -> str:
    """Which boxes were dropped, each with the first annotation and its image. Empty: none."""
    return "; ".join(
        f"{changes.count(reason):,} {words} (the first is annotation {example.annotation_id or 'without id'} of "
        f"{example.file!r}{': ' if example.detail else ''}{example.detail})"
        for reason, words in _DROPPED
        if changes.count(reason)
        for example in changes.examples(reason)[:1]
    )


def refuse_two_owners(where: str, images: Iterable[tuple[str, str, Sequence[Box]]]) -> None:
    """Raise AnnotationError when two annotation files give the same image different boxes.

    `images`: path of the image, path of the annotation file, boxes.
    """
    first: dict[str, tuple[str, Sequence[Box]]] = {}
    contradicted: list[tuple[str, str, str]] = []
    for path, listed_in, boxes in images:
        if path not in first:
            first[path] = (listed_in, boxes)
        elif _as_counts(boxes) != _as_counts(first[path][1]):
            contradicted.append((path, first[path][0], listed_in))
    if contradicted:
        path, one, other = contradicted[0]
        raise AnnotationError(
            f"{where}: {plural(len(contradicted), 'image')} with different boxes in two annotation files (for example "
            f"{path!r} in {one!r} and {other!r}). If images of two subsets have the same name, CVAT before 2.16.1 kept "
            "only one of them: update CVAT or export each task by itself. If the files label the same images, merge "
            "them into one"
        )


def refuse_labelled_twice(images: Sequence[tuple[str, tuple[str, str], PackedBoxes]], limits: DataLimits) -> None:
    """Raise AnnotationError when too many images are there several times with different boxes.

    `images`: digest of the file, name and annotation file, boxes.
    """
    other = differently_labelled(images)
    files = len({digest for digest, *_ in images})
    if len(other) < LEAST_CASES or len(other) <= limits.contradictions * files:
        return
    (name, one), (_, two), *_ = other[0]
    raise AnnotationError(
        f"{len(other):,} of {files:,} images are there several times with different boxes (for example {name!r} in "
        f"{one} and {two}): give only the newest export of each task, or merge the annotations of each image; to use "
        f"them as they are, {change_limit('contradictions', '1')}"
    )


def refuse_named(changes: ChangeLog, limits: DataLimits) -> None:
    """Raise AnnotationError when something was corrected or dropped that these limits refuse."""
    for reason in Reason:
        if reason.label in limits.refuse and changes.count(reason):
            example = changes.examples(reason)[0]
            place = f", annotation {example.annotation_id}" if example.annotation_id else ""
            raise AnnotationError(
                f"{changes.count(reason):,} x {reason.label}: {reason.sentence} For one {_example(example)}{place}. "
                "This is refused here (--refuse, or dataLimits.refuse of the installation): correct the data"
            )


def _as_counts(boxes: Sequence[Box]) -> Counter[tuple[object, ...]]:
    return Counter((box.class_name, box.bbox) for box in boxes)


def _example(example: Example) -> str:
    return f"{example.file!r}{': ' if example.detail else ''}{example.detail}"
