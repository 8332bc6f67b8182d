"""Find the image file for a `file_name` in an annotation file.

Exact names come first. If there is no such file, names are compared as people and programs change them: upper and
lower case, percent-encoding, Unicode forms, code pages of zips, folders of another machine, converted extensions.
A file is only used if no other file fits as well.
"""

import difflib
import itertools
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import PurePosixPath
from typing import Literal, NamedTuple
from urllib.parse import unquote, urlsplit

from data_prep.changes import Reason
from data_prep.errors import SourceError
from data_prep.formats.record import ListedImage
from data_prep.sources.files import (
    ARCHIVE_SUFFIXES,
    IMAGE_SUFFIXES,
    PACKED_OTHERWISE,
    UNREADABLE_SUFFIXES,
    images_below,
    safe_path,
    videos_among,
    without_stray_copies,
)

# Encodings in which tools write names into a zip without saying so, and those in which the names are then read.
_WRITTEN_AS = ("utf-8", "gb18030", "cp932", "euc_kr", "big5", "cp1252", "cp1251", "cp850", "cp866", "cp1250", "cp1253")
_READ_AS = (("cp437", "strict"), ("cp1252", "strict"), ("latin-1", "strict"), ("utf-8", "replace"))
_MASKS = re.compile(r"(^|/)(masks|SegmentationClass|SegmentationObject)/")
"""Folders of pictures that formats have beside their images."""
_EXTENSION = re.compile(r"\.[a-z][a-z0-9]{0,4}$")
_MOST_COMPARED = 5_000
_MOST_MISREAD = 200
"""So many names in no known encoding end the search for encodings."""
_FORMS: tuple[Literal["NFC", "NFD"], ...] = ("NFC", "NFD")


class FoundImage(NamedTuple):
    """Where the file of a listed image lies."""

    name: str
    """Cleaned relative name, for the prepared set."""
    path: str | None
    """None: there is no such file, or several fit equally well."""
    reason: Reason | None = None
    """How the file's name differs from the listed one. None: not at all."""


class ImageFinder:
    """Finds the files of listed images, and the image files that no annotation file lists."""

    def __init__(self, sizes: Mapping[str, int]) -> None:
        self._sizes = sizes
        self._paths = list(without_stray_copies(sizes))
        self._images = images_below("", sizes)
        self._used: set[str] = set()
        self._folders: frozenset[str] = frozenset()
        self._folders_are_real = False
        """Whether images were found in folders that their listed names have: then other folders hold other images."""
        self._misreadings = list(itertools.product(_WRITTEN_AS, _READ_AS, _FORMS))
        self._unreadable_names = 0

    def find(self, images: Sequence[ListedImage], where: str) -> list[FoundImage]:
        """The file of each image. Raises SourceError for a name that leads out of the source, to no known file."""
        self._folders = frozenset(folder for image in images for folder in image.folders)
        exact = [self._exact(image) for image in images]
        self._used = {one.path for one in exact if one.path is not None}
        self._folders_are_real = any(one.path is not None and "/" in one.name for one in exact)
        found = [
            one if one.path is not None else self._similar(image, where)
            for image, one in zip(images, exact, strict=True)
        ]
        self._used.update(one.path for one in found if one.path is not None)
        return found

    @property
    def unlisted(self) -> list[str]:
        """Image files that `find` never returned."""
        return [path for path in self._images if path not in self._used and not _MASKS.search(path)]

    @property
    def unreadable(self) -> list[str]:
        """Pictures in formats that are not decoded."""
        return [path for path in self._paths if path.lower().endswith(UNREADABLE_SUFFIXES)]

    @property
    def archives(self) -> list[str]:
        """The archives inside the source."""
        return [path for path in self._paths if path.lower().endswith((*ARCHIVE_SUFFIXES, *PACKED_OTHERWISE))]

    @property
    def videos(self) -> list[str]:
        """The video files of the source."""
        return videos_among(self._sizes)

    def describe_files(self, file_name: str) -> str:
        """The files that are there, for a message: the nearest name and the folders with images. Empty: no images."""
        images = images_below("", self._sizes)
        if not images:
            return ""
        folders = Counter(str(PurePosixPath(path).parent) for path in images)
        shown = ", ".join(f"{folder!r} ({count:,})" for folder, count in folders.most_common(3))
        wanted = name_key(_tail(file_name)).rpartition("/")[2]
        names = {name_key(path).rpartition("/")[2]: path for path in images[:_MOST_COMPARED]}
        near = difflib.get_close_matches(wanted, names, 1, 0.5)
        nearest = f"; the most similar name is {names[near[0]]!r}" if near else f"; the first is {images[0]!r}"
        return f"the images lie in {shown}{nearest}"

    def _exact(self, image: ListedImage) -> FoundImage:
        name = _plain(image.file_name)
        if name:
            for folder in image.folders:
                if folder + name in self._sizes:
                    return FoundImage(name, folder + name)
        return FoundImage(name, None)

    def _similar(self, image: ListedImage, where: str) -> FoundImage:
        name = _plain(image.file_name)
        tail = _tail(image.file_name)
        places = _places(image, name or tail)
        # Two names that differ only in case are the same file for this rule: such an export is refused later.
        matches = (self._by(str.casefold).get(place.casefold(), []) for place in places)
        path = next((found[0] for found in matches if len(found) == 1), None)
        if path is not None and name:
            return FoundImage(name, path, Reason.NAME_CASE)

        def elsewhere(base: Callable[[str], str], key: Callable[[str], str]) -> str | None:
            if self._folders_are_real and "/" in name:
                return None
            return self._in_other_folder(tail, image.folders, self._by(base), key)

        ways: tuple[tuple[Reason, Callable[[], str | None]], ...] = (
            (Reason.NAME_SPELLING, lambda: self._only(self._by(name_key), map(name_key, places))),
            (Reason.NAME_SPELLING, lambda: self._misread(places)),
            (Reason.NAME_FOLDER, lambda: elsewhere(_base, name_key)),
            (
                Reason.NAME_EXTENSION,
                lambda: self._only(self._by(key_without_extension), map(key_without_extension, places)),
            ),
            (Reason.NAME_EXTENSION, lambda: elsewhere(_base_stem, key_without_extension)),
        )
        for reason, look in ways:
            path = look()
            if path is not None:
                return FoundImage(name, path, reason) if name else _moved(tail, path)
        if not name:
            raise SourceError(
                f"{where} names a file outside itself, {image.file_name!r}, and holds no file of that name: put it "
                "in, or remove the image from the annotations"
            )
        return FoundImage(name, None)

    @cached_property
    def _indices(self) -> dict[Callable[[str], str], dict[str, list[str]]]:
        return {}

    def _by(self, key: Callable[[str], str]) -> dict[str, list[str]]:
        """All files by a key of their path; made when it is first needed."""
        if key not in self._indices:
            index = self._indices[key] = defaultdict(list)
            # Beside an image there may be a text of the same name, such as its labels.
            images_only = key in (key_without_extension, _base_stem)
            for path in self._paths:
                if not images_only or path.lower().endswith(IMAGE_SUFFIXES) or not PurePosixPath(path).suffix:
                    index[key(path)].append(path)
        return self._indices[key]

    def _only(self, index: dict[str, list[str]], keys: Iterable[str]) -> str | None:
        """The one file that has the first key that any file has, unless another image uses it."""
        for key in keys:
            free = [path for path in index.get(key, ()) if path not in self._used]
            if len(free) == 1:
                return free[0]
        return None

    def _misread(self, places: list[str]) -> str | None:
        """The file whose name is one of the places, written in one encoding and read in another."""
        if all(place.isascii() for place in places) or self._unreadable_names > _MOST_MISREAD:
            return None
        for pair in list(self._misreadings):
            path = self._only(self._by(_same), (text for place in places if (text := _as_misread(place, *pair))))
            if path is not None:
                # The names of one archive were all changed in the same way.
                self._misreadings.remove(pair)
                self._misreadings.insert(0, pair)
                return path
        self._unreadable_names += 1
        return None

    def _in_other_folder(
        self, tail: str, folders: tuple[str, ...], index: dict[str, list[str]], key: Callable[[str], str]
    ) -> str | None:
        """The one file of that name, in whichever folder; of several, the one that shares most parent folders."""
        wanted = key(tail)
        found = [path for path in index.get(wanted.rpartition("/")[2], ()) if path not in self._used]
        # The folder of another subset holds other images, even if they have the same names.
        found = [path for path in found if self._home(path) in (*folders, "")]
        depths = [_shared_parts(wanted, key(path)) for path in found]
        best = [path for path, depth in zip(found, depths, strict=True) if depth == max(depths)]
        return best[0] if len(best) == 1 else None

    def _home(self, path: str) -> str:
        return max((folder for folder in self._folders if path.startswith(folder)), key=len, default="")


