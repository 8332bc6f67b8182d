"""The record that every annotation format is read into, and the interface of a format.

A format only reads what its files say. Boxes over the edge, rotations, EXIF orientations, missing and damaged
images are handled for all formats by `data_prep.export_reader`.
"""

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import msgspec

from data_prep.box_form import BoxForm
from data_prep.box_geometry import Xywh
from data_prep.changes import ChangeLog
from data_prep.sources.files import ExportFiles

_INVISIBLE = dict.fromkeys(map(ord, "\u200b\u2060\ufeff\u00ad"))
"""Zero-width space, word joiner, byte order mark, soft hyphen. Joiners of letters have a meaning and stay."""
NO_OUTLINE = msgspec.Raw(b"[]")
NO_ATTRIBUTES = msgspec.Raw(b"{}")


class Annotation(msgspec.Struct, frozen=True, gc=False):
    """One object on an image, as in the file."""

    class_name: str
    box: Xywh | None
    """(x, y, width, height) in pixels, before `rotation`. None: the box is missing or has no finite numbers."""
    place: object
    """Its id or line in the annotation file, for messages."""
    box_as_written: object = None
    """The box exactly as the file writes it, for messages. None: the same as `box`."""
    box_was_text: bool = False
    """Whether the numbers of the box were written as text."""
    box_was_converted: bool = False
    """Whether the file writes the box in another form, such as corners or fractions."""
    rotation: float = 0.0
    """Degrees, clockwise about the box's centre. The outline already has this rotation."""
    outline: msgspec.Raw = NO_OUTLINE
    """JSON in COCO's form: polygons `[[x1, y1, x2, y2, ...], ...]` or a mask `{"size": [h, w], "counts": ...}`."""
    area: float | None = None
    """Square pixels inside the outline. None: unknown."""
    is_crowd: bool = False
    """Whether the file marks it as a crowd, which COCO tools leave out of training and evaluation."""
    track_id: str | None = None
    """Objects with the same id in one recording are one object at different times."""
    source: str | None = None
    """Who drew it: `manual`, `auto` or `file`, as CVAT calls it. None: the format does not say."""
    group: str | None = None
    """Objects of one image with the same group belong together."""
    attributes: msgspec.Raw = NO_ATTRIBUTES
    """JSON object with everything else that the annotator or CVAT stored for it."""

    @property
    def has_only_outline(self) -> bool:
        """Whether the file gives no box, not even a wrong one, but an outline that has one."""
        return self.box is None and not self.box_as_written and self.outline is not NO_OUTLINE


@dataclass(frozen=True, slots=True)
class ListedImage:
    """An image as the annotations list it. Its file may be missing, damaged, or of another size."""

    file_name: str
    """Relative path, as written."""
    folders: tuple[str, ...]
    """Where to look for the file, in this order: path prefixes in the source, `""` or ending in `/`."""
    subset: str
    """CVAT's name of its subset: `train`, `default`, ..."""
    listed_in: str
    """Path of the annotation file."""
    annotations: Iterable[Annotation]
    """In the order of the file. Can be iterated more than once."""
    width: int | None = None
    """Declared width in pixels. None, together with `height`, when the file does not give it."""
    height: int | None = None
    recording: str | None = None
    """Identifies the video that this frame belongs to. None: the format does not say, but the file name may."""


@dataclass(frozen=True, slots=True)
class UnlistedReferences:
    """Annotations that belong to an image or class that their file does not list."""

    lost: int
    total: int
    sentence: str
    """Says where, how many, and the likely cause."""


@dataclass(frozen=True, slots=True)
class Annotations:
    """Everything that a source says about its images."""

    images: Sequence[ListedImage]
    classes: Mapping[str, frozenset[int]]
    """Class name, from `clean_class_name` → the class's ids in the source."""
    unlisted_classes: Mapping[int, int] = field(default_factory=dict)
    """Class ids that the annotations use but no class has → number of annotations. Those were dropped."""
    unlisted: Sequence[UnlistedReferences] = ()
    """For each annotation file. Too many refuse the source."""
    exporter: str = ""
    """The program that wrote the annotations, if they say so: `Label Studio`, `Roboflow`, …"""
    files: ExportFiles | None = None
    """The source with the images that are inside its annotation files. None: there are none."""
    notes: Sequence[str] = ()
    """Warnings: how numbers with several meanings were read."""
    box_form: BoxForm = BoxForm.XYWH
    """How the files write boxes. The records have x, y, width, height, as fractions of the image if the files have."""

    parent: str = ""
    """The class that all others name as their parent."""

    has_sizes: bool = True
    """Whether the format lists the images' sizes."""

    @property
    def in_shares(self) -> bool:
        """Whether boxes and polygons are fractions of the image's width and height instead of pixels."""
        return self.box_form.in_shares


class Format(Protocol):
    """One annotation format."""

    name: str
    """CVAT's name for it."""
    looks_like: str
    """A path by which a person recognises the format."""

    def roots(self, files: ExportFiles) -> Sequence[str]:
        """The path prefix of each export in this format. Read as little as possible: it may lie in a bucket."""

    def own_files(self, files: ExportFiles) -> list[str]:
        """The paths of annotations and images; nothing else is downloaded from a bucket.

        Only called for a source with one root. Raises SourceError when it is unclear which files are meant.
        """

    def read(self, files: ExportFiles, changes: ChangeLog) -> Annotations:
        """Read all annotation files of a source with one root; drops and corrections are counted in `changes`.

        Raises SourceError or AnnotationError for faults that cannot be corrected.
        """


@runtime_checkable
class FormatOfFolders(Format, Protocol):
    """A format whose exports may be spread over many folders, which are read together."""

    def is_one_export(self, files: ExportFiles) -> bool:
        """Whether `own_files` and `read` take the source as one export, whatever its number of roots."""


def from_shares(annotation: Annotation, width: int, height: int) -> Annotation:
    """The annotation in pixels of an image of this size, if box and polygons are fractions of it."""
    box, outline = annotation.box, annotation.outline
    if box is not None:
        box = (box[0] * width, box[1] * height, box[2] * width, box[3] * height)
    if outline is not NO_OUTLINE:
        outline = scaled_outline(outline, width, height)
    return msgspec.structs.replace(annotation, box=box, outline=outline)


def scaled_outline(outline: msgspec.Raw, across: float, down: float) -> msgspec.Raw:
    """Polygons with their x multiplied by `across` and their y by `down`. Anything else stays as it is."""
    try:
        polygons = msgspec.json.decode(outline, type=list[list[float]])
    except msgspec.DecodeError:
        return outline
    scaled = [[one * (down if index % 2 else across) for index, one in enumerate(own)] for own in polygons]
    return msgspec.Raw(msgspec.json.encode(scaled))


def clean_class_name(name: str) -> str:
    """The name by which classes of several sources are merged: in Unicode form NFC, as a person sees it.

    Characters without width are left out, and unusual spaces become plain ones.
    """
    visible = unicodedata.normalize("NFC", name).translate(_INVISIBLE)
    return "".join(" " if unicodedata.category(one) == "Zs" else one for one in visible).strip()
