"""Which image an annotation file belongs to, in formats with a file for each image.

The file names its image, and is itself called like it. Images are often renamed together with their files, whose text
then names an image of an earlier time, or another one.
"""

from pathlib import PurePosixPath

from data_prep.changes import ChangeLog, Reason
from data_prep.formats.record import UnlistedReferences
from data_prep.formats.roots import without_suffix
from data_prep.image_finder import key_without_extension, name_key
from data_prep.remedies import change_limit
from data_prep.sources.files import ExportFiles, images_below


class NamedImages:
    """Compares the names in annotation files with the images that are called like the files."""

    def __init__(self, files: ExportFiles, changes: ChangeLog) -> None:
        images = images_below("", files.sizes)
        self._where = files.shown_name
        self._by_stem = {without_suffix(path): path for path in images}
        self._names = {path.rpartition("/")[2].casefold() for path in images}
        self._changes = changes
        self._total = 0
        self._others: list[tuple[str, str, str]] = []

    def choose(self, path: str, named: str, folders: tuple[str, ...]) -> str:
        """The image's name, relative to one of the folders: the file's own if there is no image of the given name."""
        self._total += 1
        stem, wanted = PurePosixPath(path).stem, named.replace("\\", "/").rpartition("/")[2]
        folder = next((one for one in folders if one + stem in self._by_stem), None)
        if folder is None or key_without_extension(f"{stem}.jpg") in (name_key(wanted), key_without_extension(wanted)):
            return named
        own = self._by_stem[folder + stem]
        if wanted.casefold() in self._names:
            self._others.append((path, named, own))
            return named
        self._changes.add(Reason.NAME_BESIDE, named, detail=own)
        return own.removeprefix(folder)

    @property
    def notes(self) -> list[str]:
        """A warning if files name other images than those that are called like them."""
        return [f"{self._sentence()}. The named images were used."] if self._others else []

    def summary(self) -> UnlistedReferences:
        """How many files name another image than the one that is called like them."""
        sentence = (
            f"{self._where}: {self._sentence()}. The boxes belong to only one of the two: correct the names in the "
            "annotation files, or rename the files; to use the named images, "
            f"{change_limit('unlisted-references', '1')}"
            if self._others
            else ""
        )
        return UnlistedReferences(len(self._others), self._total, sentence)

    def _sentence(self) -> str:
        path, named, own = self._others[0]
        return (
            f"{len(self._others):,} of {self._total:,} annotation files name another image than the one that is called "
            f"like them (for example {path!r} names {named!r}, and there is also {own!r})"
        )
