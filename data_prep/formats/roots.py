"""Where the exports of a source lie: the path prefix of each, `""` or ending in `/`."""

from collections.abc import Iterable

from data_prep.checks.subset_names import split_of_subset
from data_prep.sources.files import ExportFiles, images_below


def folder_of(path: str) -> str:
    """The folder of a file: `""`, or ending in `/`."""
    return path[: path.rfind("/") + 1]


def parent_of(folder: str) -> str:
    """The folder above: `""`, or ending in `/`."""
    return folder_of(folder.rstrip("/"))


def common_roots(folders: Iterable[str], files: ExportFiles) -> list[str]:
    """The roots of the exports whose annotation files lie in these folders.

    A folder for one split, or without images, belongs to the folder above. A root inside another one belongs to it.
    """
    lifted: set[str] = set()
    for folder in set(folders):
        root = folder
        while split_of_subset(root.rstrip("/").rpartition("/")[2]):
            root = parent_of(root)
        lifted.add(root if images_below(root, files.sizes) else parent_of(root))
    return outermost(lifted)


def outermost(roots: Iterable[str]) -> list[str]:
    """The roots that lie in no other of them, sorted."""
    kept: list[str] = []
    for root in sorted(set(roots)):
        if not any(root.startswith(one) for one in kept):
            kept.append(root)
    return kept
