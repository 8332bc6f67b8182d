"""Where the exports of a source lie: the path prefix of each, `""` or ending in `/`."""

import posixpath
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from data_prep.checks.subset_names import split_of_subset
from data_prep.sources.files import ExportFiles, images_below

MOST_LOOKED_INTO = 20
"""Files that are read to recognise a format, apart from the first of each folder."""
MOST_EXPORTS = 1_000
"""In one source."""


def without_suffix(path: str) -> str:
    """The path without its extension; also of names such as `..png`, at which pathlib fails."""
    return posixpath.splitext(path)[0]


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
    images = sorted(images_below("", files.sizes))
    for folder in set(folders):
        root = folder
        while split_of_subset(root.rstrip("/").rpartition("/")[2]):
            root = parent_of(root)
        lifted.add(root if any_below(root, images) else parent_of(root))
    return outermost(lifted)


def outermost(roots: Iterable[str]) -> list[str]:
    """The roots that lie in no other of them, sorted."""
    kept: list[str] = []
    for root in sorted(set(roots)):
        if not kept or not root.startswith(kept[-1]):
            kept.append(root)
    return kept


def any_below(root: str, paths: Sequence[str]) -> bool:
    """Whether any of the sorted paths lies below a root."""
    at = bisect_left(paths, root)
    return at < len(paths) and paths[at].startswith(root)


def root_of(path: str, roots: Sequence[str]) -> str | None:
    """The root above a path. `roots` are sorted, and none lies in another one."""
    at = bisect_right(roots, path)
    return roots[at - 1] if at and path.startswith(roots[at - 1]) else None


def first_of_each(folder: Callable[[str], str], paths: Iterable[str], files: ExportFiles, limit: int) -> list[str]:
    """The paths to look into to recognise a format, sorted: the first of each `folder`, but at least 20 of all.

    `limit`: bytes of one file. From the 21st file on, a file is skipped if it would raise the total above 20 times this
    limit.
    """
    within: Counter[str] = Counter()
    ranked: list[tuple[int, str]] = []
    for path in sorted(paths):
        own = folder(path)
        ranked.append((within[own], path))
        within[own] += 1
    chosen = sorted(ranked)[: max(MOST_LOOKED_INTO, min(len(within), MOST_EXPORTS + 1))]
    sizes, total, kept = files.sizes, 0, list[str]()
    for _, path in chosen:
        if len(kept) < MOST_LOOKED_INTO or total + sizes[path] <= MOST_LOOKED_INTO * limit:
            kept.append(path)
            total += sizes[path]
    return sorted(kept)
