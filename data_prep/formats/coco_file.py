"""Read one `instances_<subset>.json` as CVAT and others write it, without trusting any value in it.

A fault of the whole file raises AnnotationError; a fault of one annotation is left to `data_prep.correct_boxes`.
Large files need little memory: masks and attributes are not parsed.
"""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec

from data_prep.box_geometry import Xywh
from data_prep.changes import ChangeLog, Reason
from data_prep.checks.class_ids import explain_shift
from data_prep.checks.subset_names import split_of_subset
from data_prep.errors import AnnotationError
from data_prep.formats.record import NO_ATTRIBUTES, NO_OUTLINE, UnlistedReferences, clean_class_name
from prepared_set.memory_budget import free_bytes
from run_config.cvat_formats import COCO
from run_config.json_text import JsonError, check_json, utf8

FREE_SHARE = 0.75
"""Share of the free memory that annotation files may take."""
OBJECT_BYTES = 500
"""Memory for one JSON object and what is made from it, besides its text: 290 while it is read, plus its box."""
_NO_NUMBER = re.compile(rb'"(?:[^"\\]++|\\.)*+"|-?(?:NaN|Infinity)', re.DOTALL)


class RawAnnotation(msgspec.Struct, gc=False):
    """An annotation as in the file; a value may have any type."""

    id: Any = None
    image_id: Any = None
    category_id: Any = None
    bbox: Any = None
    area: Any = None
    iscrowd: Any = 0
    score: Any = None
    ignore: Any = None
    segmentation: msgspec.Raw = NO_OUTLINE
    attributes: msgspec.Raw = NO_ATTRIBUTES


class _RawImage(msgspec.Struct):
    id: Any = None
    file_name: Any = None
    width: Any = None
    height: Any = None
    split: Any = None


class _RawCategory(msgspec.Struct):
    id: Any = None
    name: Any = None
    supercategory: Any = None


class _RawCoco(msgspec.Struct):
    images: list[msgspec.Raw]
    annotations: list[msgspec.Raw]
    categories: list[msgspec.Raw]
    info: msgspec.Raw = msgspec.Raw(b"null")


@dataclass(frozen=True, slots=True)
class CocoImage:
    """An image as the annotation file lists it; width and height are None if the file does not give them."""

    id: int | str
    file_name: str
    width: int | None
    height: int | None
    split: str | None = None
    """Its split, if the file gives each image one."""


@dataclass
class CocoFile:
    """One annotation file: ids are numbers, names are cleaned, annotations are checked and not converted yet."""

    images: list[CocoImage]
    categories: dict[int, str]
    annotations: dict[int | str, list[msgspec.Raw]] = field(default_factory=lambda: defaultdict(list))
    """By image id, for `read_annotations`. As JSON they take a fifth of the memory."""
    unlisted_categories: Counter[int] = field(default_factory=Counter)
    """Ids of categories that annotations use and the file does not list."""
    named_categories: int = 0
    """Annotations whose category is a text that is no listed id."""
    unlisted: UnlistedReferences = field(default_factory=lambda: UnlistedReferences(0, 0, ""))
    used_categories: set[int] = field(default_factory=set)
    """Listed ids of categories that annotations use."""
    scored: int = 0
    """Annotations with a score, which models write."""
    exporter: str = ""
    parent: str = ""
    """The category that stands for Roboflow's project, and that all others name as their parent."""


def read_whole_number(value: object) -> tuple[int | None, bool]:
    """The value as an int, or None if it is not one; and whether it was written as text."""
    match value:
        case bool():
            return None, False
        case int():
            return value, False
        case float() if value.is_integer():
            return int(value), False
        case str():
            try:
                return (int(value) if _is_plain(value) else None), True
            except ValueError:
                return None, True
    return None, False


def _is_plain(text: str) -> bool:
    """False for what Python alone reads as a number: `1_0`, and digits of other scripts."""
    return text.isascii() and "_" not in text


