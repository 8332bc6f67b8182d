"""Find the file that a `file_name` of an annotation file means."""

from collections import defaultdict
from collections.abc import Mapping

from data_prep.sources.files import images_below, safe_path, without_macos_shadows


class ImageFinder:
    """Finds the files of listed images. `image_folder` is where those that nobody lists are looked for."""

    def __init__(self, sizes: Mapping[str, int], image_folder: str) -> None:
        self._sizes = sizes
        self._used: set[str] = set()
        self._images = images_below(image_folder, sizes)
        self._folded: dict[str, list[str]] = defaultdict(list)
        for path in without_macos_shadows(sizes):
            self._folded[path.casefold()].append(path)

    def find(self, file_name: str, folders: tuple[str, ...], where: str) -> tuple[str, str | None]:
        """The cleaned relative name, and the path of its file or None.

        The folders are gone through in order; with the exact name first, then without regard to case
        (datumaro writes extensions in lower case).
        """
        name = safe_path(file_name, where)
        places = [f"{folder}{name}" for folder in folders]
        path = next((place for place in places if place in self._sizes), None)
        if path is None:
            matches = (self._folded.get(place.casefold(), []) for place in places)
            path = next((found[0] for found in matches if len(found) == 1), None)
        if path is not None:
            self._used.add(path)
        return name, path

    @property
    def unlisted(self) -> list[str]:
        """Image files that nobody asked for."""
        return [path for path in self._images if path not in self._used]

    @property
    def has_images(self) -> bool:
        """Whether the export holds image files at all."""
        return bool(self._images) or bool(self._used)
