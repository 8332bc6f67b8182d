"""Ultralytics YOLO: a `data.yaml` with classes and splits, and a text file of labels beside or parallel to each image.

`data.yaml` is data: nothing is downloaded, and no path leads out of the source.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from pathlib import PurePosixPath
from typing import Any
from weakref import WeakKeyDictionary

import msgspec

from data_prep.box_form import BoxForm
from data_prep.changes import ChangeLog, Reason
from data_prep.checks.box_parts import LEAST_CASES
from data_prep.checks.subset_names import split_of_subset
from data_prep.errors import AnnotationError, SourceError
from data_prep.formats.annotation_file import read_annotation_file
from data_prep.formats.class_lists import class_lists, contradictions
from data_prep.formats.coco_file import read_number, read_whole_number
from data_prep.formats.record import (
    Annotation,
    Annotations,
    ListedImage,
    UnlistedReferences,
    clean_class_name,
)
from data_prep.formats.roots import first_of_each, folder_of
from data_prep.formats.text_lines.lines import decoded_text, read_lines
from data_prep.image_finder import name_key
from data_prep.sources.files import ExportFiles, may_be_images_below, without_stray_copies
from run_config.cvat_formats import ULTRALYTICS
from run_config.errors import ConfigError
from run_config.wording import plural
from run_config.yaml_text import read_yaml

MAX_YAML_BYTES = 4 << 20
DATA_YAML = re.compile(r"(.*/)?data\.ya?ml")
_SPLITS = ("train", "val", "test")
# The folders above names of images: that of Ultralytics, and that of CVAT's YOLO 1.1.
_IMAGES = re.compile(r"(?i)(^|.*/)(images|obj_[^/]*_data)/")

_found_in: WeakKeyDictionary[ExportFiles, dict[str, dict[str, Any]]] = WeakKeyDictionary()


class Ultralytics:
    """YOLO for detection, segmentation, oriented boxes and poses."""

    name = ULTRALYTICS
    looks_like = "data.yaml"

    def roots(self, files: ExportFiles) -> list[str]:
        """The folders of YAML files with the keys `names` and one of `train`, `val` and `test`."""
        return [folder_of(path) for path in _data_files(files)]

    def own_files(self, files: ExportFiles) -> list[str]:
        """The YAML file, and all images and text files beside and below it."""
        path = next(iter(_data_files(files)))
        root = folder_of(path)
        texts = [
            one for one in without_stray_copies(files.sizes) if one.startswith(root) and one.lower().endswith(".txt")
        ]
        return [path, *texts, *class_lists(files, root), *may_be_images_below(root, files.sizes)]

    def read(self, files: ExportFiles, changes: ChangeLog) -> Annotations:
        """Read all label files."""
        path, data = next(iter(_data_files(files).items()))
        return YoloReader(files, path, data, changes).read()


def _data_files(files: ExportFiles) -> dict[str, dict[str, Any]]:
    """Path → content of the YAML files that describe a data set. Each is read once for each source.

    Raises AnnotationError if the source has one, and also a `data.yaml` that cannot be read.
    """
    if files not in _found_in:
        paths = [path for path in without_stray_copies(files.sizes) if path.lower().endswith((".yaml", ".yml"))]
        chosen = first_of_each(folder_of, paths, files, MAX_YAML_BYTES)
        found: dict[str, dict[str, Any]] = {}
        broken: AnnotationError | None = None
        for path in chosen:
            try:
                data = read_mapping(files, path)
            except AnnotationError as error:
                if DATA_YAML.fullmatch(path):
                    broken = broken or error
            else:
                if "names" in data and data.keys() & {*_SPLITS}:
                    found[path] = data
        if found and broken:
            raise broken
        _found_in[files] = found
    return _found_in[files]


def read_mapping(files: ExportFiles, path: str) -> dict[str, Any]:
    """The YAML file's keys; an empty file has none. Raises AnnotationError if it is no mapping, or cannot be read."""
    where = f"{files.shown_name}: {path}"
    if files.sizes[path] > MAX_YAML_BYTES:
        raise AnnotationError(f"{where} has more than {MAX_YAML_BYTES >> 20} MiB: correct it")
    try:
        data = read_yaml(decoded_text(read_annotation_file(files, path, MAX_YAML_BYTES), where), where)
    except ConfigError as error:
        raise AnnotationError(str(error)) from error
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise AnnotationError(f"{where} must have the keys names and train: export again")
    return data