def read_number(value: object) -> tuple[float | None, bool]:
    """The value as a finite float, or None if it is not one; and whether it was written as text."""
    if type(value) is float:  # most numbers, and there are many
        return (value if math.isfinite(value) else None), False
    is_text = isinstance(value, str)
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None, False
    if isinstance(value, str) and not _is_plain(value):
        return None, True
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None, is_text
    return (number if math.isfinite(number) else None), is_text


def listed_size(width: object, height: object) -> tuple[int | None, int | None]:
    """Width and height of an image as a file gives them, in pixels; None for both unless both are positive."""
    numbers = read_whole_number(width)[0], read_whole_number(height)[0]
    return numbers if min(one or 0 for one in numbers) > 0 else (None, None)


def corner_box(sides: Sequence[object]) -> Xywh | None:
    """The box between two corners (left, top, right, bottom). None unless all are finite numbers."""
    left, top, right, bottom = (read_number(one)[0] for one in sides)
    if left is None or top is None or right is None or bottom is None:
        return None
    return (left, top, right - left, bottom - top)


def most_bytes() -> int:
    """Size of the largest annotation file that fits into the free memory."""
    return int(FREE_SHARE * free_bytes())


def parse_coco(data: bytes, where: str, changes: ChangeLog) -> CocoFile:
    """Read an annotation file. `where` names source and file in errors. Raises AnnotationError."""
    try:
        data = utf8(data)
        require_room(data, data.count(b"{"), where)
        check_json(data)
        raw = decode_lenient(data, _RawCoco)
        images = _records(raw.images, "images", _RawImage)
        categories = list(_records(raw.categories, "categories", _RawCategory))
        exporter = _exporter(raw.info)
        if exporter == "Roboflow":
            categories = _without_parent(categories)
        listed = _images(images, where, changes)
        names = _categories(categories, where, changes)
        coco = CocoFile(listed, names, exporter=exporter, parent=_parent(categories))
        own_changes = ChangeLog()
        _group_annotations(raw.annotations, coco, where, own_changes)
    except UnicodeDecodeError as error:
        raise AnnotationError(f"{where} is not UTF-8 text: save it as UTF-8, or export the task again") from error
    except JsonError as error:
        raise AnnotationError(f"{where}: {error}: export the task again") from error
    except msgspec.ValidationError as error:
        if data.lstrip()[:1] == b"[":
            raise AnnotationError(
                f"{where} is a list, as of results with scores, and no COCO annotation file with images, annotations "
                f"and categories: export the task as {COCO!r}"
            ) from error
        raise AnnotationError(
            f"{where} is not a COCO annotation file ({error}): export the task again as {COCO!r}"
        ) from error
    except (ValueError, OverflowError) as error:
        raise AnnotationError(
            f"{where} is not readable as JSON ({error}): it was cut off or edited by hand; export the task again"
        ) from error
    changes.merge(own_changes)
    return coco


def require_room(data: bytes, objects: int, where: str) -> None:
    """Raise AnnotationError when the objects would not fit: each takes memory, however short its text is."""
    needed, most = len(data) + OBJECT_BYTES * objects, most_bytes()
    if needed > most:
        raise AnnotationError(
            f"{where} needs about {needed >> 20} MiB of memory, more than the {most >> 20} MiB that are free for it: "
            "split the task, or give the step more memory"
        )


# What `info` says of the exporter → its name.
_FINGERPRINTS = ((b"label studio", "Label Studio"), (b"roboflow", "Roboflow"), (b"fiftyone", "FiftyOne"))


_OF_CVAT = {"contributor": "", "date_created": "", "description": "", "url": "", "version": "", "year": ""}
"""What CVAT, and Datumaro within it, write as `info`."""


