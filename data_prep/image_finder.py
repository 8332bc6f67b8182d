"""Find the image file for a `file_name` in an annotation file."""

from collections import defaultdict
from collections.abc import Mapping

from data_prep.sources.files import images_below, safe_path, without_macos_shadows


class ImageFinder:
    """Finds the files of listed images, and the image files below `image_folder` that no annotation file lists."""

    def __init__(self, sizes: Mapping[str, int], image_folder: str) -> None:
        self._sizes = sizes
        self._used: set[str] = set()
        self._images = images_below(image_folder, sizes)
        self._folded: dict[str, list[str]] = defaultdict(list)
        for path in without_macos_shadows(sizes):
            self._folded[path.casefold()].append(path)

    def find(self, file_name: str, folders: tuple[str, ...], where: str) -> tuple[str, str | None]:
        """Return the cleaned relative name, and the path of its file or None.

        The folders are searched in order: first for the exact name, then ignoring case (datumaro writes
        extensions in lower case).
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
        """Image files that `find` never returned."""
        return [path for path in self._images if path not in self._used]

    @property
    def has_images(self) -> bool:
        """Whether the export contains any image files."""
        return bool(self._images) or bool(self._used)
