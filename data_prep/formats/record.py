"""The one record that every annotation format is read into, and what a format has to offer.

A format reads what its files say and converts nothing else: boxes over the edge, rotations, EXIF orientations,
missing and damaged images are handled for all formats alike, by `data_prep.export_reader`.
"""

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from data_prep.box_geometry import Xywh
from data_prep.changes import ChangeLog
from data_prep.sources.files import ExportFiles

NO_OUTLINE = msgspec.Raw(b"[]")
NO_ATTRIBUTES = msgspec.Raw(b"{}")


class Annotation(msgspec.Struct, frozen=True, gc=False):
    """One object on an image, as the file has it."""

    class_name: str
    box: Xywh | None
    """(x, y, width, height) in pixels, before `rotation`. None: the file has no box, or no finite numbers."""
    place: object
    """Its id or line in the annotation file, for messages."""
    box_as_written: object = None
    """The box in the file's own words, for messages, where that is something else."""
    box_was_text: bool = False
    """The numbers of the box were written as text."""
    rotation: float = 0.0
    """Degrees, clockwise about the box's centre. Not applied to the outline, which is in its final position."""
    outline: msgspec.Raw = NO_OUTLINE
    """JSON, as COCO has it: polygons `[[x1, y1, x2, y2, ...], ...]` or a mask `{"size": [h, w], "counts": ...}`."""
    area: float | None = None
    """Square pixels inside the outline. None: unknown."""
    is_crowd: bool = False
    """The file marks it as a crowd, which COCO's tools do not train or measure on."""
    track_id: str | None = None
    """Objects of one recording with the same id are one object at different times."""
    source: str | None = None
    """Who drew it: `manual`, `auto` or `file`, in CVAT's words. None: the format does not say."""
    attributes: msgspec.Raw = NO_ATTRIBUTES
    """A JSON object: everything else that the annotator or CVAT said about it."""


@dataclass(frozen=True, slots=True)
class ListedImage:
    """An image as the annotations list it. Its file may be missing, damaged, or of another size."""

    file_name: str
    """Relative path, as written."""
    folders: tuple[str, ...]
    """Where the file may lie, in this order: prefixes of paths in the source, `""` or ending in `/`."""
    subset: str
    """CVAT's name of the part that it belongs to: `train`, `default`, ..."""
    listed_in: str
    """Path of the annotation file."""
    annotations: Iterable[Annotation]
    """In the order of the file. May be gone through more than once."""
    width: int | None = None
    """Pixels, as declared; None together with `height` where the file does not say."""
    height: int | None = None
    recording: str | None = None
    """Stands for the video that it is a frame of. None: the format does not say; the file's name may."""


@dataclass(frozen=True, slots=True)
class Annotations:
    """All that a source says about its images."""

    images: Sequence[ListedImage]
    classes: Mapping[str, frozenset[int]]
    """Class name, as `clean_class_name` gives it, and the ids that it has in the source."""
    image_folder: str
    """A prefix, below which an image that no annotation file lists is reported."""


class Format(Protocol):
    """One annotation format."""

    name: str
    """CVAT's name for it."""
    looks_like: str
    """The path by which a person recognises it."""

    def recognises(self, files: ExportFiles) -> bool:
        """Whether the source holds annotations in this format. It may lie in a bucket: read as little as possible."""

    def own_files(self, files: ExportFiles) -> list[str]:
        """The paths of annotations and images: nothing else of a bucket is fetched.

        Only called for a source that it recognises. SourceError: it is unclear which files are meant.
        """

    def read(self, files: ExportFiles, changes: ChangeLog) -> Annotations:
        """Read all annotation files; what is dropped or mended on the way is counted in `changes`.

        SourceError, AnnotationError: a sentence about what cannot be mended.
        """


def clean_class_name(name: str) -> str:
    """The name by which classes of several sources are merged: trimmed, composed Unicode."""
    return unicodedata.normalize("NFC", name).strip()