def _exporter(info: msgspec.Raw) -> str:
    text = bytes(info).lower()
    if len(text) < 500 and msgspec.json.decode(text) == _OF_CVAT:
        return "CVAT"
    return next((name for mark, name in _FINGERPRINTS if mark in text), "")


def _parent(categories: list[_RawCategory]) -> str:
    """The first category if Roboflow lists its project as it: the parent of all others, without one. Otherwise empty.

    Only Roboflow writes `none`: a skeleton of CVAT is the parent of its points, and has boxes.
    """
    first = categories[0] if categories else None
    if first is None or not isinstance(first.name, str) or first.supercategory != "none":
        return ""
    is_parent = len(categories) > 1 and all(one.supercategory == first.name for one in categories[1:])
    return clean_class_name(first.name) if is_parent else ""


def _without_parent(categories: list[_RawCategory]) -> list[_RawCategory]:
    """Roboflow lists the project as the first category, which no box has and all others name as their parent."""
    parent = categories[0].name if categories else None
    is_parent = len(categories) > 1 and all(one.supercategory == parent for one in categories[1:])
    return categories[1:] if is_parent else categories


_Record = TypeVar("_Record", bound=msgspec.Struct)


def decode_lenient(data: bytes, kind: type[_Record]) -> _Record:
    """Decode JSON that may hold NaN and Infinity. Raises the errors of msgspec."""
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        # Some tools write NaN and Infinity, which are not JSON; they become null here.
        lenient = _NO_NUMBER.sub(lambda found: found[0] if found[0][:1] == b'"' else b"null", data)
        return msgspec.json.decode(lenient, type=kind)


