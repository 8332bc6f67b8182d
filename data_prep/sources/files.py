"""The files of a source, wherever they lie, and the rules for their paths."""

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Protocol

from data_prep.errors import SourceError

IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".jp2", ".avif",
)  # fmt: skip

UNREADABLE_SUFFIXES = (".heic", ".heif", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raw", ".svg", ".pdf", ".dcm", ".psd")
"""Pictures that are not decoded here."""

ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz")

PACKED_OTHERWISE = (".rar", ".7z", ".gz", ".bz2", ".xz", ".zst", ".tbz2", ".txz")
"""Archives that are not read. A tar in gzip is recognised before."""

VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv", ".ts", ".3gp")


class ExportFiles(Protocol):
    """The files of a source; `read` may be called from several threads."""

    @property
    def shown_name(self) -> str:
        """The source's name in messages."""

    @property
    def sizes(self) -> dict[str, int]:
        """Path → size in bytes."""

    def read(self, name: str, limit: int) -> bytes:
        """A file's content. Raises SourceError when it is larger than `limit`."""

    def close(self) -> None:
        """Close what is open."""


class FolderOfExport:
    """The files below a folder of a source, as a source of its own. Closing it is left to the source."""

    def __init__(self, files: ExportFiles, root: str, sizes: Mapping[str, int]) -> None:
        """`sizes`: those of the files below `root`, by their paths in the source."""
        self.shown_name = f"{files.shown_name}/{root.rstrip('/')}"
        self.sizes = {path[len(root) :]: size for path, size in sizes.items()}
        self._files = files
        self._root = root

    def read(self, name: str, limit: int) -> bytes:
        """The content of a file, at most `limit` bytes."""
        return self._files.read(self._root + name, limit)

    def close(self) -> None:
        """Nothing to close."""


def printable(name: str) -> str:
    """The name as valid UTF-8: bytes of a file name that are not UTF-8 become the replacement character."""
    try:
        return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    except UnicodeEncodeError:
        return name.encode("utf-8", "backslashreplace").decode()


def without_stray_copies(paths: Iterable[str]) -> Iterator[str]:
    """All paths except the shadow files that macOS packs beside the real ones, and Jupyter's old copies of files."""
    return (
        path
        for path in paths
        if "__MACOSX/" not in path
        and ".ipynb_checkpoints/" not in path
        and not path.rpartition("/")[2].startswith("._")
    )


def matching(pattern: re.Pattern[str], paths: Iterable[str]) -> dict[str, re.Match[str]]:
    """The paths that `pattern` matches as a whole, sorted, without the shadow files of macOS."""
    matches = {path: pattern.fullmatch(path) for path in sorted(without_stray_copies(paths))}
    return {path: match for path, match in matches.items() if match}


def images_below(prefix: str, paths: Iterable[str]) -> list[str]:
    """The image files whose paths begin with `prefix`."""
    return [
        path
        for path in without_stray_copies(paths)
        if path.startswith(prefix) and path.lower().endswith(IMAGE_SUFFIXES)
    ]


def may_be_images_below(prefix: str, paths: Iterable[str]) -> list[str]:
    """The same, and files without an extension, which may be images."""
    return [
        path
        for path in without_stray_copies(paths)
        if path.startswith(prefix) and (path.lower().endswith(IMAGE_SUFFIXES) or "." not in path.rpartition("/")[2])
    ]


def videos_among(paths: Iterable[str]) -> list[str]:
    """The video files."""
    return [path for path in without_stray_copies(paths) if path.lower().endswith(VIDEO_SUFFIXES)]


def export_frames(video: str) -> str:
    """How to get the frames of a video as images, for a message."""
    name = video.rpartition("/")[2]
    return (
        "videos are not read. Export the task from CVAT with 'Save images', which writes its frames as images, or "
        f"write them yourself: ffmpeg -i {name!r} -start_number 0 images/frame_%06d.png"
    )


def safe_path(name: str, where: str) -> str:
    """A relative path with forward slashes that stays below its root. Raises SourceError otherwise."""
    cleaned = name.replace("\\", "/")
    parts = PurePosixPath(cleaned).parts
    drive = len(cleaned) > 1 and cleaned[1] == ":"
    if cleaned.startswith("/") or drive or ".." in parts or "\0" in cleaned:
        raise SourceError(
            f"{where} names a file outside itself: {name!r}; such paths are not followed, use an export as "
            "CVAT writes it"
        )
    return "/".join(parts)


def too_large(what: str, size_bytes: int, limit: int) -> SourceError:
    """The error for a file that exceeds its size limit."""
    return SourceError(f"{what} has {size_bytes >> 20} MiB; the limit is {limit >> 20} MiB")


def without_name(archive: str) -> SourceError:
    """The error for a file in an archive that has no name."""
    return SourceError(f"{archive} holds a file without a name: pack the export again")


def named_twice(archive: str, name: str) -> SourceError:
    """The error for two files in an archive with the same name."""
    return SourceError(
        f"{archive} holds two files called {name!r}: it is unclear which one is meant, export the task again"
    )


def no_room(what: str, folder: Path | str, error: OSError) -> SourceError:
    """The error for a temporary folder that cannot hold what is written there."""
    return SourceError(f"{what} cannot be written to {folder} ({error.strerror}): make room there, or set TMPDIR")