class YoloReader:
    """Reads one data set: `data` has the classes as `names`, and for each split a folder or a list of images."""

    def __init__(
        self,
        files: ExportFiles,
        path: str,
        data: dict[str, Any],
        changes: ChangeLog,
        exporter: str = "Ultralytics",
        names_path: str = "",
    ) -> None:
        """`names_path`: the file of the classes' names, if it is not `path`."""
        self._files = files
        self._path = path
        self._root = folder_of(path)
        self._where = f"{files.shown_name}: {path}"
        self._data = data
        self._exporter = exporter
        self._listed_in = names_path or path
        self._changes = changes
        self._names = _names(data, self._where)
        shape = data.get("kpt_shape")
        numbers = [one for one in shape if isinstance(one, int)] if isinstance(shape, list) else []
        self._pose_numbers = numbers[0] * numbers[1] if len(numbers) == 2 else 0
        self._total = 0
        self._rows: Counter[tuple[int, bool]] = Counter()
        """Rows that were read as polygons, by their count of numbers after the class, and whether they may be poses."""
        self._unlisted: Counter[int] = Counter()
        self._left_out: list[str] = []
        """Images with labels that no entry names."""
        self._moved_notes: list[str] = []

    def read(self) -> Annotations:
        """Read all label files."""
        subsets = self._subsets()
        labels = {path for path in without_stray_copies(self._files.sizes) if path.lower().endswith(".txt")}
        labels -= set(class_lists(self._files, self._root))
        spelt: dict[str, list[str]] = defaultdict(list)
        for path in labels:
            spelt[name_key(path)].append(path)
        images: list[ListedImage] = []
        used: dict[str, str] = {}
        notes = [*contradictions(self._files, self._root, self._names, self._listed_in)]
        notes += self._add_unnamed(subsets, spelt.keys())
        left_out = {name_key(_label_path(self._root, path)) for path in self._left_out}
        places = {path: _label_path(self._root, path) for path in subsets}
        if not any(spelt.get(name_key(place)) for place in places.values()):
            places = {path: str(PurePosixPath(path).with_suffix(".txt")) for path in subsets}  # as Darknet has them
        for path, subset in subsets.items():
            label = places[path]
            like = spelt[name_key(label)]
            if label not in labels and len(like) == 1:
                self._changes.add(Reason.NAME_SPELLING, path, detail=like[0])
                label = like[0]
            own: tuple[Annotation, ...] = ()
            if label in labels:
                own = tuple(self._read_labels(label))
                if own and label in used:
                    raise AnnotationError(
                        f"{self._files.shown_name}: {used[label]!r} and {path!r} take their labels from the same file, "
                        f"{label!r}: rename or remove one of the images"
                    )
                used[label] = path
            images.append(self._listed(path, subset, own))
        lost = sorted(
            one for one in labels - used.keys() if re.search(r"(?i)(^|/)labels/", one) and one.startswith(self._root)
        )
        elsewhere = lost or self._of_their_names(subsets.keys() & self._files.sizes.keys(), labels)
        if not used and elsewhere and subsets:
            expected = _label_path(self._root, next(iter(subsets)))
            raise SourceError(
                f"{self._where}: no image has labels: they are expected at {expected!r}, but there is "
                f"{elsewhere[0]!r}: give the files and folders below labels/ the names of those below images/"
            )
        self._refuse_poses()
        notes += self._about_other_labels(subsets.keys(), labels - used.keys() - set(lost), used)
        for label in lost:  # listed without its image
            if name_key(label) in left_out:
                continue
            name = re.sub(r"(?i)(^|/)labels/", r"\1images/", label)[: -len(".txt")]
            images.append(self._listed(name, "default", tuple(self._read_labels(label))))
        count = self._unlisted.total()
        sentence = (
            f"{self._where}: {count} of {self._total} boxes have a class that names does not list (for example "
            f"{next(iter(self._unlisted), 0)}): correct {self._path.rpartition('/')[2]}, or export again"
        )
        classes: dict[str, frozenset[int]] = {}
        for number, name in self._names.items():
            if name in classes:
                self._changes.add(Reason.CATEGORY_MERGED, self._path, detail=f"{name!r} (class {number})")
            classes[name] = classes.get(name, frozenset()) | {number}
        return Annotations(
            images,
            classes,
            self._unlisted,
            [UnlistedReferences(count, self._total, sentence)],
            exporter=self._exporter,
            notes=notes,
            box_form=BoxForm.SHARED_CENTRES,
        )

    def _about_other_labels(
        self, images: AbstractSet[str], others: AbstractSet[str], used: Mapping[str, str]
    ) -> Iterator[str]:
        """A warning if images without labels have a text file of their name elsewhere."""
        found = self._of_their_names(images - set(used.values()), others)
        if found:
            yield (
                f"{plural(len(found), 'text file')} (for example {found[0]!r}) {'has' if len(found) == 1 else 'have'} "
                "the name of an image without labels, but another place than that of its labels: the image counts as "
                "background. Put the files beside the other labels if they are its labels."
            )

    def _add_unnamed(self, subsets: dict[str, str], labels: AbstractSet[str]) -> list[str]:
        """Add images with labels that no entry names, if their folder is that of a split without an entry.

        The others are left out. labels: keys of the label files' paths. Returns warnings that name the folders.
        """
        folders: dict[str, list[str]] = defaultdict(list)
        for path in may_be_images_below(self._root, self._files.sizes):
            if path not in subsets:
                folders[folder_of(path)].append(path)
        notes = [*self._moved_notes]
        for folder, own in sorted(folders.items()):
            labelled = [path for path in own if name_key(_label_path(self._root, path)) in labels]
            moved = [path for path in labelled if re.search(r"(?i)(^|/)labels/", _label_path(self._root, path))]
            if not moved:
                continue
            split = _split_below(folder, self._root)
            if split and not self._data.get(split):
                subsets |= dict.fromkeys(own, split)
                notes.append(self._about_folder(split, folder, len(own)))
            else:
                self._left_out += moved
                notes.append(
                    f"{self._path} does not name {folder!r}: its {plural(len(moved), 'image')} with labels "
                    f"{'was' if len(moved) == 1 else 'were'} left out. Name the folder there to use "
                    f"{'it' if len(moved) == 1 else 'them'}."
                )
        return notes

    def _about_folder(self, split: str, folder: str, count: int) -> str:
        return (
            f"{self._path} has no entry {split}: the {plural(count, 'image')} in {folder!r} "
            f"{'was' if count == 1 else 'were'} used for it."
        )

    def _of_their_names(self, images: AbstractSet[str], texts: AbstractSet[str]) -> list[str]:
        """The text files of this data set with the names of images."""
        stems = {PurePosixPath(path).stem for path in images}
        return sorted(path for path in texts if path.startswith(self._root) and PurePosixPath(path).stem in stems)

    def _listed(self, path: str, subset: str, annotations: tuple[Annotation, ...]) -> ListedImage:
        folder = next((match[0] for match in [_IMAGES.match(path)] if match), self._root)
        # Below images/ there is a folder for each split, which is no part of the name; Roboflow has it above.
        if path.startswith(f"{folder}{subset}/"):
            folder += f"{subset}/"
        return ListedImage(path.removeprefix(folder), (folder,), subset, self._path, annotations)

    def _refuse_poses(self) -> None:
        """Raise AnnotationError if rows that were read as polygons are poses: boxes with points inside."""
        poses = sum(count for (_, may_be), count in self._rows.items() if may_be)
        lengths = {numbers for numbers, _ in self._rows}
        if poses >= LEAST_CASES and len(lengths) == 1 and 10 * poses > 9 * self._rows.total():
            (numbers,) = lengths
            points = numbers - 4
            shape = f"[{points // 3}, 3] or [{points // 2}, 2]" if points % 3 == 0 else f"[{points // 2}, 2]"
            raise AnnotationError(
                f"{self._where}: all rows have {numbers} numbers after the class, and the last {points} are points in "
                f"the box of the first four: these are poses. Add their number of points, kpt_shape: {shape}, to "
                f"{self._path.rpartition('/')[2]}"
            )

    def _subsets(self) -> dict[str, str]:
        """Path of each image → its split. Raises SourceError if an entry names nothing in the source."""
        images = may_be_images_below(self._root, self._files.sizes)
        found: dict[str, str] = {}
        for split in _SPLITS:
            entries = self._data.get(split) or []
            for entry in entries if isinstance(entries, list) else [entries]:
                own = list(self._images_of(str(entry), images))
                others = self._folders_of_others(split, str(entry), own)
                if not own and images and split != "test":
                    folders = ", ".join(sorted({repr(folder_of(one) or "./") for one in images})[:3])
                    raise SourceError(
                        f"{self._where}: {split}: {str(entry)[:200]!r} names no images of this source; they lie in "
                        f"{folders}: correct the entry"
                    )
                for path in own:
                    meant = others.get(folder_of(path), split)
                    if found.setdefault(path, meant) != meant:
                        raise AnnotationError(
                            f"{self._where}: {path!r} is both in {found[path]} and in {meant}: correct the entries"
                        )
        return found

    def _folders_of_others(self, split: str, entry: str, images: list[str]) -> dict[str, str]:
        """The folders below an entry that are for another split, which has no entry, beside one for its own split."""
        places = (f"{self._root}{tail}/" for tail in tails(entry))
        place = next((one for one in places if all(path.startswith(one) for path in images)), self._root)
        folders = Counter(map(folder_of, images))
        splits = {folder: _split_below(folder, place) for folder in folders}
        if split not in splits.values() or entry.endswith(".txt"):
            return {}
        others = {folder: other for folder, other in splits.items() if other and not self._data.get(other)}
        self._moved_notes += [self._about_folder(other, folder, folders[folder]) for folder, other in others.items()]
        return others

    def _images_of(self, entry: str, images: list[str]) -> Iterator[str]:
        """The images of a folder or of a list of images, whichever an entry names."""
        if not any(tails(entry)):  # the folder of the data set itself
            yield from images
            return
        for tail in tails(entry):
            place = f"{self._root}{tail}"
            if tail.endswith(".txt") and place in self._files.sizes:
                known = set(images)
                for line in filter(None, read_lines(self._files, place)):
                    yield next(
                        (one for one in (f"{self._root}{part}" for part in tails(line)) if one in known),
                        f"{self._root}{next(tails(line), line)}",
                    )
                return
            inside = [path for path in images if path.startswith(f"{place}/")]
            if inside:
                yield from inside
                return

    def _read_labels(self, path: str) -> Iterator[Annotation]:
        for number, line in enumerate(read_lines(self._files, path), start=1):
            values = line.split()
            if not values:
                continue
            self._total += 1
            place = f"line {number}"
            class_id, _ = read_whole_number(read_number(values[0])[0])
            if class_id is None:
                raise AnnotationError(
                    f"{self._files.shown_name}: {path}: {place} begins with {values[0][:40]!r}, which is no class id: "
                    "export again"
                )
            if class_id not in self._names:
                self._unlisted[class_id] += 1
                self._changes.add(Reason.UNKNOWN_CATEGORY, path, place, f"class id {class_id}")
                continue
            yield self._read_box(values[1:], self._names[class_id], f"{path}, {place}")

    def _read_box(self, texts: list[str], class_name: str, place: str) -> Annotation:
        numbers = [read_number(one)[0] for one in texts]
        finite = [one for one in numbers if one is not None]
        if len(numbers) == 4 or len(numbers) == 4 + self._pose_numbers:
            written = texts[:4]
            if None in numbers[:4]:
                return Annotation(class_name, None, place, box_as_written=written)
            x, y, width, height = finite[:4]
            return Annotation(class_name, (x - width / 2, y - height / 2, width, height), place)
        if len(numbers) < 6 or len(numbers) % 2:
            raise AnnotationError(
                f"{self._files.shown_name}: {place} has {len(numbers)} numbers after the class: a box has 4, a polygon "
                "an even number from 6; a fifth number (confidence, track) is not read: export without it"
            )
        if len(finite) < len(numbers):
            return Annotation(class_name, None, place, box_as_written=texts[:8])
        self._rows[len(numbers), _may_be_pose(finite)] += 1
        xs, ys = finite[::2], finite[1::2]
        box = (min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys))
        return Annotation(class_name, box, place, outline=msgspec.Raw(msgspec.json.encode([finite])))