def decode_file(data: bytes, kind: type[_Record], where: str, program: str) -> _Record:
    """Decode the JSON file of one image. Raises AnnotationError."""
    require_room(data, data.count(b"{") + data.count(b"["), where)
    try:
        data = utf8(data)
        check_json(data)
        return decode_lenient(data, kind)
    except (JsonError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise AnnotationError(f"{where} is not readable as a file of {program} ({error}): save it again") from error


def read_annotations(raw: Sequence[msgspec.Raw]) -> Iterator[RawAnnotation]:
    """Decode annotations of a CocoFile."""
    return _records(raw, "annotations", RawAnnotation)


_CONTAINERS = (list, dict)


def _records(raw: Sequence[msgspec.Raw], key: str, kind: type[_Record]) -> Iterator[_Record]:
    """Decode the records one by one. To save memory, a list or object other than a box becomes a short text."""
    decoder = msgspec.json.Decoder(kind)
    for index, one in enumerate(raw):
        try:
            record = decoder.decode(one)
        except msgspec.ValidationError as error:
            raise msgspec.ValidationError(f"{error} - at `$.{key}[{index}]`") from error
        for name in kind.__struct_fields__:
            value = getattr(record, name)
            if isinstance(value, _CONTAINERS) and not (4 <= len(value) <= 12 and _is_flat(value)):
                setattr(record, name, repr(value)[:200] if value else None)
        yield record


def _is_flat(container: list[object] | dict[str, object]) -> bool:
    values = container.values() if isinstance(container, dict) else container
    for value in values:  # noqa: SIM110  # `any` would take twice as long
        if isinstance(value, _CONTAINERS):
            return False
    return True


def _images(raw: Iterable[_RawImage], where: str, changes: ChangeLog) -> list[CocoImage]:
    images: list[CocoImage] = []
    names_by_id: dict[int | str, str] = {}
    ids_by_name: dict[str, int | str] = {}
    for position, one in enumerate(raw, start=1):
        if not isinstance(one.file_name, str) or not one.file_name.strip():
            raise AnnotationError(
                f"{where}: image number {position} (id {one.id!r}) has no file_name: export the task again"
            )
        image_id, was_text = _read_image_id(one.id)
        if image_id is None:
            raise AnnotationError(f"{where}: image {one.file_name!r} has the id {one.id!r}: ids must be whole numbers")
        if image_id in names_by_id:
            raise AnnotationError(
                f"{where}: images {names_by_id[image_id]!r} and {one.file_name!r} share the id {image_id}, so "
                "their boxes are mixed. CVAT does this to names that differ only in the extension: rename one "
                "of them in the task and export again"
            )
        if one.file_name in ids_by_name:
            raise AnnotationError(
                f"{where}: image {one.file_name!r} is listed twice, with the ids {ids_by_name[one.file_name]} "
                f"and {image_id}: remove one of them"
            )
        names_by_id[image_id] = one.file_name
        ids_by_name[one.file_name] = image_id
        width, width_was_text = read_whole_number(one.width)
        height, height_was_text = read_whole_number(one.height)
        if was_text or width_was_text or height_was_text:
            changes.add(Reason.TEXT_NUMBER, one.file_name, detail="image id or size")
        has_size = width is not None and height is not None and width > 0 and height > 0
        split = one.split if isinstance(one.split, str) and split_of_subset(one.split) else None
        images.append(
            CocoImage(image_id, one.file_name, width if has_size else None, height if has_size else None, split)
        )
    return images


def _read_image_id(value: object) -> tuple[int | str | None, bool]:
    """The id, and whether it is a number written as text. Some programs use the file's name as its id."""
    number, was_text = read_whole_number(value)
    if number is None and isinstance(value, str) and value.strip():
        return value, False
    return number, was_text


def _categories(raw: Iterable[_RawCategory], where: str, changes: ChangeLog) -> dict[int, str]:
    names: dict[int, str] = {}
    for one in raw:
        category_id, was_text = read_whole_number(one.id)
        if category_id is None:
            raise AnnotationError(f"{where}: category {one.name!r} has the id {one.id!r}: ids must be whole numbers")
        name = clean_class_name(one.name) if isinstance(one.name, str) else ""
        if not name:
            raise AnnotationError(
                f"{where}: the category with id {category_id} has no name: give the label a name in CVAT"
            )
        if names.get(category_id, name) != name:
            raise AnnotationError(
                f"{where}: categories {names[category_id]!r} and {name!r} share the id {category_id}: give each its own"
            )
        if name in names.values():
            changes.add(Reason.CATEGORY_MERGED, where, detail=f"{one.name!r} (id {category_id})")
        if was_text:
            changes.add(Reason.TEXT_NUMBER, where, detail=f"id of category {name!r}")
        names[category_id] = name
    if not names:
        raise AnnotationError(f"{where} has no categories: give the task labels in CVAT and export again")
    return names


def _group_annotations(raw: Sequence[msgspec.Raw], coco: CocoFile, where: str, changes: ChangeLog) -> None:
    """Add each annotation to its image; drop and count those of unknown images or categories."""
    known = {image.id: image.file_name for image in coco.images}
    seen: set[int] = set()
    used = coco.used_categories
    strange_images: set[int] = set()
    without_image = 0
    for text, one in zip(raw, read_annotations(raw), strict=True):
        image_id, image_was_text = _read_image_id(one.image_id)
        category_id, category_was_text = read_whole_number(one.category_id)
        annotation_id, id_was_text = read_whole_number(one.id)
        if image_id is None or image_id not in known:
            without_image += one.image_id is None
            if isinstance(image_id, int):
                strange_images.add(image_id)
            changes.add(Reason.UNKNOWN_IMAGE, f"image id {one.image_id!r}", one.id)
            continue
        if category_id is None or category_id not in coco.categories:
            changes.add(Reason.UNKNOWN_CATEGORY, known[image_id], one.id, f"category id {one.category_id!r}")
            if category_id is not None:
                coco.unlisted_categories[category_id] += 1
            coco.named_categories += isinstance(one.category_id, str) and not one.category_id.startswith(("[", "{"))
            continue
        if read_number(one.ignore)[0] == 1 or one.ignore is True:
            changes.add(Reason.MARKED_IGNORED, known[image_id], one.id, "ignore=1")
            continue
        if annotation_id is not None:
            if annotation_id in seen:
                changes.add(Reason.ANNOTATION_ID_REPEATED, known[image_id], annotation_id)
            seen.add(annotation_id)
        if image_was_text or category_was_text or (id_was_text and annotation_id is not None):
            changes.add(Reason.TEXT_NUMBER, known[image_id], one.id, "annotation ids")
        coco.scored += read_number(one.score)[0] is not None
        used.add(category_id)
        coco.annotations[image_id].append(text)
    _refuse_shifted_images(coco, strange_images, where)
    coco.unlisted = _explain_unlisted(coco, len(raw), used, without_image, where, changes)


def _refuse_shifted_images(coco: CocoFile, strange: set[int], where: str) -> None:
    """Raise AnnotationError if images are counted from another number in the annotations than in their list."""
    listed = {image.id for image in coco.images if isinstance(image.id, int)}
    used = {one for one in (*coco.annotations, *strange) if isinstance(one, int)}
    if not strange or len(used) < 3 or 2 * len(listed - used) > len(listed):
        return  # with many images without boxes, an annotation of a removed image looks the same
    for shift in (1, -1):
        if {one - shift for one in used} <= listed:
            unused = min(listed - used) if shift > 0 else max(listed - used)
            name = next(image.file_name for image in coco.images if image.id == unused)
            raise AnnotationError(
                f"{where}: image_id of the annotations seems to be {'higher' if shift > 0 else 'lower'} by 1 than the "
                f"ids of the images: image {min(strange)} is not listed, and {name!r} (id {unused}) has no box. Every "
                "box would be on the neighbour of its image; count from the same number in both places, or, if the "
                "ids are right, remove the annotations of images that are not listed"
            )


def _explain_unlisted(
    coco: CocoFile, count: int, used: set[int], without_image: int, where: str, changes: ChangeLog
) -> UnlistedReferences:
    """How many annotations belong to nothing, with the most likely cause. Raises AnnotationError for unusable ids."""
    lost = changes.count(Reason.UNKNOWN_IMAGE, Reason.UNKNOWN_CATEGORY)
    named = next((image for image in coco.images if isinstance(image.id, str)), None)
    if named is not None and changes.count(Reason.UNKNOWN_IMAGE):
        raise AnnotationError(
            f"{where}: image {named.file_name!r} has the id {named.id!r}: ids must be whole numbers, or the same texts "
            f"in image_id of the annotations, and {changes.count(Reason.UNKNOWN_IMAGE)} have none of them (for example "
            f"{changes.examples(Reason.UNKNOWN_IMAGE)[0].file})"
        )
    if not lost:
        return UnlistedReferences(0, count, "")
    example = (changes.examples(Reason.UNKNOWN_IMAGE) + changes.examples(Reason.UNKNOWN_CATEGORY))[0]
    advice = "write ids that are listed into image_id and category_id, or export the task again"
    if 2 * without_image > lost:
        advice = (
            f"{without_image} annotations have no image_id, the field that names their image; write the image's id "
            "into image_id of each annotation"
        )
    elif coco.named_categories:
        advice = (
            f"{coco.named_categories:,} annotations have a text for category_id, such as a class's name; write the "
            "category's id"
        )
    elif 2 * changes.count(Reason.UNKNOWN_CATEGORY) > lost:
        classes: dict[str, set[int]] = defaultdict(set)
        for category_id, name in coco.categories.items():
            classes[name].add(category_id)
        advice = explain_shift(classes, used, coco.unlisted_categories) or advice
    return UnlistedReferences(
        lost,
        count,
        f"{where}: {lost} of {count} annotations belong to images or categories that the file does not list "
        f"(annotation {example.annotation_id or 'without id'}: {example.detail or example.file}): {advice}",
    )
