"""YOLO 1.1 as CVAT and Darknet write it: `obj.data`, `obj.names`, lists of images, and a text beside each image."""

import re
from typing import Any
from weakref import WeakKeyDictionary

from data_prep.changes import ChangeLog
from data_prep.errors import AnnotationError
from data_prep.formats.record import Annotations
from data_prep.formats.roots import first_of_each, folder_of
from data_prep.formats.text_lines.lines import read_names
from data_prep.formats.ultralytics import YoloReader, tails
from data_prep.sources.files import ExportFiles, images_below, without_stray_copies
from run_config.cvat_formats import YOLO

MAX_DATA_BYTES = 1 << 20
_KEY = re.compile(rb"^[ \t]*(names|train|valid|test)[ \t]*=[ \t]*(\S.*)$", re.MULTILINE)

_found_in: WeakKeyDictionary[ExportFiles, dict[str, dict[str, str]]] = WeakKeyDictionary()


class Yolo:
    """Darknet's layout of YOLO."""

    name = YOLO
    looks_like = "obj.data"

    def roots(self, files: ExportFiles) -> list[str]:
        """The folders of `.data` files with the keys `names` and `train`, `valid` or `test`."""
        return [folder_of(path) for path in _data_files(files)]

    def own_files(self, files: ExportFiles) -> list[str]:
        """The file of keys, the names, and all images and text files beside and below it."""
        (root,) = self.roots(files)
        ends = (".txt", ".data", ".names")
        texts = [
            path for path in without_stray_copies(files.sizes) if path.startswith(root) and path.lower().endswith(ends)
        ]
        return [*texts, *images_below(root, files.sizes)]

    def read(self, files: ExportFiles, changes: ChangeLog) -> Annotations:
        """Read the lists and all label files."""
        path, keys = next(iter(_data_files(files).items()))
        root = folder_of(path)
        names = next((place for tail in tails(keys["names"]) if (place := root + tail) in files.sizes), None)
        if names is None:
            raise AnnotationError(
                f"{files.shown_name}: {path}: names: there is no file {keys['names'][:200]!r}: export again"
            )
        data: dict[str, Any] = {"names": read_names(files, names)}
        data |= {
            split: keys[key] for split, key in (("train", "train"), ("val", "valid"), ("test", "test")) if key in keys
        }
        return YoloReader(files, path, data, changes, exporter="Darknet", names_path=names).read()


def _data_files(files: ExportFiles) -> dict[str, dict[str, str]]:
    """Path → keys of each file of keys. Each is read once for each source."""
    if files not in _found_in:
        sizes = files.sizes
        paths = [path for path in without_stray_copies(sizes) if path.endswith(".data")]
        small = [path for path in paths if sizes[path] <= MAX_DATA_BYTES]
        read = {
            path: {key.decode(): value.decode("utf-8", "replace").strip() for key, value in _KEY.findall(data)}
            for path in first_of_each(folder_of, small, files, MAX_DATA_BYTES)
            for data in [files.read(path, MAX_DATA_BYTES)]
        }
        _found_in[files] = {path: keys for path, keys in read.items() if "names" in keys and len(keys) > 1}
    return _found_in[files]