def _places(image: ListedImage, name: str) -> list[str]:
    return [f"{folder}{name}" for folder in image.folders]


def _plain(file_name: str) -> str:
    """The name as a relative path, or empty if it is a URL or leads out of the source."""
    try:
        return "" if "://" in file_name else safe_path(file_name, "")
    except SourceError:
        return ""


def _tail(file_name: str) -> str:
    """The part of a path or URL of another machine that may be found here: without host, drive and `..`.

    Label Studio names local files in the query: `/data/local-files/?d=folder/name.jpg`.
    """
    if "/local-files/?d=" in file_name:
        file_name = unquote(file_name.partition("?d=")[2])
    if "://" in file_name:
        try:
            file_name = urlsplit(file_name).path
        except ValueError:
            return ""
    parts = PurePosixPath(file_name.replace("\\", "/").replace("\0", "")).parts
    last_up = max((index for index, part in enumerate(parts) if part in ("..", "/") or part.endswith(":")), default=-1)
    return "/".join(parts[last_up + 1 :])


def _common_tail(name: str, path: str) -> str:
    """The last parts of `name` that `path` has too, at least the file's own name."""
    return "/".join(name.split("/")[-max(1, _shared_parts(name_key(name), name_key(path))) :])


def _moved(tail: str, path: str) -> FoundImage:
    """An image whose listed name leads out of the source, named by what its path shares with the listed one."""
    return FoundImage(_common_tail(tail, path), path, Reason.NAME_FOLDER)


def _shared_parts(one: str, other: str) -> int:
    count = 0
    for left, right in zip(reversed(one.split("/")), reversed(other.split("/")), strict=False):
        if left != right:
            break
        count += 1
    return count


def _same(path: str) -> str:
    return path


def name_key(path: str) -> str:
    """The same for all spellings of a path: percent-encoding, Unicode form and case do not count."""
    return unicodedata.normalize("NFC", unquote(path)).casefold()


def key_without_extension(path: str) -> str:
    """The key without the file's extension. Other dots belong to the name: `frame.0001` has no extension."""
    return _EXTENSION.sub("", name_key(path))


def _base(path: str) -> str:
    return name_key(path).rpartition("/")[2]


def _base_stem(path: str) -> str:
    return key_without_extension(path).rpartition("/")[2]


def _as_misread(place: str, written_as: str, read_as: tuple[str, str], form: Literal["NFC", "NFD"]) -> str:
    """The name after it was written in one encoding and read in another. Empty: it cannot be."""
    try:
        return unicodedata.normalize(form, place).encode(written_as).decode(*read_as)
    except UnicodeError:
        return ""
