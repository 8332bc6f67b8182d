"""Text files that name the images of each split, as VOC and KITTI have them in `ImageSets/`."""

from collections.abc import Collection, Iterator, Sequence

from data_prep.checks.subset_names import split_of_subset
from data_prep.errors import AnnotationError
from data_prep.formats.roots import folder_of, parent_of
from data_prep.formats.text_lines.lines import read_lines
from data_prep.sources.files import IMAGE_SUFFIXES, ExportFiles, without_stray_copies
from prepared_set.manifest import SPLITS

TRAIN_AND_VAL = "trainval"
"""The list of all images for training and validation. Other lists say more about the same images."""
_FOLDERS = ("ImageSets/Main/", "ImageSets/Segmentation/", "ImageSets/Layout/", "ImageSets/", "")


def listed_splits(
    files: ExportFiles, root: str, names: Collection[str], splits: Sequence[str] = SPLITS
) -> tuple[dict[str, str], list[str]]:
    """Name of an image → the name of the list that has it, and warnings about lists without any image.

    names: relative paths without an extension. Lists of other splits than `splits` are left out. The first folder
    counts in which a list names an image. Raises AnnotationError if two lists of one folder name the same image.
    """
    known, lists = frozenset(names), _lists(files, splits)
    notes: list[str] = []
    for folder in _folders(root):
        found: dict[str, str] = {}
        is_known_place = "/ImageSets/" in f"/{folder}"
        for path in lists.get(folder, ()):
            subset, own = path.removeprefix(folder)[: -len(".txt")], 0
            if subset in known and not is_known_place:  # labels of the image beside it
                continue
            try:
                lines = [line for line in read_lines(files, path) if line]
            except AnnotationError as error:
                if is_known_place:
                    raise
                notes.append(f"{error}. It was not used for the split.")
                continue
            for name in filter(None, (_named(line, known) for line in lines)):
                own += 1
                known_as = found.get(name, TRAIN_AND_VAL)
                if known_as == TRAIN_AND_VAL:
                    found[name] = subset
                elif subset != TRAIN_AND_VAL and split_of_subset(known_as) != split_of_subset(subset):
                    raise AnnotationError(
                        f"{files.shown_name}: {name!r} is listed in {known_as}.txt and in {subset}.txt: correct them"
                    )
            if lines and not own:
                notes.append(
                    f"{path} names no image of this source (for example {lines[0][:100]!r}), so it was not used for "
                    "the split: correct its names, or remove it."
                )
        if found:
            return found, notes
    return {}, notes


def split_lists(files: ExportFiles, root: str) -> list[str]:
    """The paths of all lists that `listed_splits` may read."""
    lists = _lists(files, SPLITS)
    return [path for folder in _folders(root) for path in lists.get(folder, ())]


def _folders(root: str) -> Iterator[str]:
    """Where lists may lie: below a root and the folders above it."""
    while True:
        yield from (f"{root}{folder}" for folder in _FOLDERS)
        if not root:
            return
        root = parent_of(root)


def _lists(files: ExportFiles, splits: Sequence[str]) -> dict[str, list[str]]:
    """Folder → the lists in it, sorted."""
    found: dict[str, list[str]] = {}
    for path in without_stray_copies(files.sizes):
        if path.lower().endswith(".txt"):
            name = path.rpartition("/")[2][: -len(".txt")]
            if name == TRAIN_AND_VAL or split_of_subset(name) in splits:
                found.setdefault(folder_of(path), []).append(path)
    return {folder: sorted(own) for folder, own in found.items()}


def _named(line: str, known: Collection[str]) -> str | None:
    """The image that a line names: by a path of any machine, with an extension, or with values behind it."""
    for text in dict.fromkeys((line, line.split("  ", maxsplit=1)[0], line.split(maxsplit=1)[0])):
        path = text.strip('"').replace("\\", "/")
        end = next((end for end in IMAGE_SUFFIXES if path.lower().endswith(end)), "")
        for whole in (path, path[: len(path) - len(end)]):
            parts = whole.split("/")
            for start in range(len(parts)):
                name = "/".join(parts[start:])
                if name in known:
                    return name
    return None
