"""KITTI's boxes in the image: `label_2/<name>.txt` for `image_2/<name>`. The boxes in space are not read."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import PurePosixPath

from data_prep.box_form import BoxForm
from data_prep.changes import ChangeLog, Reason
from data_prep.checks.subset_names import split_of_subset
from data_prep.errors import AnnotationError
from data_prep.formats.coco_file import corner_box, read_number, read_whole_number
from data_prep.formats.record import Annotation, Annotations, ListedImage, clean_class_name
from data_prep.formats.roots import parent_of, without_suffix
from data_prep.formats.split_lists import listed_splits, split_lists
from data_prep.formats.text_lines.lines import read_lines
from data_prep.sources.files import ExportFiles, images_below, matching
from prepared_set.manifest import SPLITS
from run_config.cvat_formats import KITTI

_LABELS = re.compile(r"(?P<folder>(?:.+/)?)label_2/(?P<name>.+)\.(?i:txt)")
_NUMBERS = 14
"""Numbers after the class: truncated, occluded, alpha, four corners, and seven of the box in space."""


class Kitti:
    """KITTI for detection, as CVAT writes it and as the benchmark itself does."""

    name = KITTI
    looks_like = "label_2/*.txt"

    def roots(self, files: ExportFiles) -> list[str]:
        """The folders above those of the subsets, which contain `label_2/`."""
        return sorted({_root(match["folder"]) for match in matching(_LABELS, files.sizes).values()})

    def own_files(self, files: ExportFiles) -> list[str]:
        """All label files and images."""
        lists = split_lists(files, self.roots(files)[0])
        return [*matching(_LABELS, files.sizes), *lists, *images_below("", files.sizes)]

    def read(self, files: ExportFiles, changes: ChangeLog) -> Annotations:
        """Read all label files. An image beside `label_2/` without one has no boxes: CVAT writes none for it."""
        images: list[ListedImage] = []
        classes: set[str] = set()
        for path, match in matching(_LABELS, files.sizes).items():
            folder = match["folder"]
            own = tuple(_read_boxes(files, path, changes))
            classes |= {one.class_name for one in own}
            subset = PurePosixPath(folder).name or "default"
            images.append(ListedImage(match["name"], (f"{folder}image_2/",), subset, path, own))
        found = {name: frozenset[int]() for name in sorted(classes)}
        images = [*_with_suffixes(images, files), *_without_labels(images, files)]
        images, notes = _with_listed_splits(images, files, self.roots(files)[0])
        return Annotations(images, found, exporter="KITTI", notes=notes, box_form=BoxForm.CORNERS, has_sizes=False)


def _root(folder: str) -> str:
    """CVAT has a folder for each subset, KITTI `training` and `testing`."""
    name = folder.rstrip("/").rpartition("/")[2]
    return parent_of(folder) if name == "default" or split_of_subset(name) else folder


def _with_listed_splits(
    images: list[ListedImage], files: ExportFiles, root: str
) -> tuple[list[ListedImage], list[str]]:
    """The images with the splits of the lists in `ImageSets/`, and warnings about those lists.

    The benchmark counts the images of `training` and `testing` from 0: of `training` there is no list test.
    """
    named = {without_suffix(one.file_name): one for one in images if _may_be_listed(one.subset)}
    of_training = any(split_of_subset(one.subset) == "train" for one in named.values())
    subsets, notes = listed_splits(files, root, named, ("train", "val") if of_training else SPLITS)
    listed = {id(named[name]): subset for name, subset in subsets.items()}
    return [replace(one, subset=listed.get(id(one), one.subset)) for one in images], notes


def _may_be_listed(subset: str) -> bool:
    """Whether lists may give the images of a folder another split."""
    return split_of_subset(subset) in (None, "train")


def _with_suffixes(images: list[ListedImage], files: ExportFiles) -> list[ListedImage]:
    """The images under the names of their files, which the labels do not give with their extension."""
    by_stem = {without_suffix(path): path for path in images_below("", files.sizes)}
    named: list[ListedImage] = []
    for one in images:
        folder = one.folders[0]
        path = by_stem.get(folder + one.file_name, folder + one.file_name)
        named.append(replace(one, file_name=path.removeprefix(folder)))
    return named


def _without_labels(labelled: list[ListedImage], files: ExportFiles) -> Iterator[ListedImage]:
    """The other images in the folders of those with a label file. `labelled` has names without extension."""
    subsets = {one.folders[0]: one for one in labelled}
    known = {one.folders[0] + one.file_name for one in labelled}
    for folder, one in subsets.items():
        for path in images_below(folder, files.sizes):
            if without_suffix(path) not in known:
                yield replace(one, file_name=path.removeprefix(folder), annotations=())


def _read_boxes(files: ExportFiles, path: str, changes: ChangeLog) -> Iterator[Annotation]:
    for number, line in enumerate(read_lines(files, path), start=1):
        words = line.split()
        place = f"line {number}"
        if not words:
            continue
        # A score may follow, and a class of CVAT may have spaces.
        has_score = len(words) > _NUMBERS + 1 and read_number(words[-_NUMBERS - 1])[0] is not None
        if has_score and not _may_begin(words[-_NUMBERS - 1 :]) and _may_begin(words[-_NUMBERS:]):
            raise AnnotationError(
                f"{files.shown_name}: {path}: {place} can be read in two ways: either its class ends in "
                f"{words[-_NUMBERS - 1]!r}, or its last number is a score. Give the class a name that does not end in "
                "a number, and export again"
            )
        first = len(words) - _NUMBERS - has_score
        name = clean_class_name(" ".join(words[:first])) if first > 0 else ""
        if not name:
            raise AnnotationError(
                f"{files.shown_name}: {path}: {place} has {len(words)} words: a line of KITTI has a class and "
                f"{_NUMBERS} numbers; export again"
            )
        if name == "DontCare":
            changes.add(Reason.MARKED_IGNORED, path, place, name)
            continue
        written = words[first + 3 : first + 7]
        box = corner_box(written)
        yield Annotation(name, box, place, box_as_written=written if box is None else None)


def _may_begin(numbers: list[str]) -> bool:
    """Whether these can be the numbers of a box: the share that is truncated, and how it is occluded (-1: unknown)."""
    truncated, occluded = read_number(numbers[0])[0], read_whole_number(numbers[1])[0]
    return truncated is not None and (truncated == -1 or 0 <= truncated <= 1) and occluded in range(-1, 4)