def _may_be_pose(numbers: list[float]) -> bool:
    """Whether the numbers after the first four are points in the box that those describe, with or without visibility.

    Corners of a polygon do not all lie in a box that its first two corners happen to describe.
    """
    x, y, width, height = numbers[:4]
    points = numbers[4:]

    def inside(step: int) -> bool:
        if len(points) < step or len(points) % step:
            return False
        places = zip(points[::step], points[1::step], strict=True)
        return all(abs(a - x) <= 0.51 * width and abs(b - y) <= 0.51 * height for a, b in places if a or b)

    return len(points) >= 4 and (inside(2) or inside(3))


def _names(data: dict[str, Any], where: str) -> dict[int, str]:
    """Class id → name. Raises AnnotationError if `names` is no list or mapping of names, or contradicts `nc`."""
    given = data["names"]
    pairs = given.items() if isinstance(given, dict) else enumerate(given) if isinstance(given, list) else ()
    names: dict[int, str] = {}
    for key, value in pairs:
        number, _ = read_whole_number(key)
        name = "" if isinstance(value, bool) or value is None else clean_class_name(str(value))
        if number is None or number < 0 or not name:
            raise AnnotationError(f"{where}: names: {key!r} is no class id, or {value!r} no name: put names in quotes")
        names[number] = name
    if not names:
        raise AnnotationError(f"{where}: names must be a list, or class ids with names: correct it")
    count = data.get("nc")
    if count is not None and count != len(names):
        raise AnnotationError(f"{where}: nc is {count!r}, but names lists {len(names)} classes: correct one of them")
    return names


def _split_below(folder: str, place: str) -> str | None:
    """The split that a part of the folder's path below a place is named for."""
    parts = folder.removeprefix(place).split("/")
    return next((split for split in map(split_of_subset, parts) if split), None)


def _label_path(root: str, image: str) -> str:
    """Where Ultralytics looks for an image's labels: `labels/` instead of the last `images/`, with `.txt`."""
    moved = re.sub(r"(?i)^(.*/)images/", r"\1labels/", f"/{image.removeprefix(root)}")
    return root + str(PurePosixPath(moved.lstrip("/")).with_suffix(".txt"))


def tails(path: str) -> Iterator[str]:
    """The path without its first parts, longest first: it may be written on another machine, or lead upwards."""
    parts = [part for part in PurePosixPath(path.replace("\\", "/")).parts if part not in (".", "/")]
    last_up = max((index for index, part in enumerate(parts) if part == ".."), default=-1)
    for start in range(last_up + 1, len(parts)):
        yield "/".join(parts[start:])
