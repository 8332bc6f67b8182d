"""Choose, rename and merge the classes of all sources before they are counted and written."""

import csv
import difflib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace

import msgspec

from data_prep.changes import ChangeLog, Reason
from data_prep.correct_boxes import Box
from data_prep.errors import DataPrepError
from data_prep.export_reader import Export, ExportImage
from data_prep.formats.record import clean_class_name
from data_prep.packed_boxes import PackedBoxes
from run_config.wording import shortened


@dataclass(frozen=True)
class ClassChoice:
    """Which classes are used, and under which names. Without entries all are used as they are."""

    kept: tuple[str, ...] = ()
    """By their new names. Empty: all."""
    renamed: Mapping[str, str] = field(default_factory=dict)
    """Name in the sources → new name. Several names with the same new name are merged."""

    def __bool__(self) -> bool:
        return bool(self.kept or self.renamed)

    def new_name(self, name: str) -> str | None:
        """The name in the set. None: the class is not used."""
        new = self.renamed.get(name, name)
        return new if not self.kept or new in self.kept else None


def class_choice(classes: Iterable[str], class_map: Iterable[str]) -> ClassChoice:
    """Read the choice from texts: names, and `OLD=NEW`, each list separated by commas or line breaks.

    A name with a comma stands in double quotes. Raises DataPrepError for an entry in another form.
    """
    renamed: dict[str, str] = {}
    for entry in _entries(class_map, "class-map"):
        old, separator, new = (clean_class_name(one) for one in entry.partition("="))
        if not separator or not old or not new:
            raise DataPrepError(f"class-map: {entry!r} is not allowed; write OLD=NEW, such as truck=car")
        if renamed.setdefault(old, new) != new:
            raise DataPrepError(f"class-map: {old!r} gets the names {renamed[old]!r} and {new!r}; give one of them")
    return ClassChoice(tuple(dict.fromkeys(map(clean_class_name, _entries(classes, "classes")))), renamed)


def _entries(texts: Iterable[str], parameter: str) -> list[str]:
    lines = [line for text in texts for line in text.splitlines()]
    try:
        return [entry for row in csv.reader(lines, skipinitialspace=True) for entry in row if entry.strip()]
    except csv.Error as error:
        raise DataPrepError(
            f"{parameter}: the list is not readable ({error}); separate names by commas, and close each quotation mark"
        ) from error


def choose_classes(exports: Sequence[Export], choice: ClassChoice, changes: ChangeLog) -> list[Export]:
    """The exports with the chosen classes. Dropped and renamed boxes are counted in `changes`.

    Raises DataPrepError for a name that no source has.
    """
    there = frozenset(name for export in exports for name in export.categories)
    _require(choice.renamed, there, "class-map")
    _require(choice.kept, {choice.renamed.get(name, name) for name in there}, "classes")
    return [_chosen(export, choice, changes) for export in exports]


def _require(names: Iterable[str], there: AbstractSet[str], parameter: str) -> None:
    for name in names:
        if name not in there:
            near = difflib.get_close_matches(name, there, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {shortened(sorted(map(repr, there)))}"
            raise DataPrepError(f"{parameter}: no source has the class {name!r}; {hint}")


def _chosen(export: Export, choice: ClassChoice, changes: ChangeLog) -> Export:
    ids: dict[str, set[int]] = defaultdict(set)
    for name, own in export.categories.items():
        new = choice.new_name(name)
        if new is not None:
            ids[new] |= own
    images = tuple(
        replace(image, boxes=PackedBoxes(_boxes(image, choice, changes))) if image.boxes else image
        for image in export.images
    )
    return replace(export, images=images, categories={name: frozenset(own) for name, own in ids.items()})


def _boxes(image: ExportImage, choice: ClassChoice, changes: ChangeLog) -> Iterable[Box]:
    for box in image.boxes:
        name = choice.new_name(box.class_name)
        if name is None:
            changes.add(Reason.CLASS_NOT_CHOSEN, image.file_name, detail=repr(box.class_name))
            continue
        if name != box.class_name:
            changes.add(Reason.CLASS_RENAMED, image.file_name, detail=f"{box.class_name!r} is now {name!r}")
        yield msgspec.structs.replace(box, class_name=name)
